"""The layouts of `torch.save` before 1.6, and of NVIDIA's networks.

The older stream is five pickles in a row (magic number, version, system, content, storage keys),
then the storages. NVIDIA's networks are a plain pickle that nests such streams as byte strings.
"""

from __future__ import annotations

from qdgs_jax.ports.errors import CheckpointError, show
from qdgs_jax.ports.readers.allowed import find_global, same_storage, storage_id
from qdgs_jax.ports.readers.pickle_machine import Find, Unpickler
from qdgs_jax.ports.readers.region import Region
from qdgs_jax.ports.readers.tensors import Storage
from qdgs_jax.ports.readers.values import Budget, Data, Global

_MAGIC = 0x1950A86A20F9469CFC6C
_PROTOCOL = 1001


def read_stream(region: Region, budget: Budget) -> Data:
    """Read a legacy `torch.save` stream, or a plain pickle that nests some.

    Raises:
        CheckpointError: if it is broken, hostile, or from a big-endian machine.
    """

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
        dtype, key, numel = storage_id(pid, 6)
        if pid[5] is not None:
            raise CheckpointError("A storage is a view of another one. Save the file again.")
        return same_storage(storages.setdefault(key, Storage(dtype, numel)), dtype, numel)

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
