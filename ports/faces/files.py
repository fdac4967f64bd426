"""Texts that sets of faces are made of."""

from __future__ import annotations

from pathlib import Path

from qdgs_jax.ports.faces.damage import FaceSetError


def read_lines(path: Path) -> list[str]:
    """The lines of a text, without empty ones at its end.

    Raises:
        FaceSetError: it is missing or no text in UTF-8.
    """
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise FaceSetError(f"{path} cannot be read: {error.strerror}.") from None
    except UnicodeDecodeError as error:
        raise FaceSetError(f"{path}, byte {error.start}: it is no text in UTF-8.") from None
    return text.rstrip("\r\n").splitlines() if text.strip() else []
