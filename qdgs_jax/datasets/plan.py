"""What a data set is going to hold, kept beside its shards until the last of them is there.

The plan is made before the first picture is drawn: the chosen rows with their latents, labels and
subjects, and the latent augmentations. A command that was stopped goes on by it and chooses nothing
anew, so that what it writes is what an undisturbed one would have written, on any machine that
draws equal pictures. The plan's name begins with an underscore, which pandas and pyarrow pass over;
its latents stay on the disk and are read as they are drawn.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import filelock
import numpy as np

from qdgs_jax.datasets.manifest import PLAN, ShardError
from qdgs_jax.datasets.selection import Labelled
from qdgs_jax.files import appearing_folder, sweep

_ABOUT = "plan.json"
_FORMAT = "qdgs-plan-1"
_AUGMENTATIONS = "augmentations_of_latents"  # the rows to add, beside the columns of the data set


@dataclasses.dataclass(frozen=True)
class Plan:
    """The rows of a data set to be.

    Attributes:
        rows: an image each, or several where there are augmentations.
        augmentations: Float[A, D], what is added to each latent; None for images of the latents.
        notes: what is doubtful about the rows, in sentences.
    """

    rows: Labelled
    augmentations: np.ndarray | None
    notes: tuple[str, ...]


@contextlib.contextmanager
def planned(
    folder: Path,
    settings: Mapping[str, Any],
    make: Callable[[], Plan],
    *,
    replaces: Mapping[str, Any] | None = None,
) -> Iterator[tuple[Plan, bool]]:
    """The plan of a data set: that which a stopped command left, or a new one.

    Inside the block no other process writes here. The plan stays when the block fails, and goes
    when it ends.

    Args:
        folder: of the shards; made if needed.
        settings: all that the data set follows from, as plain values by name.
        make: makes the plan, where there is none.
        replaces: settings whose plan, if a stopped command left it, is made anew; its complete
            shards stay, so their rows have to be the same.

    Yields:
        The plan, and whether a stopped command left it.

    Raises:
        ShardError: a stopped command left the plan of another data set, what differs is named; the
            plan is damaged; or another process writes here.
        OSError: the disk is full; an empty folder may be left.
    """
    place = folder / PLAN
    left = place.is_dir() and (replaces is None or _settings(place) != dict(replaces))
    if not left:
        made = make()
        if place.is_dir():
            with _locked(folder):
                shutil.rmtree(place)
        folder.mkdir(parents=True, exist_ok=True)
        sweep(folder, PLAN)
        _write(place, settings, made)
    with _locked(folder):
        yield _read(place, settings), left
    shutil.rmtree(place)


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Keep other processes from a plan."""
    lock = filelock.FileLock(folder / PLAN / "lock", timeout=0)
    try:
        lock.acquire()
    except filelock.Timeout:
        raise ShardError(f"another process is writing a data set to {folder}.") from None
    try:
        yield
    finally:
        lock.release()


def clear_finished(folder: Path) -> None:
    """Remove the plan of a data set that is complete, which a command was stopped before doing."""
    shutil.rmtree(folder / PLAN, ignore_errors=True)


def _write(place: Path, settings: Mapping[str, Any], plan: Plan) -> None:
    columns = dict(plan.rows.columns())
    if plan.augmentations is not None:
        columns[_AUGMENTATIONS] = plan.augmentations
    about = {
        "format": _FORMAT,
        "settings": dict(settings),
        "columns": list(columns),
        "notes": list(plan.notes),
    }
    try:
        with appearing_folder(place) as inside:
            for name, column in columns.items():
                with (inside / f"{name}.npy").open("wb") as file:
                    np.save(file, column, allow_pickle=False)
                    file.flush()
                    os.fsync(file.fileno())
            with (inside / _ABOUT).open("w", encoding="utf-8") as text:
                json.dump(about, text, indent=1)
                text.flush()
                os.fsync(text.fileno())
    except OSError as error:
        size = sum(column.nbytes for column in columns.values())
        raise OSError(
            error.errno,
            f"{error.strerror} while writing the plan of a data set, {size:,} bytes; nothing of it "
            "is left behind: make room or give a folder on another disk, then run again",
            str(place),
        ) from error


def _settings(place: Path) -> dict[str, Any] | None:
    """Settings of a plan; None where they cannot be read."""
    try:
        return dict(json.loads((place / _ABOUT).read_text(encoding="utf-8"))["settings"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _read(place: Path, settings: Mapping[str, Any]) -> Plan:
    try:
        about = json.loads((place / _ABOUT).read_text(encoding="utf-8"))
        if about["format"] != _FORMAT:
            raise ValueError(f'"format" is not "{_FORMAT}"')
        was = dict(about["settings"])
        columns = {
            name: np.load(place / f"{name}.npy", mmap_mode="r", allow_pickle=False)
            for name in about["columns"]
        }
        notes = tuple(about["notes"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ShardError(
            f"{place.parent} holds part of a data set whose plan cannot be read ({error}): delete "
            "the folder and write it anew."
        ) from None
    now = json.loads(json.dumps(dict(settings)))
    changed = [
        f"{name} was {was.get(name)!r} and is {now.get(name)!r}"
        for name in dict.fromkeys([*was, *now])
        if was.get(name) != now.get(name)
    ]
    if changed:
        raise ShardError(
            f"{place.parent} holds part of another data set, which is not this one: "
            f"{'; '.join(changed)}. Repeat the command that began it, give another folder, or "
            "delete this one first."
        )
    augmentations = columns.pop(_AUGMENTATIONS, None)
    return Plan(Labelled.from_columns(columns), augmentations, notes)
