"""Files that stand in for another: what a download or a clone left instead of it."""

from __future__ import annotations

import os
import re
from pathlib import Path

from qdgs_jax.ports.errors import show

LOOKED_AT = 512  # bytes that are looked at
_ARROW = (  # what pyarrow says of a Parquet file, and what that means
    ("Parquet magic bytes not found", "it is no Parquet file, or its end is missing"),
    ("Parquet file size is", "it is too short for a Parquet file"),
    ("smaller than the minimum file footer", "it is too short for a Parquet file"),
    ("file size is smaller", "its end is damaged"),
    ("base64", "a description in it is damaged"),
    ("deserialize thrift", "a description in it is damaged"),
    ("TProtocolException", "a description in it is damaged"),
    ("Unexpected end of stream", "a part of it is missing"),
    ("ompress", "its content is damaged"),
    ("orrupt", "its content is damaged"),
)
_ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:/")  # a path loses one of the two slashes
_PAGES = (b"<!doctype", b"<html", b"<?xml")
_STARTS = (
    (b"\x1f\x8b", "This is a gzip archive: unpack it first."),
    (b"\xfd7zXZ", "This is an xz archive: unpack it first."),
    (b"\x89HDF", "This is an HDF5 file, such as Keras writes, which is not read."),
    (
        b"\x93NUMPY",
        "This is a NumPy array; PyTorch writes one by torch.save(torch.tensor(array), FILE).",
    ),
    (b"GGUF", "This is a GGUF file of quantised weights, which is not read."),
)


def stand_in(start: bytes, length: int) -> str | None:
    """Say what a file is, if it is one that stands in for another; None if it may be sound.

    Args:
        start: its first bytes.
        length: its size in bytes.
    """
    if not length:
        return "The file is empty: download it again."
    text = start[:LOOKED_AT].lstrip(b"\xef\xbb\xbf \t\r\n")
    if text.startswith(b"version https://git-lfs"):
        return (
            "This is a Git LFS pointer, not the file that it stands for: run `git lfs pull` in its "
            "repository, or download the file itself."
        )
    if text[:1] == b"<" and any(tag in text.lower() for tag in _PAGES):
        return (
            "This is a web page, not the file that it was meant to be: its site may want a login, "
            "a licence accepted, or the link of the raw file."
        )
    for magic, what in _STARTS:
        if start.startswith(magic):
            return what
    return None


def is_address(path: str | os.PathLike[str]) -> bool:
    """Whether what was given for a file is the address of one on the network."""
    return bool(_ADDRESS.match(os.fspath(path))) and not Path(path).exists()


def reason(path: str | os.PathLike[str], error: object) -> str:
    """Why a file cannot be read: what stands in its place, else what its reader says.

    Args:
        path: the file.
        error: of the reader.
    """
    place = Path(path)
    try:
        with place.open("rb") as file:
            found = stand_in(file.read(LOOKED_AT), place.stat().st_size)
    except OSError:
        found = None
    said = str(error)
    meant = next((ours for theirs, ours in _ARROW if theirs in said), said)
    return (found or meant).removesuffix(".")


def told_text(start: bytes) -> str | None:
    """Quote the start of a file that is a text, such as a server's refusal; None if it is none."""
    try:
        text = start[:LOOKED_AT].decode()
    except UnicodeDecodeError:
        return None
    if not all(letter.isprintable() or letter in "\t\r\n" for letter in text):
        return None
    return f"It is a text that begins with {show(text)}."
