"""The zip layout of `torch.save` since 1.6 and `torch.jit.save`: a pickle, an entry per storage."""

from __future__ import annotations

from qdgs_jax.ports.errors import CheckpointError
from qdgs_jax.ports.readers.allowed import find_global, same_storage, storage_id
from qdgs_jax.ports.readers.pickle_machine import Unpickler
from qdgs_jax.ports.readers.tensors import Storage
from qdgs_jax.ports.readers.values import Budget, Data
from qdgs_jax.ports.readers.zip_archive import Archive


def read_archive(archive: Archive, budget: Budget) -> Data:
    """Read the pickle of an archive; its tensors stay in the file.

    Raises:
        CheckpointError: if it is broken, hostile, or from a big-endian machine.
    """
    if "byteorder" in archive:
        order = archive.read("byteorder")
        if order.read(0, order.length) != b"little":
            raise CheckpointError("The checkpoint was saved on a big-endian machine.")
    storages: dict[str, Storage] = {}

    def persistent(pid: tuple[Data, ...]) -> Storage:
        dtype, key, numel = storage_id(pid, 5)
        known = storages.get(key)
        if known is None:
            region, crc = archive.entry(f"data/{key}")
            known = storages[key] = Storage(dtype, numel, region, crc)
        return same_storage(known, dtype, numel)

    machine = Unpickler(archive.read("data.pkl"), budget, find_global, persistent)
    length = archive.entry("data.pkl")[0].length
    root = machine.load()
    if machine.at != length:
        raise CheckpointError(f"{length - machine.at} bytes follow the end of the pickle.")
    return root
