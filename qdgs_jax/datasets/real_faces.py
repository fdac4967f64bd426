"""Sets of real faces as shards: identities to learn from, and pairs to verify.

Rows of identities have one class, "face", and the identity as their `subject`; `cell` is the number
of the record or file that a row came from, and there is no objective and no measure. Nothing holds
a whole set: a first pass over the records notes their identities in a plan beside the shards, a
second one decodes them. An import that was stopped goes on after its last complete shard.
"""

from __future__ import annotations

import dataclasses
import itertools
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from qdgs_jax.datasets.manifest import (
    MANIFEST,
    Manifest,
    ShardError,
    read_manifest,
    refuse_other_dataset,
)
from qdgs_jax.datasets.plan import Plan, clear_finished, planned
from qdgs_jax.datasets.png import decode_png
from qdgs_jax.datasets.selection import Labelled
from qdgs_jax.datasets.shards import read_table, write_shards
from qdgs_jax.elites import Elites
from qdgs_jax.ports.faces.damage import Damage
from qdgs_jax.ports.faces.identity_folder import IdentityFolder
from qdgs_jax.ports.faces.pairs import FacePairs
from qdgs_jax.ports.faces.recordio import FaceRecords

Progress = Callable[[int, int], None]  # images done, images in all
SHARD_SIZE = 5000  # rows: about 100 MB of faces of 112 x 112 as PNG
_TOGETHER = 64  # pictures between two reports of progress
_LISTED = 20  # damaged parts that a manifest names
_WORDS = ("different", "same")


def import_records(
    folder: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    skip_corrupt: bool = False,
    shard_size: int = SHARD_SIZE,
    progress: Progress = lambda done, total: None,
) -> Manifest:
    """Write InsightFace's RecordIO as shards, in the order of the records.

    Args:
        folder: with `train.rec`; see `qdgs_jax.ports.faces.recordio`.
        out: folder of the shards. One that a stopped import left is gone on with.
        skip_corrupt: leave damaged records out; the manifest's notes name them. The first pass then
            decodes every picture.
        shard_size: rows per shard.
        progress: told after each few images.

    Raises:
        FaceSetError: a record is damaged (unless skipped); complete shards stay.
        ShardError: `out` holds a data set, or part of another one.
        OSError: the disk is full; complete shards stay.
    """
    path = Path(folder).resolve()

    def plan() -> Plan:
        with FaceRecords(path, skip_corrupt=skip_corrupt) as records:
            whole = (record for record, _ in records.pictures())
            found = whole if skip_corrupt else records.records()
            pairs = ((record.key, record.identity) for record in found)
            keys, identities = np.fromiter(pairs, np.dtype((np.int32, 2))).T
            return Plan(_rows(keys, identities), None, _notes(records.damage))

    def pictures(rows: Labelled, start: int) -> Iterator[np.ndarray]:
        with FaceRecords(path, skip_corrupt=skip_corrupt) as records:
            for _, picture in records.pictures(rows.elites.cells[start:]):
                yield picture

    rec = path / "train.rec" if path.is_dir() else path
    settings = {
        "records": str(path),
        "bytes": rec.stat().st_size if rec.is_file() else 0,
        "skip_corrupt": skip_corrupt,
        "shard_size": shard_size,
    }
    return _write(Path(out), settings, plan, pictures, "InsightFace RecordIO", progress)


def import_identities(
    folder: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    skip_corrupt: bool = False,
    shard_size: int = SHARD_SIZE,
    progress: Progress = lambda done, total: None,
) -> Manifest:
    """Write a folder of images for each identity as shards; see `import_records`."""
    source = IdentityFolder(Path(folder).resolve(), skip_corrupt=skip_corrupt)

    def plan() -> Plan:
        numbers = np.arange(len(source))
        if skip_corrupt:
            numbers = np.array([number for number, _ in source.pictures()], np.int64)
        rows = _rows(numbers, source.identities[numbers])
        return Plan(rows, None, _notes(source.damage))

    def pictures(rows: Labelled, start: int) -> Iterator[np.ndarray]:
        first = int(rows.elites.cells[start]) if start < len(rows) else len(source)
        return (picture for _, picture in source.pictures(first))

    settings = {
        "images": str(source.path),
        "files": len(source),
        "skip_corrupt": skip_corrupt,
        "shard_size": shard_size,
    }
    return _write(Path(out), settings, plan, pictures, "folder of images", progress)


def write_identities(
    out: str | os.PathLike[str],
    images: np.ndarray,
    subjects: np.ndarray,
    *,
    source: Mapping[str, Any] | None = None,
    shard_size: int = SHARD_SIZE,
) -> Manifest:
    """Write pictures of identities that are in memory as shards, as imports write theirs.

    Args:
        out: folder of the shards.
        images: UInt8[N, S, S, 3], red first.
        subjects: Int[N], the identity of each.
        source: where they came from.
        shard_size: rows per shard.

    Raises:
        ShardError: the folder holds a data set.
        OSError: the disk is full; nothing is left behind.
    """
    return write_shards(
        out,
        _rows(np.arange(len(images)), subjects),
        _batches(iter(images)),
        label_names=("face",),
        measure_names=(),
        shard_size=shard_size,
        source={**(source or {}), "identities": len(np.unique(subjects))},
    )


