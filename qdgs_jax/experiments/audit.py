"""Audits: looking at the images of a run's data set, of its baseline's, and of others beside.

Every image is looked at again, whoever made it, so that all data sets are measured by the same
ruler: the run's CLIP, and an oracle if there is one. Only a batch of images is held at a time.
"""

from __future__ import annotations

import dataclasses
import datetime
import importlib.metadata
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Protocol

import jax
import numpy as np

from qdgs_jax.datasets.audit import (
    PAPER,
    TIMES,
    UNCLEAR,
    Attribute,
    Audit,
    DataSet,
    cross_codes,
    cross_names,
    spread_over,
    tally,
)
from qdgs_jax.datasets.labels import prompt_text
from qdgs_jax.datasets.manifest import ShardError
from qdgs_jax.datasets.pictures import Batch
from qdgs_jax.domains.faces_oracle import load_faces_oracle
from qdgs_jax.domains.zero_shot import Seen, load_zero_shot
from qdgs_jax.experiments.audit_plan import CLIP, COLUMN, ORACLE, Place, Plan
from qdgs_jax.experiments.protocol import Progress

BATCH = 50  # images looked at together
MOST_CLASSES = 100  # of a column
Codes = dict[tuple[str, str], np.ndarray]  # who tells, attribute -> Int[N]


class Onlooker(Protocol):
    """Somebody who looks at images."""

    @property
    def groups(self) -> Mapping[str, tuple[str, ...]]:
        """Names of each attribute's groups."""

    def look(self, pictures: np.ndarray) -> Seen:
        """Look at pictures UInt8[B, H, W, 3]."""


def make_audit(plan: Plan, progress: Progress = lambda done, total: None) -> Audit:
    """Look at all images of a plan, a batch at a time.

    Args:
        plan: what to look at.
        progress: told images done and images in all.

    Raises:
        CheckpointError: weights are missing, damaged or of another model.
        ShardError: a file is damaged, or no image of a data set can be decoded.
        ValueError: a text is too long, or images are too small for the oracle.
    """
    size = plan.places[0].pictures.size
    judges: dict[str, Onlooker] = {}
    if plan.judge is not None:  # before CLIP, which takes longer to load
        oracle = load_faces_oracle(plan.judge)
        oracle.check(size)
        judges[ORACLE] = oracle
    onlookers: dict[str, Onlooker] = {
        CLIP: load_zero_shot(plan.config, plan.config.audit or {}),
        **judges,
    }
    found: list[_Looked] = []
    for place in plan.places:
        done = sum(each.pictures.count for each in plan.places[: len(found)])

        def tell(rows: int, done: int = done) -> None:
            progress(done + rows, plan.images)

        found.append(_look_at(place, size, plan.columns, onlookers, tell))
    groups = {
        (by, name): names for by, each in onlookers.items() for name, names in each.groups.items()
    }
    codes = [dict(each.codes) for each in found]
    for column in plan.columns:
        names = _classes(plan.places, column, [each.values.get(column) for each in found])
        groups[COLUMN, column] = names
        number: dict[str | None, int] = {name: index for index, name in enumerate(names)}
        number[None] = UNCLEAR
        for looked, own in zip(found, codes, strict=True):
            if column in looked.values:
                own[COLUMN, column] = np.asarray([number[v] for v in looked.values[column]])
    return Audit(
        data_sets=tuple(each.data_set for each in found),
        attributes=tuple(_attributes(plan, groups, codes)),
        spread=tuple(spread_over(each.measures, plan.config) for each in found),
        source=_source(plan),
        given=PAPER if plan.paper else (),
    )


@dataclasses.dataclass(frozen=True)
class _Looked:
    """What was seen in one data set of N images.

    Attributes:
        data_set: what it is.
        codes: groups.
        values: for each column that it has, the class of each image by name.
        measures: Float[N, M].
    """

    data_set: DataSet
    codes: Codes
    values: dict[str, list[str | None]]
    measures: np.ndarray


