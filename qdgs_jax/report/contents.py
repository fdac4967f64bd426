"""What a report shows, as plain arrays: the seam between run folders and the page."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import numpy as np


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
class Arm:
    """One way of choosing latents, for example QDGS or random sampling.

    Attributes:
        name: how the page calls it.
        algorithm: its name in the run file.
        cells: Int[N], the archive's occupied cells (row-major over the measures).
        objectives: Float[N], of those cells' elites.
        evaluations, qd_scores, coverages: Float[T], over the search.
        seconds: how long the search took.
        dataset_measures: Float[K, M], measures of the images of its data set, or None.
        shares: share of the data set's images in each group, as judged by the oracle, or None.
        unclear: share of those that the oracle puts into no group.
    """

    name: str
    algorithm: str
    cells: np.ndarray
    objectives: np.ndarray
    evaluations: np.ndarray
    qd_scores: np.ndarray
    coverages: np.ndarray
    seconds: float = 0.0
    dataset_measures: np.ndarray | None = None
    shares: Mapping[str, float] | None = None
    unclear: float = 0.0


@dataclasses.dataclass(frozen=True)
class Atlas:
    """Decoded elites laid out over a pair of measures.

    Attributes:
        pair: indices of the measures that run to the right and upwards.
        sprite: a PNG with the tiles in their places; places without an elite are transparent.
        columns, rows: number of places.
        shown: how many places hold an image.
    """

    pair: tuple[int, int]
    sprite: bytes
    columns: int
    rows: int
    shown: int


@dataclasses.dataclass(frozen=True)
class Accuracy:
    """Balanced accuracy of classifiers before and after repair.

    Attributes:
        biases: colour bias of the training sets, one row each.
        arms: name of each column, the first one without repair.
        mean, standard_error: Float[biases, arms], fractions.
        seeds: classifiers behind each number.
    """

    biases: tuple[float, ...]
    arms: tuple[str, ...]
    mean: np.ndarray
    standard_error: np.ndarray
    seeds: int


@dataclasses.dataclass(frozen=True)
class ReportData:
    """Everything on the page. The first arm is the run's own, a second one its baseline."""

    name: str
    measures: tuple[MeasureAxis, ...]
    arms: tuple[Arm, ...]
    run_file: str
    versions: Mapping[str, str]
    atlases: tuple[Atlas, ...] = ()
    accuracy: Accuracy | None = None
