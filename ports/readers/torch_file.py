"""Reads PyTorch checkpoints without PyTorch, and without executing anything they contain.

Three layouts share one pickle machine (`unpickle.py`) and one allow-list (`allowed.py`):

- zip archives, written by `torch.save` since 1.6 and by `torch.jit.save`: a pickle, and one entry
  per storage;
- the older stream: five pickles in a row (magic number, version, system, content, storage keys),
  then the storages;
- a plain pickle that nests such streams as byte strings: NVIDIA's networks.

Opening a checkpoint reads its pickles alone; tensors stay in the file until they are asked for.
Memory is bounded by the file's size: what the pickles may build by a budget (`unpickle.Budget`),
and what the tensors may take by the rule that storages do not overlap (`_Tally`).
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, NoReturn

import numpy as np

from qdgs_jax.ports.errors import CheckpointError, naming, show
from qdgs_jax.ports.readers.allowed import Record, find_global, storage_dtype
from qdgs_jax.ports.readers.pickle_machine import Budget, Data, Find, Global, Unpickler
from qdgs_jax.ports.readers.region import Region
from qdgs_jax.ports.readers.tensors import Storage, Tensor
from qdgs_jax.ports.readers.zip_archive import Archive

__all__ = ["CheckpointError", "open_checkpoint", "read_checkpoint"]

_MAGIC = 0x1950A86A20F9469CFC6C
_PROTOCOL = 1001
_MAX_DEPTH = 64
_MAX_UNFOLDED = 8  # a file may hold the same state dict several times
_UNNAMED = "(unnamed)"


@contextlib.contextmanager
def open_checkpoint(path: str | Path) -> Iterator[Data]:
    """Open a checkpoint; its tensors stay in the file until they are asked for.

    Args:
        path: a file written by `torch.save` or `torch.jit.save`, or an NVIDIA network pickle.

    Yields:
        A finite tree of dictionaries, lists, tuples, sets, scalars, `Record` and lazy `Tensor`
        leaves. Tensors can be read inside the `with` block.

    Raises:
        CheckpointError: if the file is broken, hostile or of another kind; the message says which.
    """
    path = Path(path)
    try:
        file = path.open("rb")
    except OSError as error:
        raise CheckpointError(f"The file cannot be read: {error.strerror}.", path) from None
    with file:
        with naming(path):
            root = _read(file)
        yield root


def read_checkpoint(path: str | Path) -> Data:
    """Read a checkpoint with NumPy arrays for tensors; see `open_checkpoint`.

    Raises:
        CheckpointError: as `open_checkpoint`, or if a tensor's bytes are damaged.
    """
    with open_checkpoint(path) as root:
        return _materialise(root, {})


def _read(file: BinaryIO) -> Data:
    region = Region.of_file(file)
    start = region.read(0, min(region.length, 4))
    budget = Budget(region.length)
    if start == b"PK\x03\x04":
        root = _read_archive(Archive(file), budget)
    elif start[:1] == b"\x80":
        root = _read_stream(region, budget)
    else:
        _refuse_unknown(region)
    _Tally(region.length, budget).check(root)
    return root


def _refuse_unknown(region: Region) -> NoReturn:
    if region.length > 262 and region.read(257, 5) == b"ustar":
        raise CheckpointError(
            "This is the tar format of PyTorch 0.1. Save it again with 0.4 or later."
        )
    raise CheckpointError("This is not a PyTorch checkpoint, or it is cut off at its start.")


def _read_archive(archive: Archive, budget: Budget) -> Data:
    if "byteorder" in archive:
        order = archive.read("byteorder")
        if order.read(0, order.length) != b"little":
            raise CheckpointError("The checkpoint was saved on a big-endian machine.")
    storages: dict[str, Storage] = {}

    def persistent(pid: tuple[Data, ...]) -> Storage:
        dtype, key, numel = _storage_id(pid, 5)
        known = storages.get(key)
        if known is None:
            region, crc = archive.entry(f"data/{key}")
            known = storages[key] = Storage(dtype, numel, region, crc)
        return _same(known, dtype, numel)

    machine = Unpickler(archive.read("data.pkl"), budget, find_global, persistent)
    return _only_pickle(machine, archive.entry("data.pkl")[0].length)


def _only_pickle(machine: Unpickler, length: int) -> Data:
    root = machine.load()
    if machine.at != length:
        raise CheckpointError(f"{length - machine.at} bytes follow the end of the pickle.")
    return root


def _read_stream(region: Region, budget: Budget) -> Data:
    """Read a legacy `torch.save` stream, or a plain pickle that nests some."""

    def find(module: str, name: str) -> Global:
        if (module, name) == ("torch.storage", "_load_from_bytes"):
            return Global(f"{module}.{name}", load_nested)
        return find_global(module, name)

    def load_nested(arguments: tuple[Data, ...]) -> Data:
        if len(arguments) != 1 or type(arguments[0]) is not Region:
            raise CheckpointError("Refused: the pickle calls _load_from_bytes without bytes.")
        inner = Unpickler(arguments[0], budget, find_global)
        saved = inner.load() == _MAGIC
        root = _read_legacy(arguments[0], inner.at, find_global, budget) if saved else None
        if type(root) is not Storage:
            raise CheckpointError("The bytes nested in the pickle are not a saved storage.")
        return root

    machine = Unpickler(region, budget, find)
    first = machine.load()
    if type(first) is int and first == _MAGIC:
        return _read_legacy(region, machine.at, find, budget)
    if machine.at != region.length:
        raise CheckpointError(f"{region.length - machine.at} bytes follow the end of the pickle.")
    return first


def _read_legacy(region: Region, at: int, find: Find, budget: Budget) -> Data:
    """Read what follows the magic number of a legacy stream."""
    storages: dict[str, Storage] = {}

    def persistent(pid: tuple[Data, ...]) -> Storage:
        dtype, key, numel = _storage_id(pid, 6)
        if pid[5] is not None:
            raise CheckpointError("A storage is a view of another one. Save the file again.")
        return _same(storages.setdefault(key, Storage(dtype, numel)), dtype, numel)

    machine = Unpickler(region, budget, find, persistent, at)
    version, system = machine.load(), machine.load()
    if version != _PROTOCOL:
        raise CheckpointError(f"Version {show(version)} of the legacy format is not supported.")
    if type(system) is not dict or system.get("little_endian") is not True:
        raise CheckpointError("The checkpoint was not saved on a little-endian machine.")
    root, keys = machine.load(), machine.load()
    if (
        type(keys) is not list
        or len(keys) != len(storages)
        or any(type(key) is not str for key in keys)
        or set(keys) != set(storages)
    ):
        raise CheckpointError("The checkpoint's list of storages does not match its tensors.")
    at = machine.at
    for key in keys:
        storage = storages[key]
        declared = int.from_bytes(region.read(at, 8), "little", signed=True)
        if declared != storage.numel:
            raise CheckpointError(
                f"A storage is declared with {storage.numel} elements but stored with {declared}."
            )
        storage.place(region.part(at + 8, storage.nbytes))
        at += 8 + storage.nbytes
    if at != region.length:
        raise CheckpointError(f"{region.length - at} bytes follow the last storage.")
    return root


def _storage_id(pid: tuple[Data, ...], length: int) -> tuple[np.dtype, str, int]:
    """Element type, key and element count of ("storage", class, key, location, count, ...)."""
    if len(pid) != length or pid[0] != "storage" or type(pid[2]) is not str:
        raise CheckpointError("The pickle names external data that is not a storage.")
    return storage_dtype(pid[1]), pid[2], pid[4]


def _same(storage: Storage, dtype: np.dtype, numel: int) -> Storage:
    if storage.dtype != dtype or storage.numel != numel:
        raise CheckpointError("The pickle declares one storage in two ways.")
    return storage


def children(value: Data) -> Iterator[tuple[str, Data]]:
    """Named parts of a node of a checkpoint's tree; none for a leaf."""
    if type(value) is Record:
        yield from value.state.items()
    elif type(value) is dict:
        for key, item in value.items():
            yield key if type(key) is str else show(key), item
    elif type(value) in (list, tuple):
        for index, item in enumerate(value):
            yield str(index), item


