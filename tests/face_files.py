"""Sets of faces in the formats of other programs, written for the tests."""

from __future__ import annotations

import contextlib
import io
import json
import pickle
import struct
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

MAGIC = 0xCED7230A


def faces(count: int, seed: int = 0, size: int = 16) -> np.ndarray:
    """Pictures UInt8[count, size, size, 3] of soft noise, each another."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (count, 4, 4, 3), np.uint8)
    return coarse.repeat(size // 4, axis=1).repeat(size // 4, axis=2)


def encoded(picture: np.ndarray, kind: str = "PNG") -> bytes:
    """Bytes of a PNG or JPEG file."""
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, kind, **({"quality": 95} if kind == "JPEG" else {}))
    return buffer.getvalue()


def pairs_bin(pictures: Sequence[bytes], same: Sequence[object], protocol: int = 4) -> bytes:
    """A verification set as Python 3 writes it."""
    return pickle.dumps((list(pictures), list(same)), protocol=protocol)


def pairs_bin_of_python_2(pictures: Sequence[bytes], same: Sequence[bool]) -> bytes:
    """A verification set as Python 2 wrote it: pictures are its strings."""
    out = bytearray(b"\x80\x02]q\x00(")
    for number, picture in enumerate(pictures):
        short = len(picture) < 256
        out += b"U" + bytes([len(picture)]) if short else b"T" + struct.pack("<i", len(picture))
        out += picture + b"r" + struct.pack("<I", number + 1)
    out += b"e]q\x00(" + b"".join(b"\x88" if truth else b"\x89" for truth in same)
    return bytes(out + b"e\x86.")


def record(content: bytes, part: int = 0) -> bytes:
    """A record, or a part of one, filled up to four bytes."""
    word = part << 29 | len(content)
    return struct.pack("<II", MAGIC, word) + content + bytes(-len(content) % 4)


def split_record(content: bytes) -> bytes:
    """A record that is parted where the magic stands in it at a multiple of four."""
    magic, parts, start = struct.pack("<I", MAGIC), [], 0
    for at in range(0, len(content) - 3, 4):
        if content[at : at + 4] == magic:
            parts.append(content[start:at])
            start = at + 4
    parts.append(content[start:])
    if len(parts) == 1:
        return record(content)
    kinds = [1, *[2] * (len(parts) - 2), 3]
    return b"".join(record(part, kind) for part, kind in zip(parts, kinds, strict=True))


def labelled(key: int, labels: Sequence[float], picture: bytes) -> bytes:
    """Content of a record: one label in the header, or several behind it."""
    if len(labels) == 1:
        return struct.pack("<IfQQ", 0, labels[0], key, 0) + picture
    header = struct.pack("<IfQQ", len(labels), 0.0, key, 0)
    return header + struct.pack(f"<{len(labels)}f", *labels) + picture


def insightface(
    folder: Path,
    pictures: Sequence[bytes],
    identities: Sequence[int],
    *,
    numbers: int = 1,
    lists: bool = True,
) -> list[int]:
    """Write `train.rec`, `.idx`, `.lst` and `property`; gives where records begin, and the end."""
    folder.mkdir(parents=True, exist_ok=True)
    count, people = len(pictures), max(identities) + 1
    runs = np.flatnonzero(np.diff(identities, prepend=-1)) + 1  # each from its first record on
    contents = [labelled(0, [count + 1, count + 1 + len(runs)], b"")]
    for key, (picture, identity) in enumerate(zip(pictures, identities, strict=True), start=1):
        contents.append(labelled(key, [identity, 0][:numbers], picture))
    for number, (first, stop) in enumerate(zip(runs, [*runs[1:], count + 1], strict=True)):
        contents.append(labelled(count + 1 + number, [first, stop], b""))
    records = [split_record(content) for content in contents]
    starts = np.cumsum([0, *map(len, records)])
    (folder / "train.rec").write_bytes(b"".join(records))
    if lists:
        index = "".join(f"{key}\t{start}\n" for key, start in enumerate(starts[:-1]))
        (folder / "train.idx").write_text(index)
        lines = [f"1\t/faces/{i}/{n}.jpg\t{i}\n" for n, i in enumerate(identities)]
        (folder / "train.lst").write_text("".join(lines))
        (folder / "property").write_text(f"{people},16,16\n")
    return [int(start) for start in starts]


@contextlib.contextmanager
def flipped(path: Path, rng: np.random.Generator) -> Iterator[int]:
    """A file with one bit changed for a while; gives the byte. In place: creating files is slow."""
    at, bit = int(rng.integers(path.stat().st_size)), 1 << int(rng.integers(8))
    _flip(path, at, bit)
    try:
        yield at
    finally:
        _flip(path, at, bit)


def _flip(path: Path, at: int, bit: int) -> None:
    with path.open("r+b") as file:
        file.seek(at)
        value = file.read(1)[0] ^ bit
        file.seek(at)
        file.write(bytes([value]))


def carray(folder: Path, images: np.ndarray, same: Sequence[bool], length: int = 3) -> None:
    """A verification set in AdaFace's bcolz folder; needs blosc."""
    import blosc

    numbers = as_adaface_keeps_them(images)
    for name in ("meta", "data"):
        (folder / name).mkdir(parents=True)
    sizes = {"shape": list(numbers.shape), "nbytes": numbers.nbytes, "cbytes": 0}
    storage = {
        "dtype": "float32",
        "cparams": {"clevel": 5, "shuffle": 1, "cname": "lz4", "quantize": 0},
        "chunklen": length,
        "expectedlen": len(numbers),
        "dflt": 0.0,
    }
    (folder / "meta" / "sizes").write_text(json.dumps(sizes))
    (folder / "meta" / "storage").write_text(json.dumps(storage) + "\n")
    for number, start in enumerate(range(0, len(numbers), length)):
        rows = np.zeros((length, *numbers.shape[1:]), np.float32)
        part = numbers[start : start + length]
        rows[: len(part)] = part
        cname = ("lz4", "blosclz")[number % 2]
        packed = blosc.compress(rows.tobytes(), typesize=4, clevel=5, cname=cname)
        header = b"blpk" + struct.pack("<Bxxxq", 1, 1)
        (folder / "data" / f"__{number}.blp").write_bytes(header + packed)
    np.save(folder.with_name(f"{folder.name}_list.npy"), np.array(same))


def memfile(folder: Path, images: np.ndarray, same: Sequence[bool]) -> None:
    """AdaFace's uncompressed copy of such a set."""
    numbers = as_adaface_keeps_them(images)
    place = folder / "memfile"
    place.mkdir(parents=True)
    (place / "mem_file.dat").write_bytes(numbers.tobytes())
    config = {"shape": numbers.shape, "dtype": "float32"}
    (place / "mem_file.dat.conf").write_text(json.dumps(config))
    np.save(folder.with_name(f"{folder.name}_list.npy"), np.array(same))


def as_adaface_keeps_them(images: np.ndarray) -> np.ndarray:
    """Float32[N, 3, S, S], blue first, as torchvision normalises pictures."""
    blue_first = images[..., ::-1].transpose(0, 3, 1, 2)
    return (blue_first.astype(np.float32) / np.float32(255) - np.float32(0.5)) / np.float32(0.5)
