"""Storages and tensors of a PyTorch checkpoint, as checked descriptions of bytes not yet read.

A tensor is a strided view of a storage, and several tensors may share one. Everything that a file
declares (element counts, offsets, sizes, strides) is compared with the bytes that are really there
before memory is asked for, and a tensor may not hold more elements than its storage: zero strides
would let a few bytes declare terabytes.
"""

from __future__ import annotations

import dataclasses
import math
import zlib

import ml_dtypes
import numpy as np

from qdgs_jax.ports.errors import CheckpointError, naming, show
from qdgs_jax.ports.readers.region import Region

MAX_RANK = 16
_MAX_ELEMENTS = 2**48

# Names as in torch.FloatStorage and torch.float32.
STORAGE_DTYPES = {
    "DoubleStorage": np.dtype(np.float64),
    "FloatStorage": np.dtype(np.float32),
    "HalfStorage": np.dtype(np.float16),
    "BFloat16Storage": np.dtype(ml_dtypes.bfloat16),
    "LongStorage": np.dtype(np.int64),
    "IntStorage": np.dtype(np.int32),
    "ShortStorage": np.dtype(np.int16),
    "CharStorage": np.dtype(np.int8),
    "ByteStorage": np.dtype(np.uint8),
    "BoolStorage": np.dtype(np.bool_),
    "UntypedStorage": np.dtype(np.uint8),
}
SCALAR_DTYPES = {
    "float64": np.dtype(np.float64),
    "float32": np.dtype(np.float32),
    "float16": np.dtype(np.float16),
    "bfloat16": np.dtype(ml_dtypes.bfloat16),
    "int64": np.dtype(np.int64),
    "int32": np.dtype(np.int32),
    "int16": np.dtype(np.int16),
    "int8": np.dtype(np.int8),
    "uint8": np.dtype(np.uint8),
    "bool": np.dtype(np.bool_),
}


class Storage:
    """A flat run of elements in the file.

    Attributes:
        dtype: element type.
        numel: number of elements that the pickle declares, >= 0.
        region: where the bytes lie; None until a legacy file's reader has come to them.
        crc: CRC-32 that the bytes must have; None where the format keeps none.
        users: number of tensors that view it.
    """

    __slots__ = ("_bytes", "crc", "dtype", "numel", "region", "users")

    def __init__(
        self, dtype: np.dtype, numel: int, region: Region | None = None, crc: int | None = None
    ) -> None:
        if type(numel) is not int or not 0 <= numel <= _MAX_ELEMENTS:
            raise CheckpointError(f"A storage declares {show(numel)} elements.")
        self.dtype, self.numel, self.crc = dtype, numel, crc
        self.region: Region | None = None
        self.users = 0
        self._bytes: np.ndarray | None = None
        if region is not None:
            self.place(region)

    @property
    def nbytes(self) -> int:
        """Number of bytes that the elements take."""
        return self.numel * self.dtype.itemsize

    def place(self, region: Region) -> None:
        """Say where the bytes lie.

        Raises:
            CheckpointError: if the region's length is not that of the declared elements.
        """
        if region.length != self.nbytes:
            raise CheckpointError(
                f"A storage declares {self.numel} elements of {self.dtype} ({self.nbytes} bytes), "
                f"but the file holds {region.length} bytes for it."
            )
        self.region = region

    def raw(self) -> np.ndarray:
        """Read and check the bytes, UInt8[nbytes], read-only; keep them if tensors share them."""
        if self._bytes is not None:
            return self._bytes
        if self.region is None:
            raise CheckpointError("The file names a storage whose bytes it does not hold.")
        with naming(self.region.path):
            data = self.region.array()
            if self.crc is not None and zlib.crc32(data.data) != self.crc:
                raise CheckpointError(
                    "The file is damaged: the checksum of a tensor's bytes does not match. "
                    "Download or copy it again."
                )
        data.flags.writeable = False
        if self.users > 1:
            self._bytes = data
        return data


@dataclasses.dataclass(frozen=True, eq=False, slots=True)
class Tensor:
    """A checked, strided view of a storage, read when asked for.

    Args:
        storage: the elements.
        dtype: element type, that of the storage unless the storage is untyped.
        offset: index of the first element, >= 0.
        shape: sizes, each >= 0, at most 16 of them.
        strides: one per size, in elements, >= 0.

    Raises:
        CheckpointError: if an element would lie outside the storage, or two share a place.
    """

    storage: Storage
    dtype: np.dtype
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]

    def __post_init__(self) -> None:
        _check_integers("shape", self.shape)
        _check_integers("strides", self.strides)
        _check_integers("offset", (self.offset,))
        if len(self.shape) != len(self.strides):
            raise CheckpointError(
                f"A tensor has {len(self.shape)} sizes but {len(self.strides)} strides."
            )
        if math.prod(max(size, 1) for size in self.shape) > _MAX_ELEMENTS:
            raise CheckpointError(f"A tensor declares the impossible shape {self.shape}.")
        available = self.storage.nbytes // self.dtype.itemsize
        end = self.offset
        if self.size:
            end += 1 + sum((n - 1) * s for n, s in zip(self.shape, self.strides, strict=True))
        if end > available:
            raise CheckpointError(
                f"A tensor of shape {self.shape}, strides {self.strides} and offset {self.offset} "
                f"reaches element {end} of a storage that holds {available}."
            )
        reach = 0  # the largest index that the axes so far, smallest stride first, can reach
        for stride, size in sorted(zip(self.strides, self.shape, strict=True)):
            if size > 1 and self.size:
                if stride <= reach:
                    raise CheckpointError(
                        f"A tensor of shape {self.shape} and strides {self.strides} overlaps "
                        "itself. Save a contiguous copy of it."
                    )
                reach += (size - 1) * stride
        self.storage.users += 1

    @classmethod
    def contiguous(cls, storage: Storage, shape: tuple[int, ...]) -> Tensor:
        """Take a whole storage as a tensor of this shape, last axis fastest."""
        strides = [math.prod(shape[axis + 1 :]) for axis in range(len(shape))]
        return cls(storage, storage.dtype, 0, shape, tuple(strides))

    @classmethod
    def of_array(cls, array: np.ndarray | np.generic) -> Tensor:
        """Take numbers that no file holds, as a tensor beside those of a file."""
        data = np.asarray(array)
        storage = Storage(data.dtype, data.size, Region.of_bytes(data.tobytes()))
        return cls.contiguous(storage, data.shape)

    @property
    def size(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        """Number of bytes that the elements take."""
        return self.size * self.dtype.itemsize

    def numpy(self) -> np.ndarray:
        """View the elements in the storage's bytes, read-only.

        Raises:
            CheckpointError: if the bytes are damaged.
        """
        if not self.size:
            return np.empty(self.shape, self.dtype)
        item = self.dtype.itemsize
        flat = self.storage.raw()
        flat = flat[: len(flat) // item * item].view(self.dtype)
        return np.lib.stride_tricks.as_strided(
            flat[self.offset :], self.shape, [s * item for s in self.strides], writeable=False
        )


def _check_integers(what: str, values: tuple[int, ...]) -> None:
    if len(values) > MAX_RANK:
        raise CheckpointError(
            f"The {what} of a tensor has {len(values)} axes, more than {MAX_RANK}."
        )
    for value in values:
        if type(value) is not int or not 0 <= value <= _MAX_ELEMENTS:
            raise CheckpointError(f"The {what} of a tensor contains {show(value)}.")
