"""The one error of the ports, and how values from a foreign file are shown in its message.

A hostile file chooses the values that end up in messages, so they are shortened, letters that would
steer a terminal are escaped, and nothing is printed through a container's own `repr`, which a few
bytes can make exponentially long.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

_LONGEST = 80


class CheckpointError(ValueError):
    """A checkpoint is broken, hostile, incomplete or of a kind that is not supported.

    Args:
        message: what is wrong, and what to do about it.
        path: the file or folder; it precedes the message.
    """

    def __init__(self, message: str, path: str | Path | None = None) -> None:
        super().__init__(message if path is None else f"{path}: {message}")
        self.path = path


@contextlib.contextmanager
def naming(path: str | Path | None) -> Iterator[None]:
    """Let errors raised inside the block name a file, unless they name one already."""
    try:
        yield
    except CheckpointError as error:
        if error.path is not None:
            raise
        raise CheckpointError(str(error), path) from None


def show(value: object) -> str:
    """Text of a value from a file, at most about 80 characters; containers by type alone."""
    if value is None or isinstance(value, bool | int | float):
        text = repr(value)
        return text if len(text) <= _LONGEST else text[:_LONGEST] + "..."
    if isinstance(value, str):
        return repr(value if len(value) <= _LONGEST else value[:_LONGEST] + "...")
    return f"a {type(value).__name__}"


def printable(name: str) -> str:
    r"""A name from a file as it may be printed: control characters and the like as `\x1b`."""
    return "".join(
        letter if letter.isprintable() else letter.encode("unicode_escape").decode()
        for letter in name
    )
