"""Verification sets as AdaFace's tools keep them: a bcolz folder beside a list of truths.

`NAME/` is a carray Float32[2P, 3, S, S] in [-1, 1], blue first: `meta/sizes` and `meta/storage` in
JSON, and `data/__N.blp`, each 16 bytes and a Blosc chunk of some rows, the last filled up with
zeros. The truths are `NAME_list.npy`. Once AdaFace has used such a folder, `NAME/memfile` holds the
same numbers uncompressed (`mem_file.dat`, `mem_file.dat.conf`), which is read where it is.
Compressed chunks need the package `blosc` (`pip install "qdgs-jax[faces]"`).
"""

from __future__ import annotations

import functools
import json
import math
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from qdgs_jax.ports.errors import show
from qdgs_jax.ports.faces.damage import DamageLog, FaceSetError
from qdgs_jax.ports.faces.files import read_lines
from qdgs_jax.ports.faces.pairs import FacePairs, PairIndex, PicturePool
from qdgs_jax.ports.faces.pictures import LARGEST_SIDE

_PACK, _CHUNK = 16, 16  # bytes of the two headers of a .blp file
_DTYPE = np.dtype("<f4")
_TOGETHER = 256  # pictures
_OFF = 0.02  # of a step between two brightnesses: what rounding may do


def read_carray_pairs(path: str | os.PathLike[str], *, skip_corrupt: bool = False) -> FacePairs:
    """Read a verification set that AdaFace's `convert.py` wrote.

    Args:
        path: the folder NAME; `NAME_list.npy` lies beside it.
        skip_corrupt: leave out the pairs of damaged chunks; they are told in `damage`.

    Raises:
        FaceSetError: a part is missing or damaged (unless skipped), or `blosc` is needed.
    """
    folder = Path(path)
    if not folder.is_dir():
        raise FaceSetError(f"{folder} is no folder: give one with meta/ and data/, such as lfw/.")
    same = _truths(folder.with_name(f"{folder.name}_list.npy"))
    log = DamageLog(folder, skip=skip_corrupt)
    memory = folder / "memfile" / "mem_file.dat"
    count = 2 * len(same)
    pool, numbers = PicturePool(count), np.full(count, -1)
    for start, pictures in (
        _plain(memory, count) if memory.is_file() else _chunks(folder, count, log)
    ):
        decode = functools.partial(_decoded, shape=pictures.shape[1:])
        for number, picture in enumerate(pictures, start):
            numbers[number] = pool.number(picture.tobytes(), decode)
    kept = np.flatnonzero((numbers.reshape(-1, 2) >= 0).all(axis=1))
    if not len(kept):
        raise log.nothing_left("pair")
    index = PairIndex(numbers[0::2], numbers[1::2], same)
    return pool.pairs(index.take(kept), log.found)


def _decoded(content: bytes, shape: tuple[int, ...]) -> np.ndarray:
    return np.frombuffer(content, np.uint8).reshape(shape)


def _truths(path: Path) -> np.ndarray:
    try:
        same = np.load(path, allow_pickle=False)
    except FileNotFoundError:
        raise FaceSetError(f"{path} is missing: it says which pairs show one person.") from None
    except (OSError, ValueError, EOFError) as error:
        raise FaceSetError(f"{path} cannot be read: {error}.") from None
    if same.ndim != 1 or same.dtype.kind not in "bui" or not np.isin(same, (0, 1)).all():
        raise FaceSetError(f"{path} holds {same.dtype}{list(same.shape)}, no list of booleans.")
    return same.astype(np.bool_)


