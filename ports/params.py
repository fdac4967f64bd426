"""Parameters as a tree: nested dictionaries, and leaves that are made when their turn comes."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

Params = dict[str, Any]  # nested dictionaries with arrays, or Pending, for leaves


@dataclasses.dataclass(frozen=True, eq=False)
class Pending:
    """A parameter that is made when its turn comes to be written, and then dropped.

    Attributes:
        shape: shape of the array that `make` gives.
        dtype: its element type.
        make: makes the array.
    """

    shape: tuple[int, ...]
    dtype: np.dtype
    make: Callable[[], np.ndarray]

    @property
    def size(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        """Number of bytes that the elements take."""
        return self.size * self.dtype.itemsize


def pending(leaf: Any) -> Pending:
    """Take an array, or a number, as one that is there already."""
    if isinstance(leaf, Pending):
        return leaf
    array = np.asarray(leaf)
    return Pending(array.shape, array.dtype, lambda: array)


def flatten(params: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Leaves of nested dictionaries, named by their path with dots."""
    for key, value in params.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping):
            yield from flatten(value, f"{name}.")
        else:
            yield name, value


def unflatten(leaves: Mapping[str, Any]) -> Params:
    """Invert `flatten`."""
    out: Params = {}
    for name, leaf in leaves.items():
        *parents, last = name.split(".")
        node = out
        for parent in parents:
            node = node.setdefault(parent, {})
        node[last] = leaf
    return out
