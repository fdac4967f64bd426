"""Another name for a folder whose path libraries would misread.

Orbax looks for its files by shell patterns made of the path itself, and takes some names for
addresses of cloud storage: `[`, `]`, `*`, `?`, a backslash or a component such as `gs:` in a path
makes it write elsewhere, or not find what it wrote. A symbolic link with a plain name, in a place
with a plain name, leads to the same folder.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock

from qdgs_jax.ports.new_folder import LOCK, sweep_unlocked

_PLAIN = frozenset("/._-+,=@ ~#%")  # apart from letters and digits
_PREFIX = "qdgs-link-"
_PLACES = ("/tmp", "/var/tmp", "/dev/shm", "/run")  # tried after the system's own choice


def is_plain(path: Path) -> bool:
    """Whether a path holds nothing that a library may take for a pattern or an address."""
    return all(letter.isalnum() or letter in _PLAIN for letter in str(path))


@contextlib.contextmanager
def plain_path(folder: Path) -> Iterator[Path]:
    """Give a plain name of a folder, valid inside the block.

    Args:
        folder: an existing folder, any path that the system allows.

    Yields:
        The absolute path itself where it is plain, else a link to it.

    Raises:
        OSError: if no place with a plain name takes a link.
    """
    folder = folder.absolute()
    if is_plain(folder):
        yield folder
        return
    place = _link_place()
    lock = FileLock(place / LOCK)
    try:
        with contextlib.suppress(OSError, NotImplementedError):  # a file system without locks
            lock.acquire(blocking=False)
        link = place / "folder"
        link.symlink_to(folder, target_is_directory=True)
        yield link
    finally:
        lock.release()
        shutil.rmtree(place, ignore_errors=True)  # the link, not what it leads to


def _link_place() -> Path:
    """Make a folder of our own whose path is plain."""
    chosen = (os.environ.get("TMPDIR"), tempfile.gettempdir(), *_PLACES, str(Path.cwd()))
    refused: OSError | None = None
    for place in dict.fromkeys(name for name in chosen if name):
        path = Path(place).absolute()
        if not is_plain(path):
            continue
        sweep_unlocked(path, f"{_PREFIX}*")
        try:
            return Path(tempfile.mkdtemp(dir=path, prefix=_PREFIX))
        except OSError as error:
            refused = error
    raise OSError(
        "no place for a temporary link was found: set TMPDIR to a writable folder whose path holds "
        "letters, digits, dots and dashes alone."
    ) from refused
