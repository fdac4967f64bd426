"""Reads safetensors files: a JSON header with names, types, shapes and places, then the numbers.

Tensors are the lazy ones of the PyTorch reader, under the same checks. The format asks that the
places leave no gap and do not overlap, which is enforced.
"""

from __future__ import annotations

import json
import math
from typing import Any, BinaryIO

from qdgs_jax.ports.errors import CheckpointError, show
from qdgs_jax.ports.readers.region import Region
from qdgs_jax.ports.readers.tensors import MAX_RANK, SCALAR_DTYPES, Storage, Tensor
from qdgs_jax.ports.readers.values import LONGEST_KEY

_LARGEST_HEADER = 1 << 22  # bytes; a tensor takes about 120, and parsed up to 25 times as many
_DTYPES = {
    "F64": "float64",
    "F32": "float32",
    "F16": "float16",
    "BF16": "bfloat16",
    "I64": "int64",
    "I32": "int32",
    "I16": "int16",
    "I8": "int8",
    "U8": "uint8",
    "BOOL": "bool",
}


def looks_like_safetensors(region: Region) -> bool:
    """Whether a file starts with a safetensors header."""
    return region.length > 8 and region.read(8, 1) == b"{"


def read_safetensors(file: BinaryIO) -> dict[str, Tensor]:
    """The tensors of an open safetensors file, by name, still in the file.

    Raises:
        CheckpointError: if the file is truncated or its header is not consistent.
    """
    region = Region.of_file(file)
    length = int.from_bytes(region.read(0, 8), "little")
    if length > _LARGEST_HEADER:
        raise CheckpointError(
            f"The safetensors header declares {length} bytes, more than {_LARGEST_HEADER}."
        )
    text = region.read(8, length)
    try:
        header = json.loads(text.decode(), object_pairs_hook=_unique)
    except (ValueError, RecursionError):
        raise CheckpointError(
            "The safetensors header is not valid JSON, or names a tensor twice."
        ) from None
    if type(header) is not dict:
        raise CheckpointError("The safetensors header is not a table of tensors.")
    header.pop("__metadata__", None)
    body = region.part(8 + length, region.length - 8 - length)
    tensors, places = {}, []
    for name, entry in header.items():
        tensor, place = _tensor(name, entry, body)
        tensors[name] = tensor
        places.append(place)
    at = 0
    for begin, end in sorted(places):
        if begin != at:
            raise CheckpointError("The tensors of the safetensors file overlap or leave a gap.")
        at = end
    if at != body.length:
        raise CheckpointError(f"{body.length - at} bytes follow the last tensor.")
    return tensors


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    out = dict(pairs)
    if len(out) != len(pairs):
        raise ValueError("a key twice")
    return out


def _tensor(name: str, entry: Any, body: Region) -> tuple[Tensor, tuple[int, int]]:
    if len(name) > LONGEST_KEY or not name.isprintable():
        raise CheckpointError(f"A tensor has the impossible name {show(name)}.")
    fields = entry if type(entry) is dict else {}
    kind = fields.get("dtype")
    if type(kind) is not str or kind not in _DTYPES:
        raise CheckpointError(f"Tensor {show(name)} has the unknown type {show(kind)}.")
    shape = _integers(name, fields.get("shape"))
    place = _integers(name, fields.get("data_offsets"))
    if len(place) != 2:
        raise CheckpointError(f"Tensor {show(name)} has no valid place.")
    region = body.part(place[0], place[1] - place[0])
    storage = Storage(SCALAR_DTYPES[_DTYPES[kind]], math.prod(shape), region)
    return Tensor.contiguous(storage, tuple(shape)), (place[0], place[1])


def _integers(name: str, values: Any) -> list[int]:
    fits = type(values) is list and len(values) <= MAX_RANK
    if not fits or not all(type(value) is int and 0 <= value < 2**62 for value in values):
        raise CheckpointError(f"Tensor {show(name)} has no valid shape and place.")
    return list(values)
