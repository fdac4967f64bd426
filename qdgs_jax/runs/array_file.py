"""Arrays as .npy files that are written and read piece by piece, with a checksum.

Nothing is held twice in memory. Types that NumPy's format has no word for (bfloat16) are stored as
the integers that hold their bits; what they stand for has to be kept elsewhere.
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import jax.numpy as jnp
import numpy as np

from qdgs_jax.runs.host_pool import PIECE


class DamagedFileError(ValueError):
    """A file that is not what was written; the message says in what way."""


def rows_per_piece(shape: Sequence[int], dtype: str) -> int:
    """Rows of an array Any[N, ...] that make a piece, the same for every N but 0."""
    row = jnp.dtype(dtype).itemsize * int(np.prod(shape[1:], dtype=np.int64))
    return max(1, PIECE // max(1, row))


def write_array(path: Path, pieces: Iterable[np.ndarray], shape: Sequence[int], dtype: str) -> int:
    """Write an array that comes in pieces along its first axis, and sync the file.

    Args:
        path: a file that does not exist yet.
        pieces: contiguous arrays that make the whole.
        shape: that of the whole.
        dtype: name of its type.

    Returns:
        CRC-32 of its bytes.
    """
    header = {
        "descr": np.lib.format.dtype_to_descr(_stored_type(dtype)),
        "fortran_order": False,
        "shape": tuple(shape),
    }
    checksum = 0
    with path.open("xb") as file:
        np.lib.format.write_array_header_1_0(file, header)
        for piece in pieces:
            content = _bytes(piece)
            checksum = zlib.crc32(content, checksum)
            file.write(content)
        file.flush()
        os.fsync(file.fileno())
    return checksum


def read_pieces(
    path: Path, shape: Sequence[int], dtype: str, checksum: int
) -> Iterator[np.ndarray]:
    """Read an array in pieces of `rows_per_piece`; after the last one its checksum was compared.

    Args:
        path: a file that `write_array` wrote.
        shape: as it was given there; so is `dtype`.
        dtype: name of the type.
        checksum: what came of it.

    Raises:
        DamagedFileError: If the file is not what was written.
    """
    rows, inner = (shape[0], tuple(shape[1:])) if shape else (1, ())
    step = rows_per_piece(shape, dtype)
    found = 0
    try:
        with path.open("rb") as file:
            np.lib.format.read_magic(file)
            header = np.lib.format.read_array_header_1_0(file)
            if header != (tuple(shape), False, _stored_type(dtype)):
                raise DamagedFileError("its header is another one")
            for at in range(0, rows, step):
                piece = np.empty((min(step, rows - at), *inner), jnp.dtype(dtype))
                content = _bytes(piece)
                if file.readinto(content) != len(content):
                    raise DamagedFileError("it is too short")
                found = zlib.crc32(content, found)
                yield piece
    except OSError as error:
        raise DamagedFileError(str(error.strerror)) from None
    except ValueError as error:  # NumPy's own, of the header
        raise DamagedFileError(str(error)) from None
    if found != checksum:
        raise DamagedFileError("its bytes are not those that were written")


def drop_cached(path: Path) -> None:
    """Ask the system to read a file from the disk the next time, where it can be asked."""
    if hasattr(os, "posix_fadvise"):
        with path.open("rb") as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def _stored_type(name: str) -> np.dtype:
    own = jnp.dtype(name)
    return np.dtype(f"u{own.itemsize}") if own.kind == "V" else own


def _bytes(array: np.ndarray) -> memoryview:
    """The bytes of a contiguous array, not copied."""
    return array.reshape(-1).view(np.uint8).data
