"""Whether shards are still those that somebody began with, without reading all of them again.

A manifest has the SHA-256 of each shard, but to compare them reads every byte: minutes for 100 GB,
at each start. So a note keeps each shard's size and time of change. A shard of which both are as
noted is taken for the same; any other, whether it was changed, copied, moved or touched, is read
once and compared with its digest.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path

from qdgs_jax.datasets.manifest import MANIFEST, Manifest, ShardError
from qdgs_jax.files import write_atomically


def check_unchanged(
    folder: str | os.PathLike[str],
    manifest: Manifest,
    note: Path,
    *,
    begun: bool,
    told: Callable[[str], None] = lambda text: None,
) -> None:
    """Compare shards with what a note says of them, and write the note anew.

    Args:
        folder: of the shards.
        manifest: theirs.
        note: a file, whose folder exists.
        begun: whether something began with these shards before. Without a note, all are compared
            with their digests then; otherwise they are only noted.
        told: is told which shards are read again, before that takes its time.

    Raises:
        ShardError: a shard is not the one of the manifest.
        OSError: the note cannot be written.
    """
    now = {shard.file: _state(Path(folder) / shard.file) for shard in manifest.shards}
    before = _read(note)
    if before is None:
        before = {} if begun else now
    doubtful = [shard for shard in manifest.shards if before.get(shard.file) != now[shard.file]]
    if doubtful:
        size = sum(now[shard.file][0] for shard in doubtful) / 1e9
        told(
            f"{folder}: {len(doubtful):,} of {len(now):,} shards, {size:.2g} GB, have another size "
            "or time of change than before: they are compared with their checksums"
        )
    for shard in doubtful:
        file = Path(folder) / shard.file
        if _digest(file) != shard.sha256:
            raise ShardError(
                f"{file} was changed: it differs from its checksum in {MANIFEST}, and what was "
                "begun with it cannot go on with other pictures. Copy the data set again; or write "
                "it anew, and begin anew."
            )
    if now != before or not note.is_file():
        write_atomically(note, json.dumps(now, indent=1).encode())


def _state(file: Path) -> list[int]:
    """Size in bytes and time of change in ns."""
    try:
        found = file.stat()
    except OSError as error:
        raise ShardError(f"{file} cannot be read: {error.strerror}.") from None
    return [found.st_size, found.st_mtime_ns]


def _digest(file: Path) -> str:
    try:
        with file.open("rb") as opened:
            return hashlib.file_digest(opened, "sha256").hexdigest()
    except OSError as error:
        raise ShardError(f"{file} cannot be read: {error.strerror}.") from None


def _read(note: Path) -> dict[str, list[int]] | None:
    """What a note says; None where there is none that can be read."""
    try:
        found = json.loads(note.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None
