"""Memory of the host that is used again for one checkpoint after the other.

The first touch of fresh memory costs several times the copy that goes there. It is paid in the
background, before a search has to stand still.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Sequence

import numpy as np

PIECE = 2**25  # bytes that are copied, written or read together
_SMALL = 2**20  # bytes below which an array is not worth a piece


class HostPool:
    """Pieces of memory of `PIECE` bytes; its methods may be called from several threads."""

    def __init__(self) -> None:
        self._free: list[np.ndarray] = []
        self._made: set[int] = set()
        self._lock = threading.Lock()

    @property
    def nbytes(self) -> int:
        """Bytes that the pool has made, lent or not."""
        return len(self._made) * PIECE

    def prepare(self, nbytes: int) -> None:
        """Make pieces, and touch them, until there are so many bytes."""
        while self.nbytes < nbytes:
            piece = np.empty(PIECE, np.uint8)
            piece[:: 2**12] = 0
            with self._lock:
                self._made.add(id(piece))
                self._free.append(piece)

    def array(self, shape: Sequence[int], dtype: np.dtype) -> np.ndarray:
        """Lend an array, not filled; its memory is fresh where no piece is free or fits."""
        nbytes = math.prod(shape) * dtype.itemsize
        piece = None
        if _SMALL <= nbytes <= PIECE:
            with self._lock:
                piece = self._free.pop() if self._free else None
        if piece is None:
            return np.empty(shape, dtype)
        return piece[:nbytes].view(dtype).reshape(shape)

    def give_back(self, array: np.ndarray) -> None:
        """Take a lent array back; others are left alone."""
        piece = array.base
        if isinstance(piece, np.ndarray) and id(piece) in self._made:
            with self._lock:
                self._free.append(piece)
