"""What lies between a file and a model: the opened content, and the model recognised in it."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from flax import nnx

from qdgs_jax.ports.errors import CheckpointError, naming
from qdgs_jax.ports.mapping import Rule
from qdgs_jax.ports.params import Params
from qdgs_jax.ports.readers.folder import open_weights
from qdgs_jax.ports.readers.stand_ins import is_address
from qdgs_jax.ports.readers.tensors import Tensor
from qdgs_jax.ports.readers.values import Data


@dataclasses.dataclass(frozen=True)
class Content:
    """An opened checkpoint.

    Attributes:
        path: the file or folder.
        root: tree of dictionaries, lists and records with lazy tensors for leaves.
    """

    path: Path
    root: Data

    @property
    def folder(self) -> Path:
        """Where configs and tokenizers that belong to the weights lie."""
        return self.path if self.path.is_dir() else self.path.parent


@dataclasses.dataclass(frozen=True)
class Source:
    """A checkpoint recognised as a model, ready to be converted.

    Attributes:
        layout: the format, in words.
        config: settings for our `config.json`; "kind" names the model.
        details: settings worth telling the user.
        assumed: what the checkpoint does not tell and a default stands in for, by name, with the
            reason; the user is told, and it is kept in our `config.json`.
        build: makes the model, with any weights.
        tensors: the model's tensors by name.
        rules: the mapping table.
        ignored: regular expressions of tensors that are not needed.
        files: files to be copied beside our `config.json`, such as a tokenizer's.
        measure: computes from the planned parameters what else our `config.json` should hold.
    """

    layout: str
    config: Mapping[str, Any]
    details: Mapping[str, Any]
    build: Callable[[], nnx.Module]
    tensors: dict[str, Tensor]
    rules: tuple[Rule, ...]
    ignored: tuple[str, ...] = ()
    assumed: Mapping[str, str] = dataclasses.field(default_factory=dict)
    files: tuple[Path, ...] = ()
    measure: Callable[[Params], Mapping[str, Any]] | None = None


def shape_of(tensors: Mapping[str, Tensor], name: str, rank: int) -> tuple[int, ...]:
    """Look up the shape of a tensor that tells a size of the model.

    Raises:
        CheckpointError: if it is missing, has another number of axes, or an axis of length 0.
    """
    if name not in tensors:
        raise CheckpointError(f"This is another model, or a part is missing: there is no {name}.")
    shape = tensors[name].shape
    if len(shape) != rank or 0 in shape:
        raise CheckpointError(f"{name} has shape {shape}, should have {rank} axes.")
    return shape


def _if_hub(path: Path) -> str:
    """What to add where a path may be meant as a model's name on a hub of models."""
    if path.is_absolute() or len(path.parts) < 2 or Path(path.parts[0]).exists():
        return ""
    return (
        " If it is a model's name on a website, nothing is downloaded: fetch its files with a "
        "browser or the site's own tool, then give their path."
    )


@contextlib.contextmanager
def open_content(path: str | Path) -> Iterator[Content]:
    """Open a checkpoint of any supported format; its tensors can be read inside the block.

    Errors raised inside the block name the checkpoint, once.

    Raises:
        CheckpointError: if it is missing, an address, broken, hostile or of an unknown format.
    """
    if is_address(path):
        raise CheckpointError(
            f"{path} is an address, and nothing is downloaded: fetch the file with a browser or "
            "the site's own tool, then give its path."
        )
    path = Path(path)
    if not path.exists():
        raise CheckpointError(f"This path does not exist.{_if_hub(path)}", path)
    with naming(path), open_weights(path) as root:
        yield Content(path, root)
