"""The tree of a checkpoint: its tensors by name, the size it unfolds to, all of it in memory."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from qdgs_jax.ports.errors import CheckpointError, show
from qdgs_jax.ports.readers.allowed import Record
from qdgs_jax.ports.readers.region import Region
from qdgs_jax.ports.readers.tensors import Storage, Tensor
from qdgs_jax.ports.readers.values import Budget, Data

_MAX_DEPTH = 64
_MAX_UNFOLDED = 8  # a file may hold the same state dict several times
_UNNAMED = "(unnamed)"


def children(value: Data) -> Iterator[tuple[str, Data]]:
    """Named parts of a node of a checkpoint's tree; none for a leaf."""
    if type(value) is Record:
        yield from value.state.items()
    elif type(value) is dict:
        for key, item in value.items():
            yield key if type(key) is str else show(key), item
    elif type(value) in (list, tuple):
        for index, item in enumerate(value):
            yield str(index), item


def named_tensors(root: Data, prefix: str = "") -> Iterator[tuple[str, Tensor]]:
    """All tensors of a tree, named by their path with dots; in the order of the file."""
    if type(root) is Tensor:
        yield prefix or _UNNAMED, root
    for name, item in children(root):
        yield from named_tensors(item, f"{prefix}.{name}" if prefix else name)


class Tally:
    """Adds up what a tree holds, to refuse what would unfold beyond the file's size.

    Args:
        length: size of the file in bytes.
        budget: pays for every node, and for the names that `named_tensors` makes.
    """

    def __init__(self, length: int, budget: Budget) -> None:
        self._length, self._budget = length, budget
        self._held: dict[int, int] = {}  # bytes of storages, by identity
        self._unfolded = 0  # bytes of tensors, again for every place where one stands

    def check(self, root: Data) -> None:
        """Walk through the tree.

        Raises:
            CheckpointError: if it is infinite, nested deeply, or larger than the file allows.
        """
        self._visit(root, 0, 0)
        if sum(self._held.values()) > self._length:
            raise CheckpointError("The storages overlap: together they take more than the file.")
        if self._unfolded > _MAX_UNFOLDED * self._length:
            raise CheckpointError(
                f"The tensors take {self._unfolded} bytes but the file has only {self._length}: "
                "they share storages more than any genuine checkpoint does."
            )

    def _visit(self, value: Data, depth: int, name_length: int) -> None:
        self._budget.spend()
        self._budget.spend_text(name_length)
        if depth > _MAX_DEPTH:
            raise CheckpointError("The pickle's content is nested too deeply, or within itself.")
        if type(value) is Tensor:
            self._unfolded += value.nbytes
            self._held[id(value.storage)] = value.storage.nbytes
        elif type(value) is Storage:
            self._held[id(value)] = value.nbytes
        elif type(value) is Record:
            value.check_names()
        for name, item in children(value):
            self._visit(item, depth + 1, name_length + len(name) + 1)


def materialise(value: Data, made: dict[int, Any]) -> Data:
    """Read a tree; what stands in several places becomes one object, as in the file.

    Args:
        value: the tree.
        made: the objects made so far, by identity of what they were made from.
    """
    if id(value) not in made:
        made[id(value)] = _read_node(value, made)
    return made[id(value)]


def _read_node(value: Data, made: dict[int, Any]) -> Data:
    if type(value) is Tensor:
        return value.numpy()
    if type(value) is Storage:
        return value.raw().view(value.dtype)
    if type(value) is Region:
        return value.read(0, value.length)
    if type(value) is Record:
        state = {key: materialise(item, made) for key, item in value.state.items()}
        return Record(value.class_name, state)
    if type(value) is dict:
        return {key: materialise(item, made) for key, item in value.items()}
    if type(value) in (list, tuple):
        return type(value)(materialise(item, made) for item in value)
    return value
