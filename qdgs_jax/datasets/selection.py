"""From elites to labelled rows: as equal a number as possible from every region of measure space.

A search fills an archive with one elite per cell, but not evenly: easy regions hold more elites
than rare ones. Coarse bins over the measures even that out (Chang et al. 2024, arXiv:2312.14369,
section 4); a bin that a class boundary crosses counts once for each class. Host code on NumPy
arrays: it runs once per search.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

from qdgs_jax.datasets.labels import LabelRule
from qdgs_jax.elites import Elites


@dataclasses.dataclass(frozen=True)
class Labelled:
    """A generated data set without its pictures: elites and what they are called.

    Attributes:
        elites: N rows; latents Float[N, 0] where they are not kept.
        labels: Int[N], the class.
        subjects: Int[N], rows of one person share it; None where there are no persons.
        augmentations: Int[N], which latent augmentation shows the elite; None where there are none.

    Raises:
        ValueError: columns differ in length or a number is not finite.
    """

    elites: Elites
    labels: np.ndarray
    subjects: np.ndarray | None = None
    augmentations: np.ndarray | None = None

    def __post_init__(self) -> None:
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
        """The columns that a data set keeps, by name."""
        found = {
            "labels": self.labels,
            "cells": self.elites.cells,
            "objectives": self.elites.objectives,
        }
        if self.elites.measures.shape[1]:
            found["measures"] = self.elites.measures
        if self.elites.latents.shape[1]:
            found["latents"] = self.elites.latents
        if self.subjects is not None:
            found["subjects"] = self.subjects
        if self.augmentations is not None:
            found["augmentations"] = self.augmentations
        return found

    def take(self, indices: np.ndarray) -> Labelled:
        """The rows at `indices`, in that order."""
        subjects, augmentations = (
            None if column is None else column[indices]
            for column in (self.subjects, self.augmentations)
        )
        elites = self.elites.take(indices)
        return Labelled(elites, self.labels[indices], subjects, augmentations)

    def under(self, count: int) -> Labelled:
        """Each row `count` times, as many augmentations show it; its latent shows but one."""
        elites = dataclasses.replace(self.elites, latents=self.elites.latents[:, :0])
        rows = dataclasses.replace(self, elites=elites).take(np.repeat(np.arange(len(self)), count))
        numbers = np.tile(np.arange(count, dtype=np.int32), len(self))
        return dataclasses.replace(rows, augmentations=numbers)

    @classmethod
    def from_columns(cls, columns: Mapping[str, np.ndarray]) -> Labelled:
        """Put columns together again, as `columns` gives them."""
        count = len(columns["labels"])
        elites = Elites(
            cells=columns["cells"],
            objectives=columns["objectives"],
            thresholds=np.full(count, np.nan, np.float32),
            measures=columns.get("measures", np.zeros((count, 0), np.float32)),
            latents=columns.get("latents", np.zeros((count, 0), np.float32)),
        )
        optional = (columns.get(name) for name in ("subjects", "augmentations"))
        return cls(elites, columns["labels"], *optional)


def bin_positions(
    measures: np.ndarray, bins: Sequence[int], ranges: Sequence[tuple[float, float]]
) -> np.ndarray:
    """Measure bin of each row, Int[N, M]; values beyond a range go to its edge.

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
    return np.clip(np.floor(position), 0, np.asarray(bins) - 1).astype(np.int64)


def bins_of(
    measures: np.ndarray, bins: Sequence[int], ranges: Sequence[tuple[float, float]]
) -> np.ndarray:
    """Row-major index Int[N] of the measure bin of each row, see `bin_positions`."""
    return np.ravel_multi_index(tuple(bin_positions(measures, bins, ranges).T), tuple(bins))


def groups_of(
    rows: Labelled, bins: Sequence[int], ranges: Sequence[tuple[float, float]]
) -> np.ndarray:
    """Group Int[N] of each row: its class and its measure bin, see `bin_positions`."""
    return rows.labels * int(np.prod(bins)) + bins_of(rows.elites.measures, bins, ranges)


def balance(
    groups: np.ndarray, objectives: np.ndarray, cells: np.ndarray, count: int
) -> np.ndarray:
    """Choose rows so that the groups share them as equally as their sizes allow.

    The groups take turns, each giving its best remaining row; a group that has run out is passed
    over. In the last, incomplete round the best rows win. So no group gives two rows more than
    another that still has some, and the first k rows of the choice are balanced too.

    Args:
        groups: Int[N], group of each row.
        objectives: Float[N]; inside a group the larger comes first.
        cells: Int[N]; of equal objectives the lower cell comes first.
        count: number of rows wanted; all rows are taken where there are fewer.

    Returns:
        Int[min(count, N)], indices of the chosen rows.
    """
    best_first = np.lexsort((cells, -objectives, groups))
    start_of_group = np.searchsorted(groups[best_first], groups[best_first])
    turn = np.empty(len(groups), np.int64)
    turn[best_first] = np.arange(len(groups)) - start_of_group
    return np.lexsort((cells, -objectives, turn))[:count]


def select_elites(
    elites: Elites,
    rule: LabelRule,
    *,
    count: int,
    bins: Sequence[int],
    ranges: Sequence[tuple[float, float]],
) -> Labelled:
    """Choose and label elites, balanced over classes and measure bins.

    Args:
        elites: those of an archive.
        rule: how measures become labels; elites that are not sure by it are left out.
        count: number of rows wanted; an archive with fewer elites gives them all.
        bins: number of measure bins per measure.
        ranges: (low, high) per measure, the archive's.

    Returns:
        The chosen rows. Equal input gives equal rows, and the order of the input does not matter.

    Raises:
        ValueError: there are no elites, or none beyond the margin, `count` is not positive, or
            shapes and settings disagree.
    """
    if count < 1:
        raise ValueError(f"count is {count}: ask for at least one image.")
    if len(elites) == 0:
        raise ValueError("the archive has no elites to select from: search longer first.")
    without = dataclasses.replace(elites, latents=elites.latents[:, :0])  # large, and copied once
    sure = np.flatnonzero(rule.sure(elites.measures))
    rows = label(without, rule)
    groups = groups_of(rows, bins, ranges)
    chosen = balance(groups, rows.elites.objectives, rows.elites.cells, count)
    return Labelled(elites.take(sure[chosen]), rows.labels[chosen])


def label(elites: Elites, rule: LabelRule) -> Labelled:
    """Label elites; those too near to a cut are left out.

    Raises:
        ValueError: none is far enough.
    """
    sure = elites.take(np.flatnonzero(rule.sure(elites.measures)))
    return Labelled(sure, rule.labels(sure.measures))
