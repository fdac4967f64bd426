"""The zip archives of `torch.save` and TorchScript, with every declared size and place checked.

PyTorch stores the entries that matter uncompressed, so an entry is a region of the file and its
checksum is compared when it is read. Nothing is ever extracted to disk.
"""

from __future__ import annotations

import struct
import zipfile
import zlib
from typing import BinaryIO

from qdgs_jax.ports.errors import CheckpointError, show
from qdgs_jax.ports.region import Region

_MAX_ENTRIES = 100_000
_LOCAL_HEADER = struct.Struct("<4s5H3L2H")


class Archive:
    """Stored entries of a zip file, by their name below the archive's single top folder.

    Args:
        file: the open file.

    Raises:
        CheckpointError: if the archive is broken, or not laid out as PyTorch does it.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._region = Region.of_file(file)
        try:
            infos = zipfile.ZipFile(file).infolist()
        except (
            zipfile.BadZipFile,
            ValueError,
            NotImplementedError,
            EOFError,
            struct.error,
        ) as error:
            raise CheckpointError(f"The archive is truncated or broken: {error}.") from None
        if len(infos) > _MAX_ENTRIES:
            raise CheckpointError(f"The archive has {len(infos)} entries.")
        pickles = [i.filename for i in infos if i.filename.count("/") == 1]
        tops = {name.partition("/")[0] for name in pickles if name.endswith("/data.pkl")}
        if len(tops) != 1:
            raise CheckpointError("The archive is not a PyTorch checkpoint: it has no data.pkl.")
        self._top = tops.pop()
        self._infos: dict[str, zipfile.ZipInfo] = {}
        for info in infos:
            self._admit(info)
        ordered = sorted(info.header_offset for info in infos)
        ends = [*ordered[1:], self._region.length]
        self._ends = dict(zip(ordered, ends, strict=True))

    def _admit(self, info: zipfile.ZipInfo) -> None:
        top, _, name = info.filename.partition("/")
        if top != self._top or "\\" in name or not all(p.strip(".") for p in name.split("/")):
            raise CheckpointError(f"The archive holds an entry named {show(info.filename)}.")
        if name in self._infos:
            raise CheckpointError(f"The archive holds {show(info.filename)} twice.")
        self._infos[name] = info

    def __contains__(self, name: str) -> bool:
        return name in self._infos

    def entry(self, name: str) -> tuple[Region, int]:
        """Place and CRC-32 of an entry; the bytes are not read yet.

        Args:
            name: below the top folder, such as "data/0".

        Raises:
            CheckpointError: if there is none, or it is not a plain stored entry inside the file.
        """
        info = self._infos.get(name)
        if info is None:
            raise CheckpointError(
                f"The archive lacks the entry {show(name)} that its pickle names."
            )
        if info.compress_type != zipfile.ZIP_STORED or info.flag_bits & 1:
            raise CheckpointError(f"The archive's entry {show(name)} is compressed or encrypted.")
        header = self._region.read(info.header_offset, _LOCAL_HEADER.size)
        signature, *_, name_length, extra_length = _LOCAL_HEADER.unpack(header)
        start = info.header_offset + _LOCAL_HEADER.size + name_length + extra_length
        end = start + info.file_size
        if signature != b"PK\x03\x04" or info.file_size != info.compress_size:
            raise CheckpointError(f"The archive's entry {show(name)} is broken.")
        if end > self._ends[info.header_offset]:
            raise CheckpointError(f"The archive's entry {show(name)} runs into the next one.")
        return self._region.part(start, info.file_size), info.CRC

    def read(self, name: str) -> Region:
        """Read an entry into memory and compare its checksum.

        Raises:
            CheckpointError: if there is none, or it is damaged.
        """
        region, crc = self.entry(name)
        data = region.read(0, region.length)
        if zlib.crc32(data) != crc:
            raise CheckpointError(f"The file is damaged: the checksum of {show(name)} is wrong.")
        return Region.of_bytes(data)