def named_tensors(root: Data, prefix: str = "") -> Iterator[tuple[str, Tensor]]:
    """All tensors of a tree, named by their path with dots; in the order of the file."""
    if type(root) is Tensor:
        yield prefix or _UNNAMED, root
    for name, item in children(root):
        yield from named_tensors(item, f"{prefix}.{name}" if prefix else name)


class _Tally:
    """Adds up what a tree holds, to refuse what would unfold beyond the file's size.

    Args:
        length: size of the file in bytes.
        budget: pays for every node, and for the names that `named_tensors` makes.
    """

    def __init__(self, length: int, budget: Budget) -> None:
        self._length, self._budget = length, budget
        self._held: dict[int, int] = {}  # bytes of storages, by identity
        self._unfolded = 0  # bytes of tensors, again for every place where one stands

    def check(self, root: Data) -> None:
        """Walk through the tree.

        Raises:
            CheckpointError: if it is infinite, nested deeply, or larger than the file allows.
        """
        self._visit(root, 0, 0)
        if sum(self._held.values()) > self._length:
            raise CheckpointError("The storages overlap: together they take more than the file.")
        if self._unfolded > _MAX_UNFOLDED * self._length:
            raise CheckpointError(
                f"The tensors take {self._unfolded} bytes but the file has only {self._length}: "
                "they share storages more than any genuine checkpoint does."
            )

    def _visit(self, value: Data, depth: int, name_length: int) -> None:
        self._budget.spend()
        self._budget.spend_text(name_length)
        if depth > _MAX_DEPTH:
            raise CheckpointError("The pickle's content is nested too deeply, or within itself.")
        if type(value) is Tensor:
            self._unfolded += value.nbytes
            self._held[id(value.storage)] = value.storage.nbytes
        elif type(value) is Storage:
            self._held[id(value)] = value.nbytes
        elif type(value) is Record:
            value.check_names()
        for name, item in children(value):
            self._visit(item, depth + 1, name_length + len(name) + 1)


def _materialise(value: Data, made: dict[int, Any]) -> Data:
    """Read a tree; what stands in several places becomes one object, as in the file.

    Args:
        value: the tree.
        made: the objects made so far, by identity of what they were made from.
    """
    if id(value) not in made:
        made[id(value)] = _read_node(value, made)
    return made[id(value)]


def _read_node(value: Data, made: dict[int, Any]) -> Data:
    if type(value) is Tensor:
        return value.numpy()
    if type(value) is Storage:
        return value.raw().view(value.dtype)
    if type(value) is Region:
        return value.read(0, value.length)
    if type(value) is Record:
        state = {key: _materialise(item, made) for key, item in value.state.items()}
        return Record(value.class_name, state)
    if type(value) is dict:
        return {key: _materialise(item, made) for key, item in value.items()}
    if type(value) in (list, tuple):
        return type(value)(_materialise(item, made) for item in value)
    return value