def write_pairs(
    out: str | os.PathLike[str], pairs: FacePairs, *, source: Mapping[str, Any] | None = None
) -> Manifest:
    """Write pairs for verification as shards, two rows each, which `read_pairs` reads.

    Args:
        out: folder of the shards.
        pairs: P pairs. The class of a row says "same" or "different", with the pair's group where
            there are groups; its `subject` is the number of the pair.
        source: where they came from.

    Raises:
        ShardError: the folder holds a data set.
        OSError: the disk is full; nothing is left behind.
    """
    names = sorted(set(pairs.groups))
    labels = pairs.same.astype(np.int64)
    if names:
        labels = labels + 2 * np.array([names.index(group) for group in pairs.groups])
    rows = _rows(np.arange(2 * len(pairs)), np.repeat(np.arange(len(pairs)), 2))
    shown = [f"{name}: {word}" for name in names for word in _WORDS] if names else list(_WORDS)
    return write_shards(
        out,
        dataclasses.replace(rows, labels=np.repeat(labels, 2)),
        _batches(iter(pairs.images)),
        label_names=shown,
        measure_names=(),
        shard_size=SHARD_SIZE,
        source={**(source or {}), "pairs": len(pairs), "groups": names},
        notes=_notes(pairs.damage),
    )


def read_pairs(folder: str | os.PathLike[str], *, verify: bool = False) -> FacePairs:
    """Read the pairs that `write_pairs` wrote.

    Args:
        folder: of the shards.
        verify: compare the shards with their checksums first.

    Raises:
        ShardError: there is no complete data set, or it holds no pairs.
    """
    manifest = read_manifest(folder, verify=verify)
    names = manifest.source.get("groups")
    if "pairs" not in manifest.source or not isinstance(names, list):
        raise ShardError(
            f"{folder} holds no pairs: give a folder written by `qdgs import verification`."
        )
    table = read_table(folder, ["image", "label"])
    images = np.stack([decode_png(content) for content in _contents(table["image"])])
    labels = table["label"].to_numpy()[::2]
    groups = tuple(str(names[label // 2]) for label in labels) if names else ()
    return FacePairs(images, (labels % 2).astype(np.bool_), groups)


def _contents(column: pa.ChunkedArray) -> Iterator[bytes]:
    return (picture["bytes"].as_py() for picture in column)


def _rows(numbers: np.ndarray, subjects: np.ndarray) -> Labelled:
    """Rows of one class, without objectives and measures."""
    count = len(numbers)
    elites = Elites(
        cells=numbers.astype(np.int32),
        objectives=np.zeros(count, np.float32),
        thresholds=np.full(count, np.nan, np.float32),
        measures=np.zeros((count, 0), np.float32),
        latents=np.zeros((count, 0), np.float32),
    )
    return Labelled(elites, np.zeros(count, np.int64), subjects.astype(np.int32))


def _notes(damage: Sequence[Damage]) -> tuple[str, ...]:
    """What was left out, as sentences of a manifest."""
    more = len(damage) - _LISTED
    shown = [f"left out: {each}." for each in damage[:_LISTED]]
    return (*shown, f"left out: {more} more.") if more > 0 else tuple(shown)


def _batches(pictures: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
    """Pictures as UInt8[B, H, W, 3]."""
    left = iter(pictures)
    while batch := list(itertools.islice(left, _TOGETHER)):
        yield np.stack(batch)


def _write(
    out: Path,
    settings: Mapping[str, Any],
    make: Callable[[], Plan],
    pictures: Callable[[Labelled, int], Iterator[np.ndarray]],
    format_name: str,
    progress: Progress,
) -> Manifest:
    """Write identities as shards, by a plan that is made once."""
    if (out / MANIFEST).exists():
        clear_finished(out)
    refuse_other_dataset(out)
    # What is before the first damage is the same with it left out, so complete shards stay.
    whole = {**settings, "skip_corrupt": False} if settings["skip_corrupt"] else None
    with planned(out, settings, make, replaces=whole) as (plan, _):
        rows = plan.rows
        if not len(rows):
            raise ShardError(f"{next(iter(settings.values()))} has no picture that can be read.")

        def batches(start: int) -> Iterator[np.ndarray]:
            done = start
            for batch in _batches(pictures(rows, start)):
                yield batch
                done += len(batch)
                progress(done, len(rows))

        subjects = rows.subjects if rows.subjects is not None else np.zeros(0, np.int32)
        return write_shards(
            out,
            rows,
            batches,
            label_names=("face",),
            measure_names=(),
            shard_size=int(settings["shard_size"]),
            source={"format": format_name, "identities": len(np.unique(subjects))},
            notes=plan.notes,
        )