def _look_at(
    place: Place,
    size: tuple[int, int],
    columns: Sequence[str],
    onlookers: Mapping[str, Onlooker],
    tell: Callable[[int], None],
) -> _Looked:
    """Look at one data set; `tell` is told how many of its rows are done."""
    pictures = place.pictures
    names = {column: pictures.class_names(column) for column in columns if pictures.has(column)}
    values: dict[str, list[str | None]] = {column: [] for column in names}
    groups: dict[str, list[np.ndarray]] = {by: [] for by in onlookers}
    measured: list[np.ndarray] = []
    failed: list[int] = []
    done = 0
    for batch, answers in _ahead(pictures.batches(size, BATCH, list(names)), onlookers):
        done += batch.rows
        failed += batch.failed
        count = len(batch.pictures)
        for column, known in names.items():
            values[column] += [_class_of(value, known) for value in batch.columns[column]]
        for by, answer in answers.items():
            groups[by].append(np.asarray(answer.groups)[:count])
        measured.append(np.asarray(answers[CLIP].measures)[:count])
        tell(done)
    measures = np.concatenate(measured) if measured else np.zeros((0, 0))
    if not len(measures):
        raise ShardError(f"{pictures.folder}: none of its {pictures.count} images can be decoded.")
    codes = {
        (by, name): np.concatenate(groups[by])[:, index].astype(np.int64)
        for by, onlooker in onlookers.items()
        for index, name in enumerate(onlooker.groups)
    }
    about = DataSet(
        place.name,
        place.role,
        str(pictures.folder),
        len(measures),
        tuple(failed),
        pictures.size,
        pictures.digest,
    )
    return _Looked(about, codes, values, measures)


def _ahead(
    batches: Iterator[Batch], onlookers: Mapping[str, Onlooker]
) -> Iterator[tuple[Batch, dict[str, Seen]]]:
    """Have batches looked at while the next one is decoded; the last rows are filled up."""
    waiting: tuple[Batch, dict[str, Seen]] | None = None
    for batch in batches:
        missing = BATCH - len(batch.pictures)
        filled = np.pad(batch.pictures, ((0, missing), (0, 0), (0, 0), (0, 0)))
        answers = {by: onlooker.look(filled) for by, onlooker in onlookers.items()}
        if waiting is not None:
            yield waiting
        waiting = batch, answers
    if waiting is not None:
        yield waiting


def _attributes(
    plan: Plan, groups: Mapping[tuple[str, str], tuple[str, ...]], codes: Sequence[Codes]
) -> Iterator[Attribute]:
    """All attributes and products, counted in all data sets."""

    def counted(by: str, name: str, names: tuple[str, ...], columns: Sequence[Any]) -> Attribute:
        tallies = tuple(None if each is None else tally(each, len(names)) for each in columns)
        unclear = by == ORACLE or any(each.unclear for each in tallies if each is not None)
        return Attribute(by, name, names, tallies, TIMES in name, unclear)

    for by in dict.fromkeys(by for by, _ in groups):
        own = {name: names for (who, name), names in groups.items() if who == by}
        for name, names in own.items():
            yield counted(by, name, names, [each.get((by, name)) for each in codes])
        if plan.cross and set(plan.cross) <= set(own):
            sizes = [len(own[name]) for name in plan.cross]
            crossed = [
                None
                if any((by, name) not in each for name in plan.cross)
                else cross_codes([each[by, name] for name in plan.cross], sizes)
                for each in codes
            ]
            names = cross_names([own[name] for name in plan.cross])
            yield counted(by, TIMES.join(plan.cross), names, crossed)


def _class_of(value: object, names: Sequence[str] | None) -> str | None:
    """A class by its name; None where there is none, as -1 means in data sets of others."""
    if names is None or not isinstance(value, int):
        return None if value is None else str(value)
    return names[value] if 0 <= value < len(names) else None


def _classes(
    places: Sequence[Place], column: str, values: Sequence[Sequence[str | None] | None]
) -> tuple[str, ...]:
    """All classes of a column: as the data sets name them, then what else occurs."""
    told = [
        name
        for place in places
        if place.pictures.has(column)
        for name in place.pictures.class_names(column) or ()
    ]
    others = {value for each in values for value in each or () if value is not None}
    classes = tuple(dict.fromkeys([*told, *sorted(others, key=lambda v: (len(v), v))]))
    if not 1 <= len(classes) <= MOST_CLASSES:
        raise ShardError(
            f"the column {column!r} has {len(classes)} different values: give one of 1 to "
            f"{MOST_CLASSES} classes."
        )
    return classes


def _source(plan: Plan) -> dict[str, Any]:
    """What an audit was made with."""
    config = plan.config
    device = jax.devices()[0]
    return {
        "qdgs-jax": importlib.metadata.version("qdgs-jax"),
        "jax": importlib.metadata.version("jax"),
        "device": f"{device.platform}: {device.device_kind}",
        "made": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "command": sys.argv,
        "run": config.name,
        "clip": config.domain.clip,
        "measures": {
            m.name: [prompt_text(m.positive), prompt_text(m.negative)] for m in config.measures
        },
        "groups": {
            name: {group: prompt_text(texts) for group, texts in groups.items()}
            for name, groups in (config.audit or {}).items()
        },
        "judge": plan.judge,
        "columns": list(plan.columns),
        "cross": list(plan.cross),
    }
