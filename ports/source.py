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
from qdgs_jax.ports.readers.folder import open_weights
from qdgs_jax.ports.readers.pickle_machine import Data
from qdgs_jax.ports.readers.tensors import Tensor


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

    def state_dict(self, *path: str) -> dict[str, Tensor]:
        """Take the tensors of a dictionary inside the tree; other values in it are left out.

        Args:
            path: keys that lead to it.

        Raises:
            CheckpointError: if there is no dictionary with text keys.
        """
        node = self.root
        for key in path:
            node = node.get(key) if type(node) is dict else None
        if type(node) is not dict or not all(type(key) is str for key in node):
            where = f" under {'.'.join(path)}" if path else ""
            raise CheckpointError(f"The file holds no state dict{where}.")
        return {key: value for key, value in node.items() if type(value) is Tensor}


@dataclasses.dataclass(frozen=True)
class Source:
    """A checkpoint recognised as a model, ready to be converted.

    Attributes:
        layout: the format, in words.
        config: settings for our `config.json`; "kind" names the model.
        details: settings worth telling the user.
        build: makes the model, with any weights.
        tensors: the model's tensors by name.
        rules: the mapping table.
        ignored: regular expressions of tensors that are not needed.
        files: files to be copied beside our `config.json`, such as a tokenizer's.
    """

    layout: str
    config: Mapping[str, Any]
    details: Mapping[str, Any]
    build: Callable[[], nnx.Module]
    tensors: dict[str, Tensor]
    rules: tuple[Rule, ...]
    ignored: tuple[str, ...] = ()
    files: tuple[Path, ...] = ()


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


@contextlib.contextmanager
def open_content(path: str | Path) -> Iterator[Content]:
    """Open a checkpoint of any supported format; its tensors can be read inside the block.

    Errors raised inside the block name the checkpoint, once.

    Raises:
        CheckpointError: if it is missing, broken, hostile or of an unknown format.
    """
    path = Path(path)
    if not path.exists():
        raise CheckpointError("This path does not exist.", path)
    with naming(path), open_weights(path) as root:
        yield Content(path, root)
