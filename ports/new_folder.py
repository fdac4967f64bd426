"""A folder that appears whole, by one rename, or not at all.

It is made under a hidden name beside its destination. A process that is killed leaves that hidden
folder behind; the lock inside, which the system lets go with the process, tells the next one that
it may be removed.
"""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock

from qdgs_jax.ports.errors import CheckpointError

LOCK = "qdgs.lock"


def check_destination(folder: str | Path) -> None:
    """Raise unless a model may be written to this folder.

    Raises:
        CheckpointError: if there already is something other than an empty folder.
    """
    folder = Path(folder)
    if not folder.exists():
        return
    if not folder.is_dir():
        raise CheckpointError(f"{folder} is a file: give a folder that does not exist yet.")
    if any(folder.iterdir()):
        kind = "a model" if (folder / "config.json").exists() else "other files"
        raise CheckpointError(
            f"{folder} already holds {kind}: give another folder, or remove this one first."
        )


@contextlib.contextmanager
def new_folder(folder: Path) -> Iterator[Path]:
    """Make a folder that takes its place when the block ends without an error.

    Args:
        folder: absolute path of the destination; it may exist only if it is empty.

    Yields:
        The folder to be filled. If the block fails or is interrupted, it is removed, and so are
        the destination's parents that were made for it.

    Raises:
        CheckpointError: if the destination holds something, or does so by the end.
        OSError: if the place is not writable; the message names the destination.
    """
    check_destination(folder)
    with naming_destination(folder):
        made = _make_parents(folder.parent)
    try:
        with naming_destination(folder):
            sweep_unlocked(folder.parent, ".*.tmp")
            scratch = _scratch(folder)
        try:
            with naming_destination(folder):
                lock = FileLock(scratch / LOCK)
                with contextlib.suppress(NotImplementedError):  # a file system without locks
                    lock.acquire(blocking=False)
                inside = scratch / "folder"
                inside.mkdir()
            try:
                yield inside
                with naming_destination(folder):
                    inside.rename(folder)
            finally:
                lock.release()
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
    except BaseException:
        for parent in made:
            with contextlib.suppress(OSError):  # somebody else may have put something there
                parent.rmdir()
        raise


@contextlib.contextmanager
def naming_destination(folder: Path) -> Iterator[None]:
    """Let the system's errors name the folder that the user chose, not a hidden one beside it."""
    try:
        yield
    except OSError as error:
        check_destination(folder)  # what came there meanwhile is the better reason
        raise OSError(f"{folder} cannot be written: {reason(error)}.") from None


def reason(error: BaseException) -> str:
    """Why something failed, in a few words: what the system says, or the end of a first line."""
    told = getattr(error, "strerror", None)
    return str(told or str(error).partition("\n")[0].rpartition(": ")[2][:200])


def _scratch(folder: Path) -> Path:
    name = folder.name[:60]  # names have a longest length, and this one gets longer
    return Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{name}.", suffix=".tmp"))


def _make_parents(folder: Path) -> list[Path]:
    """Make a folder and its parents; return those that were not there, innermost first."""
    missing = []
    while not folder.exists():
        missing.append(folder)
        folder = folder.parent
    made: list[Path] = []
    try:
        for parent in reversed(missing):
            parent.mkdir(exist_ok=True)
            made.insert(0, parent)
    except OSError:
        for parent in made:
            parent.rmdir()
        raise
    return made


def sweep_unlocked(parent: Path, pattern: str) -> None:
    """Remove what killed processes left in a folder: with a lock inside that nobody holds.

    Args:
        parent: the folder.
        pattern: of the names of what is made there, as `Path.glob` takes it.
    """
    with contextlib.suppress(OSError):
        for scratch in parent.glob(pattern):
            with contextlib.suppress(OSError, NotImplementedError):  # in use, among others
                if not (scratch / LOCK).is_file():
                    continue
                lock = FileLock(scratch / LOCK)
                lock.acquire(blocking=False)
                lock.release()
                shutil.rmtree(scratch, ignore_errors=True)
