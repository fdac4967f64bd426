"""The zip archives of `torch.save` and TorchScript, with every declared size and place checked.

PyTorch stores the entries that matter uncompressed, so an entry is a region of the file and its
checksum is compared when it is read. `torch.save` can be told not to compute checksums; it then
writes 0 for every entry, and only an archive that has no other checksum at all is taken for such a
one: a single checksum that was damaged stays an error. Nothing is ever extracted to disk.
"""

from __future__ import annotations

import struct
import zipfile
import zlib
from typing import BinaryIO

from qdgs_jax.ports.errors import CheckpointError, show
from qdgs_jax.ports.readers.region import Region

_LARGEST_DIRECTORY = 1 << 21  # bytes; an entry takes about 70
_UTF8 = 1 << 11
_LOCAL_HEADER = struct.Struct("<4s5H3L2H")


class _Directory:
    """What `zipfile` sees of a file; it reads the directory at once and makes objects of it."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file

    def read(self, size: int | None = -1) -> bytes:
        if size is not None and size > _LARGEST_DIRECTORY:
            raise CheckpointError(f"The archive's directory takes {size} bytes, far too many.")
        return self._file.read(-1 if size is None else size)

    def seek(self, offset: int, whence: int = 0) -> int:
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()


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
            infos = zipfile.ZipFile(_Directory(file)).infolist()
        except CheckpointError:
            raise
        except (
            zipfile.BadZipFile,
            ValueError,
            NotImplementedError,
            EOFError,
            struct.error,
        ) as error:
            raise CheckpointError(f"The archive is truncated or broken: {error}.") from None
        pickles = [i.filename for i in infos if i.filename.count("/") == 1]
        tops = {name.partition("/")[0] for name in pickles if name.endswith("/data.pkl")}
        if len(tops) != 1:
            problem = "several of them" if tops else "none"
            if infos and all(info.filename.endswith(".npy") for info in infos):
                problem = "only NumPy arrays"
            raise CheckpointError(
                f"A PyTorch checkpoint has a data.pkl, the archive has {problem}."
            )
        self._top = tops.pop()
        self._checked = any(info.CRC for info in infos)
        self._infos: dict[str, zipfile.ZipInfo] = {}
        for info in infos:
            if not (info.is_dir() and not info.file_size):  # of whoever packed it again
                self._admit(info)
        ordered = sorted(info.header_offset for info in infos)
        ends = [*ordered[1:], self._region.length]
        if len(set(ordered)) != len(ordered):
            raise CheckpointError("The archive's directory lists the same bytes twice.")
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

    def entry(self, name: str) -> tuple[Region, int | None]:
        """Place and CRC-32 of an entry, None in an archive without any; it is not read yet.

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
            raise CheckpointError(
                f"The archive's entry {show(name)} is compressed or encrypted: unpack "
                "the archive, and pack it again without compression (`zip -0 -r`)."
            )
        header = self._region.read(info.header_offset, _LOCAL_HEADER.size)
        signature, *_, name_length, extra_length = _LOCAL_HEADER.unpack(header)
        name_at = info.header_offset + _LOCAL_HEADER.size
        start = name_at + name_length + extra_length
        end = start + info.file_size
        if signature != b"PK\x03\x04" or info.file_size != info.compress_size:
            raise CheckpointError(f"The archive's entry {show(name)} is broken.")
        listed = info.orig_filename.encode("utf-8" if info.flag_bits & _UTF8 else "cp437")
        if self._region.read(name_at, name_length) != listed:
            raise CheckpointError(f"The archive's entry {show(name)} has another name inside.")
        if end > self._ends[info.header_offset]:
            raise CheckpointError(f"The archive's entry {show(name)} runs into the next one.")
        return self._region.part(start, info.file_size), info.CRC if self._checked else None

    def read(self, name: str) -> Region:
        """Read an entry into memory and compare its checksum.

        Raises:
            CheckpointError: if there is none, or it is damaged.
        """
        region, crc = self.entry(name)
        data = region.read(0, region.length)
        if crc is not None and zlib.crc32(data) != crc:
            raise CheckpointError(f"The file is damaged: the checksum of {show(name)} is wrong.")
        return Region.of_bytes(data)
