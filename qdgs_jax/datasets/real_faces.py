"""Identities of sets of real faces as shards, to learn from.

Rows have one class, "face", and the identity as their `subject`; `cell` is the number
of the record or file that a row came from, and there is no objective and no measure. Nothing holds
a whole set: a first pass over the records notes their identities in a plan beside the shards, a
second one decodes them. An import that was stopped goes on after its last complete shard.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from qdgs_jax.datasets.manifest import (
    MANIFEST,
    Manifest,
    ShardError,
    refuse_other_dataset,
)
from qdgs_jax.datasets.plan import Plan, clear_finished, planned
from qdgs_jax.datasets.selection import Labelled
from qdgs_jax.datasets.shards import write_shards
from qdgs_jax.elites import Elites
from qdgs_jax.ports.faces.damage import Damage
from qdgs_jax.ports.faces.identity_folder import IdentityFolder
from qdgs_jax.ports.faces.recordio import FaceRecords

Progress = Callable[[int, int], None]  # images done, images in all
SHARD_SIZE = 5000  # rows: about 100 MB of faces of 112 x 112 as PNG
_TOGETHER = 64  # pictures between two reports of progress
_LISTED = 20  # damaged parts that a manifest names
_Picture = tuple[int, int, np.ndarray]  # number of the record or file, identity, UInt8[H, W, 3]


def import_records(
    folder: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    side: int | None = None,
    skip_corrupt: bool = False,
    shard_size: int = SHARD_SIZE,
    progress: Progress = lambda done, total: None,
) -> Manifest:
    """Write InsightFace's RecordIO as shards, in the order of the records.

    Args:
        folder: with `train.rec`; see `qdgs_jax.ports.faces.recordio`.
        out: folder of the shards. One that a stopped import left is gone on with.
        side: pixels per side of the pictures, others are damage; None takes the size of most.
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
        with FaceRecords(path, side=side, skip_corrupt=skip_corrupt) as records:
            whole = (record for record, _ in records.pictures())
            found = whole if skip_corrupt else records.records()
            pairs = ((record.key, record.identity) for record in found)
            keys, identities = np.fromiter(pairs, np.dtype((np.int32, 2))).T
            kept = ~records.contradicted(keys, identities)
            return Plan(face_rows(keys[kept], identities[kept]), None, notes_of(records.damage))

    def pictures(rows: Labelled, start: int) -> Iterator[_Picture]:
        with FaceRecords(path, side=side, skip_corrupt=skip_corrupt) as records:
            for record, picture in records.pictures(rows.elites.cells[start:]):
                yield record.key, record.identity, picture

    rec = path / "train.rec" if path.is_dir() else path
    settings = {
        "bytes of records": rec.stat().st_size if rec.is_file() else 0,
        "side": side,
        "skip_corrupt": skip_corrupt,
        "shard_size": shard_size,
    }
    return _write(Path(out), path, settings, plan, pictures, "InsightFace RecordIO", progress)


def import_identities(
    folder: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    side: int | None = None,
    skip_corrupt: bool = False,
    shard_size: int = SHARD_SIZE,
    progress: Progress = lambda done, total: None,
) -> Manifest:
    """Write a folder of images for each identity as shards; see `import_records`."""
    source = IdentityFolder(Path(folder).resolve(), side=side, skip_corrupt=skip_corrupt)

    def plan() -> Plan:
        numbers = np.arange(len(source))
        if skip_corrupt:
            numbers = np.array([number for number, _ in source.pictures()], np.int64)
        rows = face_rows(numbers, source.identities[numbers])
        return Plan(rows, None, (*source.passed_over, *notes_of(source.damage)))

    def pictures(rows: Labelled, start: int) -> Iterator[_Picture]:
        first = int(rows.elites.cells[start]) if start < len(rows) else len(source)
        for number, picture in source.pictures(first):
            yield number, int(source.identities[number]), picture

    settings = {
        "images": len(source),
        "the digest of their names and sizes": source.listing,
        "side": side,
        "skip_corrupt": skip_corrupt,
        "shard_size": shard_size,
    }
    return _write(Path(out), source.path, settings, plan, pictures, "folder of images", progress)


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
        face_rows(np.arange(len(images)), subjects),
        batches_of(iter(images)),
        label_names=("face",),
        measure_names=(),
        shard_size=shard_size,
        source={**(source or {}), "identities": len(np.unique(subjects))},
    )


def face_rows(numbers: np.ndarray, subjects: np.ndarray | None) -> Labelled:
    """Rows of one class, without objectives and measures.

    Args:
        numbers: Int[N], of the records or files.
        subjects: Int[N], the identities; None where nobody knows them.
    """
    count = len(numbers)
    elites = Elites(
        cells=numbers.astype(np.int32),
        objectives=np.zeros(count, np.float32),
        thresholds=np.full(count, np.nan, np.float32),
        measures=np.zeros((count, 0), np.float32),
        latents=np.zeros((count, 0), np.float32),
    )
    known = None if subjects is None else subjects.astype(np.int32)
    return Labelled(elites, np.zeros(count, np.int64), known)


def notes_of(damage: Sequence[Damage]) -> tuple[str, ...]:
    """What was left out, as sentences of a manifest."""
    more = len(damage) - _LISTED
    shown = [f"left out: {each}." for each in damage[:_LISTED]]
    return (*shown, f"left out: {more} more.") if more > 0 else tuple(shown)


def batches_of(pictures: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
    """Pictures as UInt8[B, H, W, 3]."""
    left = iter(pictures)
    while batch := list(itertools.islice(left, _TOGETHER)):
        yield np.stack(batch)


def _as_planned(
    found: Iterable[_Picture], rows: Labelled, start: int, out: Path
) -> Iterator[np.ndarray]:
    """Pictures from a row on, if these are the plan's.

    Raises:
        ShardError: the source has changed since the plan was made.
    """
    subjects = rows.subjects if rows.subjects is not None else np.zeros(len(rows), np.int32)
    row = start
    for number, subject, picture in found:
        planned_here = (
            (int(rows.elites.cells[row]), int(subjects[row])) if row < len(rows) else None
        )
        if (number, subject) != planned_here:
            break
        yield picture
        row += 1
    else:
        if row == len(rows):
            return
    raise ShardError(
        f"the set is not the one that the import to {out} began with: row {row} would be another "
        "picture or person. Delete the folder and import again."
    )


def _given_up(before: Mapping[str, Any], now: Mapping[str, Any]) -> bool:
    """Whether damage ended an import that is now to leave it out: its shards hold none of it."""
    return before == {**now, "skip_corrupt": False}


def _write(
    out: Path,
    place: Path,
    settings: Mapping[str, Any],
    make: Callable[[], Plan],
    pictures: Callable[[Labelled, int], Iterator[_Picture]],
    format_name: str,
    progress: Progress,
) -> Manifest:
    """Write the identities of a place as shards, by a plan that is made once.

    The settings tell what is there and not where, so that a set that was moved is gone on with.
    """
    if (out / MANIFEST).exists():
        clear_finished(out)
    refuse_other_dataset(out)

    def made() -> Plan:
        plan = make()
        if not len(plan.rows):
            notes = "".join(f" {note}" for note in plan.notes[:1])
            raise ShardError(f"{place} has no picture that can be read.{notes}")
        return plan

    with planned(out, settings, made, given_up=_given_up) as (plan, _):
        rows = plan.rows

        def batches(start: int) -> Iterator[np.ndarray]:
            done = start
            for batch in batches_of(_as_planned(pictures(rows, start), rows, start, out)):
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
