"""Sets of faces in the formats of other programs, written for the tests."""

from __future__ import annotations

import io
import pickle
import struct
from collections.abc import Sequence

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


def flipped(content: bytes, rng: np.random.Generator) -> bytes:
    """The same with one bit changed."""
    changed = bytearray(content)
    changed[rng.integers(len(content))] ^= 1 << int(rng.integers(8))
    return bytes(changed)
