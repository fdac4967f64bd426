"""The allow-list: every name that a checkpoint's pickle may mention, and what becomes of it.

Nothing here imports or calls what a file names. A name stands for one of the builders below, which
turn plain data into plain data and refuse whatever does not have the expected form. A name that is
not listed is refused with the whole file. What each genuine format needs:

- every `torch.save` file: the tensor and parameter constructors, storage types, OrderedDict;
- NVIDIA's network pickles: `_reconstruct_persistent_obj` (its source code is dropped unread),
  EasyDict, set, `_load_from_bytes`, NumPy scalars;
- TorchScript archives: classes below `__torch__`, typed lists;
- Lightning and training checkpoints: Counter (learning rate schedules), Namespace and AttributeDict
  (arguments), deques, and the data of `inert.py`, which is dropped.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from qdgs_jax.ports.errors import CheckpointError, show
from qdgs_jax.ports.readers.inert import inert_names, inert_package
from qdgs_jax.ports.readers.region import Region
from qdgs_jax.ports.readers.tensors import SCALAR_DTYPES, STORAGE_DTYPES, Storage, Tensor
from qdgs_jax.ports.readers.values import Buildable, Data, Global, Opaque, check_key

Arguments = tuple[Data, ...]
Names = Mapping[tuple[str, str], Global]


class Record(Buildable):
    """An object of a class that we do not have: its class name and its attributes.

    Attributes:
        class_name: as the file gives it.
        state: attributes by name.
    """

    def __init__(self, class_name: str, state: dict[str, Data] | None = None) -> None:
        self.class_name = class_name
        self.state = {} if state is None else state

    def set_state(self, state: Data) -> None:
        """Take the attributes, once; the pickle may go on to change them (see `check_names`)."""
        if self.state or type(state) is not dict:
            raise CheckpointError(
                f"Refused: the state of a {show(self.class_name)} is {show(state)}, or set twice."
            )
        self.state = state

    def check_names(self) -> None:
        """Raise unless all attributes are named by texts; to be asked when the pickle is read."""
        for key in self.state:
            if type(key) is not str:
                raise CheckpointError(
                    f"Refused: a {show(self.class_name)} has an attribute {show(key)}."
                )


class ScalarType(Buildable):
    """A NumPy element type on its way to becoming known.

    Attributes:
        code: as the file gives it.
        dtype: the type; None for texts, dates and objects, which only arrays that are dropped have.
    """

    def __init__(self, code: str) -> None:
        self.code = code
        self.dtype = _SCALAR_CODES.get(code)

    def set_state(self, state: Data) -> None:
        """Accept the state that NumPy writes for plain little-endian types."""
        if self.dtype is None:
            return
        plain = type(state) is tuple and len(state) == 8 and type(state[0]) is int
        if not plain or state[1] not in ("<", "|", "=") or any(x is not None for x in state[2:5]):
            raise CheckpointError("A NumPy element type is structured or big-endian.")


_LONGEST_SCALAR = 64  # bytes
_SCALAR_CODES = {np.dtype(kind).str[1:]: np.dtype(kind) for kind in "?bBhHiIqQefd"}


def _expect(name: str, arguments: Arguments, *kinds: type | tuple[type, ...] | None) -> None:
    """Raise unless there is an argument of each kind; None stands for any kind."""
    fits = len(arguments) == len(kinds) and all(
        kind is None or type(value) in (kind if isinstance(kind, tuple) else (kind,))
        for value, kind in zip(arguments, kinds, strict=True)
    )
    if not fits:
        given = ", ".join(show(value) for value in arguments[:8])
        raise CheckpointError(f"Refused: the pickle calls {name} with ({given}).")


def _mapping(name: str) -> Callable[[Arguments], Data]:
    def build(arguments: Arguments) -> Data:
        if not arguments:
            return {}
        _expect(name, arguments, (list, dict))
        content = arguments[0]
        if type(content) is dict:
            return dict(content)
        out: dict[Data, Data] = {}
        for pair in content:
            if type(pair) not in (tuple, list) or len(pair) != 2 or check_key(pair[0]) in out:
                raise CheckpointError(f"Refused: {name} is given {show(pair)} for an item.")
            out[pair[0]] = pair[1]
        return out

    return build


def _set(arguments: Arguments) -> Data:
    _expect("set", arguments, (list, tuple))
    return {check_key(item) for item in arguments[0]}


def _tensor(arguments: Arguments) -> Tensor:
    # storage, offset, size, stride, requires_grad, backward_hooks and, lately, metadata
    _expect("_rebuild_tensor_v2", arguments[:4], Storage, int, tuple, tuple)
    storage, offset, shape, strides = arguments[:4]
    return Tensor(storage, storage.dtype, offset, shape, strides)


def _typed_tensor(arguments: Arguments) -> Tensor:
    # as above, with the element type for an untyped storage as the seventh
    _expect("_rebuild_tensor_v3", arguments[:7], Storage, int, tuple, tuple, bool, None, Global)
    storage, offset, shape, strides = arguments[:4]
    module, _, name = arguments[6].name.rpartition(".")
    if module != "torch" or name not in SCALAR_DTYPES:
        raise CheckpointError(f"A tensor has the unknown type {show(arguments[6].name)}.")
    return Tensor(storage, SCALAR_DTYPES[name], offset, shape, strides)


def _parameter(arguments: Arguments) -> Tensor:
    # tensor, requires_grad, backward_hooks and, where it has any, the state of its attributes
    _expect("_rebuild_parameter", arguments[:3], Tensor, bool, None)
    tensor: Tensor = arguments[0]
    return tensor


def _tensor_of_type(arguments: Arguments) -> Tensor:
    # how to make the tensor, its class, arguments for the former, the state of its attributes
    _expect("_rebuild_from_type_v2", arguments, Global, Global, tuple, None)
    make = arguments[0].build
    if make not in (_tensor, _typed_tensor, _parameter):
        raise CheckpointError(f"Refused: a tensor is made by {show(arguments[0].name)}.")
    tensor: Tensor = make(arguments[2])
    return tensor


def _list(arguments: Arguments) -> Data:
    _expect("deque", arguments[:1], *[(list, tuple)] * len(arguments[:1]))
    return list(arguments[0]) if arguments else []


def _no_bytes(arguments: Arguments) -> Region:
    _expect("bytes", arguments)
    return Region.of_bytes(b"")


def _size(arguments: Arguments) -> Data:
    _expect("torch.Size", arguments, (tuple, list))
    return tuple(arguments[0])


def _text_to_bytes(arguments: Arguments) -> Region | Opaque:
    # Protocol 2 writes bytes as text in Latin-1: those of a NumPy scalar, and those of whole
    # arrays, which no model needs and nobody copies.
    _expect("_codecs.encode", arguments, str, str)
    text, encoding = arguments
    if len(text) > _LONGEST_SCALAR:
        return Opaque("bytes")
    if encoding != "latin1" or not all(ord(letter) < 256 for letter in text):
        raise CheckpointError("Refused: the pickle encodes a text that does not stand for bytes.")
    return Region.of_bytes(text.encode("latin1"))


def _scalar_type(arguments: Arguments) -> ScalarType:
    _expect("numpy.dtype", arguments, str, (bool, int), (bool, int))
    return ScalarType(arguments[0])


def _scalar(arguments: Arguments) -> Data:
    _expect("numpy scalar", arguments, ScalarType, Region)
    dtype, data = arguments[0].dtype, arguments[1]
    if dtype is None:
        raise CheckpointError(
            f"Refused: NumPy element type {show(arguments[0].code)} of a scalar in the pickle."
        )
    if data.length != dtype.itemsize:
        raise CheckpointError(f"A NumPy scalar of type {dtype} has {data.length} bytes.")
    return data.array().view(dtype)[0].item()


def _persistent_object(arguments: Arguments) -> Record:
    _expect("_reconstruct_persistent_obj", arguments, dict)
    meta = arguments[0]
    name, state = meta.get("class_name"), meta.get("state")
    if meta.get("type") != "class" or type(name) is not str or type(state) is not dict:
        raise CheckpointError("A persistent object of the network pickle has no class and state.")
    record = Record(name)
    record.set_state(state)
    return record


def _record(name: str) -> Global:
    def build(arguments: Arguments) -> Record:
        _expect(name, arguments)
        return Record(name)

    return Global(name, build)


def _only(name: str) -> Callable[[Arguments], Data]:
    def build(arguments: Arguments) -> Data:
        if not arguments:
            raise CheckpointError(f"Refused: the pickle calls {name} without arguments.")
        return arguments[0]

    return build


_ATTRIBUTE_DICTS = (
    "pytorch_lightning.utilities.parsing",
    "lightning.pytorch.utilities.parsing",
    "lightning_fabric.utilities.data",
    "lightning.fabric.utilities.data",
)


def _table() -> dict[tuple[str, str], Global]:
    builders: dict[tuple[str, str], Callable[[Arguments], Any]] = {
        ("collections", "OrderedDict"): _mapping("OrderedDict"),
        ("collections", "Counter"): _mapping("Counter"),
        ("dnnlib.util", "EasyDict"): _mapping("EasyDict"),
        ("collections", "deque"): _list,
        ("_codecs", "encode"): _text_to_bytes,
        ("numpy", "dtype"): _scalar_type,
        ("numpy.core.multiarray", "scalar"): _scalar,
        ("numpy._core.multiarray", "scalar"): _scalar,
        ("torch", "Size"): _size,
        ("torch._utils", "_rebuild_tensor"): _tensor,
        ("torch._utils", "_rebuild_tensor_v2"): _tensor,
        ("torch._utils", "_rebuild_tensor_v3"): _typed_tensor,
        ("torch._utils", "_rebuild_parameter"): _parameter,
        ("torch._utils", "_rebuild_parameter_with_state"): _parameter,
        ("torch._tensor", "_rebuild_from_type_v2"): _tensor_of_type,
        ("torch_utils.persistence", "_reconstruct_persistent_obj"): _persistent_object,
    }
    for module in ("builtins", "__builtin__"):
        builders |= {
            (module, "set"): _set,
            (module, "frozenset"): _set,
            (module, "bytes"): _no_bytes,
        }
    for module in _ATTRIBUTE_DICTS:
        builders[module, "AttributeDict"] = _mapping("AttributeDict")
    for kind in ("build_intlist", "build_doublelist", "build_boollist", "restore_type_tag"):
        builders["torch.jit._pickle", kind] = _only(kind)
    table = inert_names()
    table |= {key: Global(".".join(key), build) for key, build in builders.items()}
    table["argparse", "Namespace"] = _record("argparse.Namespace")
    for dtype in SCALAR_DTYPES:
        table["torch", dtype] = Global(f"torch.{dtype}")
    for storage in STORAGE_DTYPES:
        for module in ("torch", "torch.cuda", "torch.storage"):
            table[module, storage] = Global(f"{module}.{storage}")
    return table


_ALLOWED = _table()


def find_global(module: str, name: str) -> Global:
    """Look up what a name in a checkpoint's pickle stands for.

    Args:
        module: module part as the file gives it.
        name: the rest; it never contains a dot in a genuine file.

    Raises:
        CheckpointError: if the name is not on the allow-list.
    """
    known = _ALLOWED.get((module, name))
    if known is not None:
        return known
    plain = all(part.isidentifier() for part in [*module.split("."), name])
    if plain and module.split(".")[0] == "__torch__":  # a class defined by a TorchScript archive
        return _record(f"{module}.{name}")
    inert = inert_package(module, name) if plain else None
    if inert is not None:
        return inert
    if module.startswith("dnnlib.tflib"):
        raise CheckpointError(
            f"Refused: this is a TensorFlow pickle of StyleGAN, it names {show(name)} of "
            f"{show(module)}. Nothing was executed. NVIDIA's stylegan2-ada-pytorch turns it into a "
            "supported one: python legacy.py --source=OLD.pkl --dest=NEW.pkl."
        )
    raise CheckpointError(
        f"Refused: the pickle names {show(f'{module}.{name}')}, which no supported checkpoint "
        "needs. Nothing was executed. If the file holds a whole model, save its state_dict()."
    )


def storage_dtype(kind: Data) -> np.dtype:
    """Element type of a storage class such as torch.FloatStorage.

    Raises:
        CheckpointError: if it is none.
    """
    name = kind.name.rpartition(".")[2] if type(kind) is Global else ""
    if name not in STORAGE_DTYPES:
        raise CheckpointError(f"A storage has the unknown type {show(kind)}.")
    dtype: np.dtype = STORAGE_DTYPES[name]
    return dtype


def storage_id(pid: tuple[Data, ...], length: int) -> tuple[np.dtype, str, int]:
    """Element type, key and element count of ("storage", class, key, location, count, ...)."""
    if len(pid) != length or pid[0] != "storage" or type(pid[2]) is not str:
        raise CheckpointError("The pickle names external data that is not a storage.")
    return storage_dtype(pid[1]), pid[2], pid[4]


def same_storage(storage: Storage, dtype: np.dtype, numel: int) -> Storage:
    """Return the storage, if it is declared as it was before.

    Raises:
        CheckpointError: otherwise.
    """
    if storage.dtype != dtype or storage.numel != numel:
        raise CheckpointError("The pickle declares one storage in two ways.")
    return storage
