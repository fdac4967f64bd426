"""The allow-list: every name that a checkpoint's pickle may mention, and what becomes of it.

Nothing here imports or calls what a file names. A name stands for one of the builders below, which
turn plain data into plain data and refuse whatever does not have the expected form. A name that is
not listed is refused with the whole file. What each genuine format needs:

- every `torch.save` file: the tensor and parameter constructors, storage types, OrderedDict;
- NVIDIA's network pickles: `_reconstruct_persistent_obj` (its source code is dropped unread),
  EasyDict, set, `_load_from_bytes`, NumPy scalars;
- TorchScript archives: classes below `__torch__`, typed lists;
- Lightning and training checkpoints: Counter (learning rate schedules), Namespace and AttributeDict
  (arguments), callback classes as dictionary keys.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from qdgs_jax.ports.errors import CheckpointError, show
from qdgs_jax.ports.readers.pickle_machine import Buildable, Data, Global, check_key
from qdgs_jax.ports.readers.region import Region
from qdgs_jax.ports.readers.tensors import SCALAR_DTYPES, STORAGE_DTYPES, Storage, Tensor

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
    """A NumPy element type on its way to becoming known; object types are never accepted."""

    def __init__(self, dtype: np.dtype) -> None:
        self.dtype = dtype

    def set_state(self, state: Data) -> None:
        """Accept the state that NumPy writes for plain little-endian types."""
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
    _expect("_rebuild_parameter", arguments, Tensor, bool, None)
    tensor: Tensor = arguments[0]
    return tensor


def _size(arguments: Arguments) -> Data:
    _expect("torch.Size", arguments, (tuple, list))
    return tuple(arguments[0])


def _text_to_bytes(arguments: Arguments) -> Region:
    # Protocol 2 writes bytes as text in Latin-1, such as those of a NumPy scalar.
    _expect("_codecs.encode", arguments, str, str)
    text, encoding = arguments
    if len(text) > _LONGEST_SCALAR:
        raise CheckpointError(f"Refused: the pickle encodes a text of {len(text)} letters.")
    if encoding != "latin1" or not all(ord(letter) < 256 for letter in text):
        raise CheckpointError("Refused: the pickle encodes a text that does not stand for bytes.")
    return Region.of_bytes(text.encode("latin1"))


def _scalar_type(arguments: Arguments) -> ScalarType:
    _expect("numpy.dtype", arguments, str, (bool, int), (bool, int))
    if arguments[0] not in _SCALAR_CODES:
        raise CheckpointError(f"Refused: NumPy element type {show(arguments[0])} in the pickle.")
    return ScalarType(_SCALAR_CODES[arguments[0]])


def _scalar(arguments: Arguments) -> Data:
    _expect("numpy scalar", arguments, ScalarType, Region)
    dtype, data = arguments[0].dtype, arguments[1]
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


def _table() -> dict[tuple[str, str], Global]:
    builders: dict[tuple[str, str], Callable[[Arguments], Any]] = {
        ("collections", "OrderedDict"): _mapping("OrderedDict"),
        ("collections", "Counter"): _mapping("Counter"),
        ("dnnlib.util", "EasyDict"): _mapping("EasyDict"),
        ("pytorch_lightning.utilities.parsing", "AttributeDict"): _mapping("AttributeDict"),
        ("builtins", "set"): _set,
        ("__builtin__", "set"): _set,
        ("_codecs", "encode"): _text_to_bytes,
        ("numpy", "dtype"): _scalar_type,
        ("numpy.core.multiarray", "scalar"): _scalar,
        ("numpy._core.multiarray", "scalar"): _scalar,
        ("torch", "Size"): _size,
        ("torch._utils", "_rebuild_tensor"): _tensor,
        ("torch._utils", "_rebuild_tensor_v2"): _tensor,
        ("torch._utils", "_rebuild_tensor_v3"): _typed_tensor,
        ("torch._utils", "_rebuild_parameter"): _parameter,
        ("torch_utils.persistence", "_reconstruct_persistent_obj"): _persistent_object,
    }
    for kind in ("build_intlist", "build_doublelist", "build_boollist", "restore_type_tag"):
        builders["torch.jit._pickle", kind] = _only(kind)
    table = {key: Global(".".join(key), build) for key, build in builders.items()}
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
    if plain and module.startswith("pytorch_lightning.callbacks."):  # a dictionary key
        return Global(f"{module}.{name}")
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
