"""What lies between a file and a model: the opened content, and the model recognised in it."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from flax import nnx

from qdgs_jax.ports.errors import CheckpointError
from qdgs_jax.ports.mapping import Rule
from qdgs_jax.ports.tensors import Tensor
from qdgs_jax.ports.torch_reader import open_checkpoint
from qdgs_jax.ports.unpickle import Data


@dataclasses.dataclass(frozen=True)
class Content:
    """An opened checkpoint.

    Attributes:
        root: tree of dictionaries, lists and records with lazy tensors for leaves.
        config: the `config.json` beside the tensors, if the checkpoint is a folder.
    """

    root: Data
    config: Mapping[str, Any] | None = None

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
    """

    layout: str
    config: Mapping[str, Any]
    details: Mapping[str, Any]
    build: Callable[[], nnx.Module]
    tensors: dict[str, Tensor]
    rules: tuple[Rule, ...]
    ignored: tuple[str, ...] = ()


@contextlib.contextmanager
def open_content(path: str | Path) -> Iterator[Content]:
    """Open a checkpoint of any supported format; its tensors can be read inside the block.

    Raises:
        CheckpointError: if it is missing, broken, hostile or of an unknown format.
    """
    path = Path(path)
    if not path.exists():
        raise CheckpointError(f"{path} does not exist.")
    with open_checkpoint(path) as root:
        yield Content(root)
