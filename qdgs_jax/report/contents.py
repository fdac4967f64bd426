"""What a report shows, as plain data: the seam between run folders and the page."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import numpy as np

from qdgs_jax.datasets.balance import Balance
from qdgs_jax.datasets.selection import Labelled
from qdgs_jax.elites import Elites
from qdgs_jax.experiments.protocol import Section


@dataclasses.dataclass(frozen=True)
class MeasureAxis:
    """A measure: its range, its cells and what its two ends mean."""

    name: str
    low: float
    high: float
    cells: int
    low_text: str
    high_text: str


@dataclasses.dataclass(frozen=True)
class Link:
    """A file of the run: its name in the run's folder, its address beside the page, its bytes."""

    name: str
    address: str
    size: int


@dataclasses.dataclass(frozen=True)
class Arm:
    """A search: the run's own or its baseline's.

    Attributes:
        name: how the page calls it, by its algorithm.
        elites: of its archive as maps show them; cells are row-major over the measures.
        evaluations, qd_scores, coverages: Float[T], over the search.
        seconds: how long the search took.
        data: its data set, or None.
        balance: what classes and bins of the data set were asked and got, or None.
        notes: what is doubtful about the data set, in sentences.
        pictures: thumbnails UInt8[h, w, 3] of elites by cell, as far as they were kept.
        files: what else there is of it.
        occupied: elites of the archive itself, and its cells, where these are not the maps' own.
        own_cells: the archive's cell of each elite, by its cell on the maps; None where the maps'
            cells are the archive's.
    """

    name: str
    elites: Elites
    evaluations: np.ndarray
    qd_scores: np.ndarray
    coverages: np.ndarray
    seconds: float = 0.0
    data: Labelled | None = None
    balance: Balance | None = None
    notes: tuple[str, ...] = ()
    pictures: Mapping[int, np.ndarray] = dataclasses.field(default_factory=dict)
    files: tuple[Link, ...] = ()
    occupied: tuple[int, int] | None = None
    own_cells: Mapping[int, int] | None = None


@dataclasses.dataclass(frozen=True)
class Atlas:
    """Decoded elites laid out over a pair of measures.

    Attributes:
        pair: indices of the measures that run to the right and upwards.
        sprite: a PNG with the tiles in their places; places without an elite are transparent.
        columns, rows: number of places.
        places: Int[P, 2], column and line of each image; line 0 is at the bottom.
        cells: Int[P], whose elites they show.
    """

    pair: tuple[int, int]
    sprite: bytes
    columns: int
    rows: int
    places: np.ndarray
    cells: np.ndarray


@dataclasses.dataclass(frozen=True)
class ReportData:
    """Everything on the page.

    Attributes:
        name: of the run.
        measures: axes of diversity.
        arms: the run's own search first, its baseline's second if there is one.
        run_file: text of the run file.
        provenance: what the run was made with, by name; empty where it was not kept.
        atlases: one per pair of measures; none where no data set was generated.
        sections: what experiments have to show.
        qd_score_offset: what the QD-score subtracts from every objective.
    """

    name: str
    measures: tuple[MeasureAxis, ...]
    arms: tuple[Arm, ...]
    run_file: str
    provenance: Mapping[str, str]
    atlases: tuple[Atlas, ...] = ()
    sections: tuple[Section, ...] = ()
    qd_score_offset: float = 0.0
