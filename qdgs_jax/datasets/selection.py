"""From elites to labelled rows: as equal a number as possible from every region of measure space.

A search fills an archive with one elite per cell, but not evenly: easy regions hold more elites
than rare ones. Coarse bins over the measures even that out (Chang et al. 2024, arXiv:2312.14369,
section 4), and the side of the label measure on which an elite lies is its label. Host code on
NumPy arrays: it runs once per search.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np


@dataclasses.dataclass(frozen=True)
class Rows:
    """The columns of a generated data set, without its pictures.

    Attributes:
        cells: Int[N], the archive cell of each row.
        labels: Int[N], the class.
        objectives: Float[N].
        measures: Float[N, M].
        latents: Float[N, D], or None where they are not kept.
        subjects: Int[N], rows of one person share it; None where there are no persons.
    """

    cells: np.ndarray
    labels: np.ndarray
    objectives: np.ndarray
    measures: np.ndarray
    latents: np.ndarray | None = None
    subjects: np.ndarray | None = None

    def __post_init__(self) -> None:
        if self.measures.ndim != 2:
            raise ValueError(f"measures has shape {self.measures.shape}: give Float[N, M].")
        for name, column in self.columns().items():
            if len(column) != len(self.labels):
                raise ValueError(
                    f"{name} has {len(column)} rows but labels has {len(self.labels)}: "
                    "give one entry per row in every column."
                )
            if column.dtype.kind == "f" and not np.isfinite(column).all():
                row = int(np.flatnonzero(~np.isfinite(column.reshape(len(column), -1)).all(1))[0])
                raise ValueError(f"{name} of row {row} is not finite: leave such rows out.")

    def __len__(self) -> int:
        return len(self.labels)

    def columns(self) -> dict[str, np.ndarray]:
        """The columns that are there, by name."""
        columns = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return {name: column for name, column in columns.items() if column is not None}

    def take(self, indices: np.ndarray) -> Rows:
        """The rows at `indices`, in that order."""
        return Rows(**{name: column[indices] for name, column in self.columns().items()})


def labels_of(measures: np.ndarray, label_measure: int) -> np.ndarray:
    """Class of each row: 0 where the label measure is negative, else 1.

    Small measures are near the positive prompt, so class 0 is what the positive prompt says.

    Args:
        measures: Float[N, M].
        label_measure: index j of the label measure.

    Returns:
        Int[N] of 0 and 1.
    """
    if not 0 <= label_measure < measures.shape[1]:
        raise ValueError(
            f"label_measure is {label_measure} but there are {measures.shape[1]} measures: "
            f"give an index from 0 to {measures.shape[1] - 1}."
        )
    return (measures[:, label_measure] >= 0).astype(np.int64)


def sure_labels(measures: np.ndarray, label_measure: int, margin: float) -> np.ndarray:
    """Rows whose label measure is at least `margin` from the boundary 0, as Bool[N].

    A scorer is least reliable near its boundary, and a wrong label does more harm than a missing
    picture.

    Raises:
        ValueError: `margin` is negative, or no row is left.
    """
    if margin < 0:
        raise ValueError(f"margin is {margin}: give 0 or a distance from the boundary.")
    sure: np.ndarray = np.abs(measures[:, label_measure]) >= margin
    if len(sure) and not sure.any():
        largest = float(np.abs(measures[:, label_measure]).max())
        raise ValueError(
            f"margin is {margin} but no label measure is farther than {largest:.3g} from the "
            "boundary: give a smaller margin."
        )
    return sure


def bins_of(
    measures: np.ndarray, bins: Sequence[int], ranges: Sequence[tuple[float, float]]
) -> np.ndarray:
    """Row-major index Int[N] of the measure bin of each row; values beyond a range go to its edge.

    Args:
        measures: Float[N, M].
        bins: number of bins per measure.
        ranges: (low, high) per measure.
    """
    if not len(bins) == len(ranges) == measures.shape[1]:
        raise ValueError(
            f"{len(bins)} bins and {len(ranges)} ranges for {measures.shape[1]} measures: "
            "give one bin count and one (low, high) pair per measure."
        )
    if min(bins) < 1 or any(low >= high for low, high in ranges):
        raise ValueError(
            f"bins {tuple(bins)} over ranges {tuple(ranges)}: every count must be at least 1 and "
            "every range (low, high) with low < high."
        )
    low, high = np.asarray(ranges, np.float64).T
    position = (measures - low) / (high - low) * np.asarray(bins)
    index = np.clip(np.floor(position), 0, np.asarray(bins) - 1).astype(np.int64)
    return np.ravel_multi_index(tuple(index.T), tuple(bins))


def balance(bins: np.ndarray, objectives: np.ndarray, cells: np.ndarray, count: int) -> np.ndarray:
    """Choose rows so that the bins share them as equally as their sizes allow.

    The bins take turns, each giving its best remaining row; a bin that has run out is passed over.
    In the last, incomplete round the best rows win. So no bin gives two rows more than another that
    still has some, and the first k rows of the choice are balanced too.

    Args:
        bins: Int[N], bin of each row.
        objectives: Float[N]; inside a bin the larger comes first.
        cells: Int[N]; of equal objectives the lower cell comes first.
        count: number of rows wanted; all rows are taken where there are fewer.

    Returns:
        Int[min(count, N)], indices of the chosen rows.
    """
    best_first = np.lexsort((cells, -objectives, bins))
    start_of_bin = np.searchsorted(bins[best_first], bins[best_first])
    turn = np.empty(len(bins), np.int64)
    turn[best_first] = np.arange(len(bins)) - start_of_bin
    return np.lexsort((cells, -objectives, turn))[:count]


def select_elites(
    *,
    cells: np.ndarray,
    latents: np.ndarray,
    objectives: np.ndarray,
    measures: np.ndarray,
    count: int,
    bins: Sequence[int],
    ranges: Sequence[tuple[float, float]],
    label_measure: int,
    margin: float = 0.0,
) -> Rows:
    """Choose and label elites, balanced over the measure bins.

    Args:
        cells: Int[N], archive cell of each elite.
        latents: Float[N, D].
        objectives: Float[N].
        measures: Float[N, M].
        count: number of rows wanted; an archive with fewer elites gives them all.
        bins: number of measure bins per measure.
        ranges: (low, high) per measure, the archive's.
        label_measure: index of the measure whose sides are the classes.
        margin: elites whose label measure is nearer to the boundary than this are left out.

    Returns:
        The chosen rows. Equal input gives equal rows, and the order of the input does not matter.

    Raises:
        ValueError: there are no elites, or none beyond the margin, `count` is not positive, or
            shapes and settings disagree.
    """
    if count < 1:
        raise ValueError(f"count is {count}: ask for at least one image.")
    if len(cells) == 0:
        raise ValueError("the archive has no elites to select from: search longer first.")
    measures = np.asarray(measures, np.float32)
    rows = Rows(
        cells=np.asarray(cells, np.int64),
        labels=labels_of(measures, label_measure),
        objectives=np.asarray(objectives, np.float32),
        measures=measures,
        latents=np.asarray(latents, np.float32),
    )
    rows = rows.take(np.flatnonzero(sure_labels(rows.measures, label_measure, margin)))
    chosen = balance(bins_of(rows.measures, bins, ranges), rows.objectives, rows.cells, count)
    return rows.take(chosen)