def _chunks(folder: Path, count: int, log: DamageLog) -> Iterator[tuple[int, np.ndarray]]:
    """The chunks that can be read of `count` pictures: number of the first, and the pictures."""
    size, length = _layout(folder, count)
    decompress = _decompressor()
    row = 4 * 3 * size * size
    for number in range(-(-count // length)):
        start, stop = number * length, min((number + 1) * length, count)
        file = folder / "data" / f"__{number}.blp"
        try:
            content = _chunk(file, (row * (stop - start), row * length), decompress)
            numbers = np.frombuffer(content, _DTYPE, (stop - start) * row // 4)
            pictures = _pictures(numbers.reshape(-1, 3, size, size))
        except _ChunkError as error:
            log.add(f"images {start} to {stop - 1}, {file.name}", error)
            continue
        yield start, pictures


class _ChunkError(ValueError):
    """A chunk that cannot be read; the message says why."""


def _layout(folder: Path, count: int) -> tuple[int, int]:
    """Side of the pictures, and how many are in a chunk."""
    sizes, storage = _json(folder / "meta" / "sizes"), _json(folder / "meta" / "storage")
    side = _shape(folder, count, sizes.get("shape"), storage.get("dtype"))[2]
    length = storage.get("chunklen")
    if type(length) is not int or length < 1:
        raise FaceSetError(f"{folder}/meta/storage gives {show(length)} rows for each chunk.")
    return side, length


def _shape(place: Path, count: int, shape: Any, dtype: Any) -> tuple[int, ...]:
    """The shape (count, 3, S, S), in float32.

    Raises:
        FaceSetError: these are other numbers, or so many pictures do not fit the truths.
    """
    fits = (
        type(shape) is list
        and len(shape) == 4
        and all(type(number) is int for number in shape)
        and shape[1] == 3
        and 0 < shape[2] == shape[3] <= LARGEST_SIDE
        and dtype in ("float32", "<f4")
    )
    if not fits:
        numbers = shape if type(shape) is list and len(shape) < 9 else type(shape).__name__
        raise FaceSetError(
            f"{place} holds {show(dtype)} of shape {numbers}: float32 pictures [N, 3, S, S] of "
            "AdaFace are expected."
        )
    if shape[0] != count:
        raise FaceSetError(
            f"{place} holds {shape[0]} pictures, but there are {count // 2} truths: a pair needs "
            "two pictures and one truth."
        )
    return tuple(shape)


def _json(path: Path) -> dict[str, Any]:
    try:
        fields = json.loads("\n".join(read_lines(path)))
    except (ValueError, RecursionError) as error:
        if isinstance(error, FaceSetError):
            raise
        raise FaceSetError(f"{path} is no JSON: {error}.") from None
    if type(fields) is not dict:
        raise FaceSetError(f"{path} holds {show(fields)}, no table.")
    return fields


def _decompressor() -> Callable[[bytes], bytes]:
    try:
        import blosc
    except ImportError:
        raise FaceSetError(
            'bcolz folders need the package blosc: pip install "qdgs-jax[faces]", or take the set '
            "as InsightFace's .bin file."
        ) from None
    decompress: Callable[[bytes], bytes] = blosc.decompress
    return decompress


def _chunk(file: Path, lengths: tuple[int, int], decompress: Callable[[bytes], bytes]) -> bytes:
    """The bytes of a chunk, of one of these lengths; headers are compared before it is opened."""
    try:
        content = file.read_bytes()
    except OSError as error:
        raise _ChunkError(f"it cannot be read ({error.strerror})") from None
    if content[:4] != b"blpk" or len(content) < _PACK + _CHUNK:
        raise _ChunkError("it is no chunk of bcolz")
    body = content[_PACK:]
    length, packed = (int.from_bytes(body[at : at + 4], "little") for at in (4, 12))
    if packed != len(body):
        raise _ChunkError(f"it has {len(body)} bytes but declares {packed}")
    if length not in lengths:
        raise _ChunkError(f"it declares {length} bytes of pictures, not {lengths[1]}")
    try:
        found = decompress(body)
    except Exception as error:  # the library's own class, which it does not export
        raise _ChunkError(f"Blosc cannot open it ({error})") from None
    if len(found) != length:
        raise _ChunkError(f"it holds {len(found)} bytes but declares {length}")
    return found


def _pictures(numbers: np.ndarray) -> np.ndarray:
    """Pictures UInt8[N, S, S, 3], red first, of Float32[N, 3, S, S] in [-1, 1], blue first."""
    levels = (numbers.astype(np.float64) + 1.0) * 127.5
    rounded = np.round(levels)
    if not (np.abs(levels - rounded) <= _OFF).all() or rounded.min() < 0 or rounded.max() > 255:
        raise _ChunkError("its numbers are no brightnesses of 8 bits between -1 and 1")
    return rounded.astype(np.uint8).transpose(0, 2, 3, 1)[..., ::-1]


def _plain(memory: Path, count: int) -> Iterator[tuple[int, np.ndarray]]:
    """Pictures of AdaFace's uncompressed copy, some at a time, with the number of the first."""
    config = _json(memory.with_name(f"{memory.name}.conf"))
    shape = _shape(memory, count, config.get("shape"), config.get("dtype"))
    cure = "delete the folder memfile, and the compressed chunks are read"
    wanted, found = _DTYPE.itemsize * math.prod(shape), memory.stat().st_size
    if wanted != found:
        raise FaceSetError(f"{memory} has {found} bytes but declares {wanted}: {cure}.")
    numbers = np.memmap(memory, _DTYPE, "r", shape=shape)
    for start in range(0, count, _TOGETHER):
        try:
            pictures = _pictures(numbers[start : start + _TOGETHER])
        except _ChunkError as error:
            raise FaceSetError(f"{memory}, images from {start}: {error}; {cure}.") from None
        yield start, pictures
