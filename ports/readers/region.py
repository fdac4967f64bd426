"""A span of an open file that is read on demand and never beyond its end.

Checkpoints are read through regions, so that a declared size is compared with what the file holds
before anything is allocated, and so that tensors which nobody asks for are never read.
"""

from __future__ import annotations

import io
import os
from typing import BinaryIO

import numpy as np

from qdgs_jax.ports.errors import CheckpointError


class Region:
    """Bytes `start` to `start + length` of an open, seekable binary file.

    Args:
        file: the file; it has to stay open as long as the region is read.
        start: position of the first byte in the file, >= 0.
        length: number of bytes, >= 0.
    """

    __slots__ = ("_file", "length", "start")

    def __init__(self, file: BinaryIO, start: int, length: int) -> None:
        self._file, self.start, self.length = file, start, length

    @property
    def path(self) -> str | None:
        """Path of the file; None for bytes in memory."""
        return getattr(self._file, "name", None)

    @classmethod
    def of_file(cls, file: BinaryIO) -> Region:
        """Take the whole of an open file."""
        return cls(file, 0, file.seek(0, os.SEEK_END))

    @classmethod
    def of_bytes(cls, data: bytes) -> Region:
        """Take bytes that are in memory already."""
        return cls(io.BytesIO(data), 0, len(data))

    def part(self, offset: int, length: int) -> Region:
        """Take the region of `length` bytes from `offset`.

        Raises:
            CheckpointError: if it does not lie inside this region.
        """
        if offset < 0 or length < 0 or offset + length > self.length:
            raise CheckpointError(
                f"The file is truncated or broken: {length} bytes are declared at byte "
                f"{self.start + offset}, but only {max(self.length - offset, 0)} are there."
            )
        return Region(self._file, self.start + offset, length)

    def read(self, offset: int, length: int) -> bytes:
        """Exactly `length` bytes from `offset`.

        Raises:
            CheckpointError: if the region holds fewer.
        """
        return self.part(offset, length).array().tobytes()

    def array(self) -> np.ndarray:
        """All bytes as UInt8[length], in memory of its own.

        Raises:
            CheckpointError: if the file became shorter since it was opened.
        """
        data = np.empty(self.length, np.uint8)
        self._file.seek(self.start)
        done = 0
        while done < self.length:
            count = self._file.readinto(data.data[done:])  # type: ignore[attr-defined]
            if not count:
                raise CheckpointError("The file became shorter while it was read.")
            done += count
        return data
