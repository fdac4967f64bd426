"""Files that appear whole or not at all: what a reader finds is never half of something."""

from __future__ import annotations

import contextlib
import csv
import io
import os
import re
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pyarrow

_SCRATCH = re.compile(r"\.(?P<target>.+)\.[^.]+\.tmp")


def write_atomically(path: str | os.PathLike[str], content: bytes) -> None:
    """Write a file beside its final place, flush it to the disk and rename it.

    A crash, a full disk or a power cut leaves the old file (or none), never a part of the new one.

    Raises:
        OSError: the folder does not exist or the disk is full; nothing is left behind.
    """
    target = Path(path)
    handle, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.", suffix=".tmp")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            Path(name).chmod(0o644)  # mkstemp's files are for their owner alone
            os.fsync(file.fileno())
        Path(name).replace(target)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
    sync_folder(target.parent)


@contextlib.contextmanager
def appearing_folder(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Fill a folder beside its final place; it appears by one rename once the block is left.

    Args:
        path: a folder that does not exist yet; its parents are created. The block syncs the files
            that it writes; the folders themselves are synced here.

    Raises:
        OSError: something failed, or `path` exists and is not empty; nothing is left behind.
    """
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    name = tempfile.mkdtemp(dir=target.parent, prefix=f".{target.name}.", suffix=".tmp")
    scratch = Path(name)
    try:
        scratch.chmod(0o755)  # mkdtemp's folders are for their owner alone
        yield scratch
        for folder, _, _ in os.walk(scratch):
            sync_folder(folder)
        scratch.rename(target)
    except BaseException:
        shutil.rmtree(scratch, ignore_errors=True)
        raise
    sync_folder(target.parent)


def arrow_file(path: str | os.PathLike[str]) -> pyarrow.NativeFile:
    """Open a file for pyarrow, which by itself takes no path whose bytes are not UTF-8.

    Raises:
        OSError: it cannot be read.
    """
    import pyarrow

    return pyarrow.OSFile(os.fsencode(path))


def csv_text(rows: Iterable[Iterable[object]]) -> str:
    """Rows as the text of a CSV file, a line each."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()


def sync_folder(path: str | os.PathLike[str]) -> None:
    """Put a folder's list of names on the disk, where the system can do that."""
    if os.name == "nt":  # folders cannot be opened there
        return
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def sweep(folder: str | os.PathLike[str], targets: str = ".*") -> None:
    """Remove what killed processes left of files and folders that had not appeared yet.

    Args:
        folder: where to look; the caller makes sure that nobody is writing there.
        targets: regular expression of the names that they would have got.
    """
    with contextlib.suppress(FileNotFoundError):
        for entry in list(Path(folder).iterdir()):
            match = _SCRATCH.fullmatch(entry.name)
            if not match or not re.fullmatch(targets, match["target"]):
                continue
            if entry.is_dir() and not entry.is_symlink():
                shutil.rmtree(entry, ignore_errors=True)
            else:
                entry.unlink(missing_ok=True)
