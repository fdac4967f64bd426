"""What a checkpoint's pickle is read into: plain data, allowed names, inert objects, a budget."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

from qdgs_jax.ports.errors import CheckpointError, show

Data = Any  # None, bool, int, float, str, Region, list, tuple, dict, set, or what a Global builds
LONGEST_KEY = 1024  # letters
_KEY_BITS = 60  # integers below 2**61 - 1 hash to themselves, larger ones can be made to collide
_LETTERS = 64  # of a text, count as much as one opcode


@dataclasses.dataclass(frozen=True)
class Global:
    """An allowed name: what a file may do with it is what its builder does.

    Attributes:
        name: dotted name, for messages.
        build: our constructor, from a tuple of plain data; None if the name may only be mentioned.
    """

    name: str
    build: Callable[[tuple[Data, ...]], Data] | None = None


class Buildable:
    """A value that accepts state from the BUILD opcode."""

    __slots__ = ()

    def set_state(self, state: Data) -> None:
        """Take the state, or raise CheckpointError."""
        raise NotImplementedError


class Opaque(Buildable):
    """An object that is known to be data, but of no use to a model: its content is dropped.

    Attributes:
        name: dotted name of its class, as the file gives it.
    """

    __slots__ = ("name",)

    def __init__(self, name: str) -> None:
        self.name = name

    def set_state(self, state: Data) -> None:
        """Drop the state."""


class Budget:
    """How many opcodes and values a checkpoint may still take; each is worth about 100 bytes.

    Args:
        length: size of the file in bytes. FFHQ at 256 x 256 takes 0.03 million opcodes in 200 MB.
    """

    def __init__(self, length: int) -> None:
        self.left = min(50_000 + length // 64, 1_000_000)

    def spend(self, amount: int = 1) -> None:
        """Use up some of it.

        Raises:
            CheckpointError: if nothing is left.
        """
        self.left -= amount
        if self.left < 0:
            raise CheckpointError(
                "The checkpoint's pickle unfolds to far more than any genuine one of its size."
            )

    def spend_text(self, letters: int) -> None:
        """Use up what a text of this length costs."""
        self.spend(letters // _LETTERS)


def check_key(key: Data) -> Data:
    """Return the key of a dictionary or item of a set, if it is short and hashes fast.

    Raises:
        CheckpointError: otherwise.
    """
    fits = key is None or type(key) in (bool, int, float, str, Global, Opaque)
    if type(key) is int:
        fits = key.bit_length() <= _KEY_BITS
    elif type(key) is str:
        fits = len(key) <= LONGEST_KEY
    if not fits:
        raise CheckpointError(f"Refused: the pickle uses {show(key)} as a key.")
    return key
