"""PyTorch's file formats written without PyTorch, opcode by opcode.

The tests of the checkpoint reader need files of any kind, hostile ones included, on machines
without PyTorch. `tests/data/ports` holds files that PyTorch itself wrote, which pin that this
writer and the reader do not agree on a mistake.

Values are plain Python data, NumPy arrays (they become tensors), and the small classes below.
"""

from __future__ import annotations

import dataclasses
import io
import struct
import zipfile
from collections.abc import Callable, Mapping
from typing import Any

import ml_dtypes
import numpy as np

MAGIC = 0x1950A86A20F9469CFC6C
KINDS = {
    "float64": "DoubleStorage",
    "float32": "FloatStorage",
    "float16": "HalfStorage",
    "bfloat16": "BFloat16Storage",
    "int64": "LongStorage",
    "int32": "IntStorage",
    "uint8": "ByteStorage",
    "bool": "BoolStorage",
}
BFLOAT16 = np.dtype(ml_dtypes.bfloat16)


@dataclasses.dataclass(frozen=True)
class Name:
    """A global."""

    module: str
    name: str


@dataclasses.dataclass(frozen=True)
class Call:
    """A call of a global (REDUCE, or NEWOBJ), items set on the result, then BUILD with a state."""

    function: Any
    arguments: Any = ()
    state: Any = None
    items: Mapping[Any, Any] | None = None
    new: bool = False


@dataclasses.dataclass(frozen=True)
class Pid:
    """A persistent id."""

    value: Any


@dataclasses.dataclass(frozen=True)
class Raw:
    """Opcodes as they are."""

    opcodes: bytes


@dataclasses.dataclass(frozen=True, eq=False)
class Storage:
    """Elements, which several tensors may share."""

    elements: np.ndarray
    device: str = "cpu"
    module: str = "torch"


@dataclasses.dataclass(frozen=True)
class Tensor:
    """A view of a storage; the fields are not checked, so that a test can lie."""

    storage: Storage
    shape: tuple[Any, ...]
    strides: tuple[Any, ...]
    offset: Any = 0


@dataclasses.dataclass(frozen=True)
class Parameter:
    """A trainable tensor."""

    tensor: Any


ORDERED_DICT = Name("collections", "OrderedDict")
REBUILD = Name("torch._utils", "_rebuild_tensor_v2")
Place = Callable[[Storage], Any]


def ordered(items: Mapping[str, Any], metadata: bool = False) -> Call:
    """An OrderedDict; with the version attribute that PyTorch hangs on published state dicts."""
    versions = {"": {"version": 1}, "encoder": {"version": 2}}
    state = {"_metadata": Call(ORDERED_DICT, (), items=versions)} if metadata else None
    return Call(ORDERED_DICT, (), state, items)


def of_array(array: np.ndarray) -> Tensor:
    """A contiguous tensor in a storage of its own."""
    flat = np.ascontiguousarray(array).reshape(-1)
    strides, step = [], 1
    for size in reversed(array.shape):
        strides.append(step)
        step *= size
    return Tensor(Storage(flat), array.shape, tuple(reversed(strides)))


def dump(value: Any, place: Place | None = None, protocol: int = 2) -> bytes:
    """One pickle of a value; `place` gives what stands for a storage."""
    return bytes([0x80, protocol]) + _encode(value, place) + b"."


def _encode(value: Any, place: Place | None) -> bytes:
    def encode(item: Any) -> bytes:
        return _encode(item, place)

    match value:
        case None:
            return b"N"
        case bool():
            return b"\x88" if value else b"\x89"
        case int():
            return _encode_integer(value)
        case float():
            return b"G" + struct.pack(">d", value)
        case str():
            return b"X" + struct.pack("<I", len(value.encode())) + value.encode()
        case bytes():
            return b"B" + struct.pack("<I", len(value)) + value
        case tuple():
            return b"(" + b"".join(map(encode, value)) + b"t"
        case list():
            return b"](" + b"".join(map(encode, value)) + b"e"
        case dict():
            return b"}" + _encode_items(value, encode)
        case Name():
            return b"c" + f"{value.module}\n{value.name}\n".encode()
        case Call():
            out = encode(value.function) + encode(value.arguments)
            out += b"\x81" if value.new else b"R"
            out += b"" if value.items is None else _encode_items(value.items, encode)
            return out + (b"" if value.state is None else encode(value.state) + b"b")
        case Pid():
            return encode(value.value) + b"Q"
        case Raw():
            return value.opcodes
        case Storage():
            if place is None:
                raise ValueError("a storage needs a place")
            return encode(place(value))
        case Tensor():
            view = (value.storage, value.offset, value.shape, value.strides)
            return encode(Call(REBUILD, (*view, False, Call(ORDERED_DICT))))
        case Parameter():
            hooks = Call(ORDERED_DICT)
            rebuild = Name("torch._utils", "_rebuild_parameter")
            return encode(Call(rebuild, (value.tensor, True, hooks)))
        case np.ndarray():
            return encode(of_array(value))
    raise TypeError(f"cannot write a {type(value).__name__}")


def _encode_integer(value: int) -> bytes:
    if 0 <= value < 256:
        return b"K" + bytes([value])
    if -(2**31) <= value < 2**31:
        return b"J" + struct.pack("<i", value)
    size = value.bit_length() // 8 + 1
    return bytes([0x8A, size]) + value.to_bytes(size, "little", signed=True)


def _encode_items(items: Mapping[Any, Any], encode: Callable[[Any], bytes]) -> bytes:
    return b"(" + b"".join(encode(key) + encode(item) for key, item in items.items()) + b"u"


class Storages:
    """Numbers storages in the order in which a pickle mentions them."""

    def __init__(self, length: int) -> None:
        self.found: dict[Storage, str] = {}
        self._length = length

    def place(self, storage: Storage) -> Pid:
        """The persistent id of a storage, with `length` fields."""
        key = self.found.setdefault(storage, str(len(self.found)))
        kind = Name(storage.module, KINDS[storage.elements.dtype.name])
        fields = ("storage", kind, key, storage.device, storage.elements.size, None)
        return Pid(fields[: self._length])


def zip_bytes(root: Any, entries: Mapping[str, bytes] | None = None, top: str = "archive") -> bytes:
    """A zip checkpoint. `entries` adds entries or replaces those of the same name."""
    storages = Storages(5)
    content = {"data.pkl": dump(root, storages.place), "byteorder": b"little"}
    content |= {f"data/{key}": s.elements.tobytes() for s, key in storages.found.items()}
    content |= {"version": b"3\n", ".data/serialization_id": b"0123", **(entries or {})}
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, data in content.items():
            archive.writestr(f"{top}/{name}", data)
    return buffer.getvalue()


def legacy_bytes(root: Any, system: Mapping[str, Any] | None = None) -> bytes:
    """A checkpoint in the stream format before PyTorch 1.6."""
    storages = Storages(6)
    sizes = {"short": 2, "int": 4, "long": 4}
    about = {"protocol_version": 1001, "little_endian": True, "type_sizes": sizes, **(system or {})}
    body = dump(root, storages.place)
    out = dump(MAGIC) + dump(1001) + dump(about) + body + dump(list(storages.found.values()))
    for storage in storages.found:
        out += struct.pack("<q", storage.elements.size) + storage.elements.tobytes()
    return out


def nested_bytes(root: Any, protocol: int = 3) -> bytes:
    """A plain pickle that holds storages as legacy streams in byte strings, as NVIDIA's do."""
    load = Name("torch.storage", "_load_from_bytes")
    return dump(root, lambda storage: Call(load, (legacy_bytes(storage),)), protocol)
