"""Texts that sets of faces are made of."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from qdgs_jax.ports.faces.damage import FaceSetError


def stream_lines(path: Path) -> Iterator[str]:
    """The lines of a text, one after the other, without their ends.

    Raises:
        FaceSetError: it is missing or no text in UTF-8.
    """
    try:
        with path.open(encoding="utf-8-sig") as file:
            for line in file:
                yield line.rstrip("\n")
    except OSError as error:
        raise FaceSetError(f"{path} cannot be read: {error.strerror}.") from None
    except UnicodeDecodeError:
        raise FaceSetError(f"{path} is no text in UTF-8: download it again.") from None


def stream_text(path: Path) -> Iterator[str]:
    """The lines of a text without empty ones at its end; see `stream_lines`."""
    empty: list[str] = []
    for line in stream_lines(path):
        if line.strip():
            yield from empty
            yield line
            empty.clear()
        else:
            empty.append(line)


def read_lines(path: Path) -> list[str]:
    """All lines of `stream_text`."""
    return list(stream_text(path))
