"""Damage in sets of faces: told by its place, left out only on demand."""

from __future__ import annotations

from typing import NamedTuple

from qdgs_jax.ports.errors import printable

CURE = "mend or download the file again, or leave such parts out with skip_corrupt (--skip-corrupt)"


class FaceSetError(ValueError):
    """A set of faces that cannot be read; the message names the file, the place and the cure."""


class Damage(NamedTuple):
    """A part of a set that cannot be read.

    Attributes:
        place: where it is, such as "record 7 at byte 1234".
        reason: what is wrong with it.
    """

    place: str
    reason: str

    def __str__(self) -> str:
        return f"{self.place}: {self.reason}"


class DamageLog:
    """Takes damage down, or raises it.

    Args:
        name: of the file or folder, for messages.
        skip: go on without the damaged part.

    Attributes:
        found: what was skipped, in the order of the file.
    """

    def __init__(self, name: object, *, skip: bool) -> None:
        self._name, self._skip = name, skip
        self.found: list[Damage] = []

    def add(self, place: str, reason: object) -> None:
        """Take a damaged part down.

        Raises:
            FaceSetError: unless such parts are to be skipped.
        """
        damage = Damage(printable(place), printable(str(reason)))
        if not self._skip:
            raise FaceSetError(f"{self._name}: {damage}; {CURE}.")
        self.found.append(damage)

    def nothing_left(self, what: str) -> FaceSetError:
        """The error of a set of which all was skipped, with the first reason."""
        first = f"; the first of {len(self.found):,}: {self.found[0]}" if self.found else ""
        return FaceSetError(f"{self._name}: there is no {what} that can be read{first}.")
