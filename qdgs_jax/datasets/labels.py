"""From measures to classes, by rules that a run file names.

Each label measure is cut at some points into bins, and a combination of bins is a class. The sign
of one measure (one cut at 0) tells two classes apart; two measures cut twice each, nine (Chang et
al. 2024, arXiv:2312.14369: skin tone x gender). Small measures are near the positive prompt, so the
first bin is what the positive prompt says and the last what the negative one says.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Sequence

import numpy as np

from qdgs_jax.runs.config import RunConfig
from qdgs_jax.runs.dataset_table import SIGN, check_room

Interval = tuple[float, float]


@dataclasses.dataclass(frozen=True)
class LabelRule:
    """How measures become labels.

    Attributes:
        measures: index of each label measure.
        cuts: for each of them its ascending cut points; k points make k + 1 bins.
        names: name of each class; the bins of the last measure run fastest.
        margin: rows nearer than this to a cut are too unsure to be labelled.
    """

    measures: tuple[int, ...]
    cuts: tuple[tuple[float, ...], ...]
    names: tuple[str, ...]
    margin: float = 0.0

    def __post_init__(self) -> None:
        if not self.measures or len(self.measures) != len(self.cuts) or not all(self.cuts):
            raise ValueError(
                f"label measures {self.measures} with the cuts {self.cuts}: give at least one cut "
                "point per label measure."
            )
        if any(a >= b for cuts in self.cuts for a, b in itertools.pairwise(cuts)):
            raise ValueError(f"cuts {self.cuts}: the cut points of a measure must ascend.")
        if len(self.names) != math.prod(self.sizes) or len(set(self.names)) != len(self.names):
            raise ValueError(
                f"{math.prod(self.sizes)} classes are named {self.names}: give as many names, each "
                "once."
            )
        if not self.margin >= 0:
            raise ValueError(f"margin is {self.margin}: give 0 or a distance from the boundary.")
        for cuts in self.cuts:
            check_room(cuts, self.margin)

    @property
    def sizes(self) -> tuple[int, ...]:
        """Bins per label measure."""
        return tuple(len(cuts) + 1 for cuts in self.cuts)

    def labels(self, measures: np.ndarray) -> np.ndarray:
        """Class of each row; a value at a cut belongs to the bin above it.

        Args:
            measures: Float[N, M].

        Returns:
            Int[N].

        Raises:
            ValueError: there is no measure of an index.
        """
        bins = [
            np.searchsorted(cuts, column, side="right")
            for column, cuts in zip(self._columns(measures), self.cuts, strict=True)
        ]
        return np.ravel_multi_index(bins, self.sizes).astype(np.int64)

    def distances(self, measures: np.ndarray) -> np.ndarray:
        """Distance Float[N] of each row from the nearest cut of any label measure."""
        near = [
            np.abs(column[:, None] - np.asarray(cuts)).min(axis=1)
            for column, cuts in zip(self._columns(measures), self.cuts, strict=True)
        ]
        nearest: np.ndarray = np.min(near, axis=0)
        return nearest

    def sure(self, measures: np.ndarray) -> np.ndarray:
        """Rows at least `margin` from every cut, as Bool[N].

        A scorer is least reliable near a cut, and a wrong label does more harm than a missing
        picture.

        Raises:
            ValueError: no row is left.
        """
        distances = self.distances(measures)
        sure: np.ndarray = distances >= self.margin
        if len(sure) and not sure.any():
            raise ValueError(
                f"margin is {self.margin} but no label measure is farther than "
                f"{distances.max():.3g} from the boundary: give a smaller margin."
            )
        return sure

    def intervals(self, label: int) -> dict[int, Interval]:
        """Where the sure rows of a class lie: for each label measure its (low, high)."""
        found = {}
        bins = np.unravel_index(label, self.sizes)
        for measure, cuts, number in zip(self.measures, self.cuts, bins, strict=True):
            ends = (-math.inf, *cuts, math.inf)
            found[measure] = (ends[number] + self.margin, ends[number + 1] - self.margin)
        return found

    def _columns(self, measures: np.ndarray) -> list[np.ndarray]:
        if not 0 <= min(self.measures) <= max(self.measures) < measures.shape[1]:
            raise ValueError(
                f"the label measures are {self.measures} but there are {measures.shape[1]} "
                f"measures: give an index from 0 to {measures.shape[1] - 1}."
            )
        return [measures[:, index] for index in self.measures]


def label_rule(config: RunConfig) -> LabelRule:
    """Read the rule of a run file's table [dataset]."""
    names = [measure.name for measure in config.measures]
    indices = tuple(names.index(name) for name in config.dataset.label_measures)
    cuts = config.dataset.label_bins or (SIGN,) * len(indices)
    if len(cuts) != len(indices):
        raise ValueError(
            f"dataset.label_bins has {len(cuts)} lists for {len(indices)} label measures: give "
            "one list of cut points per measure."
        )
    chosen = [config.measures[index] for index in indices]
    texts = [
        (measure.name, prompt_text(measure.positive), prompt_text(measure.negative))
        for measure in chosen
    ]
    return LabelRule(indices, cuts, class_names(texts, cuts), config.dataset.margin)


def class_names(
    texts: Sequence[tuple[str, str, str]], cuts: Sequence[Sequence[float]]
) -> tuple[str, ...]:
    """Name the classes by the prompts at the ends of their measures.

    Args:
        texts: name, positive prompt and negative prompt of each label measure.
        cuts: its cut points.

    Returns:
        A name per class, such as "A person with dark skin. / skin -0.03 to 0.03"; where prompts
        do not tell the classes apart, all bins are named by their measure and its values.
    """
    by_prompts = [_bin_names(*named, points) for named, points in zip(texts, cuts, strict=True)]
    names = tuple(" / ".join(parts) for parts in itertools.product(*by_prompts))
    if len(set(names)) == len(names):
        return names
    by_values = [_value_names(named[0], points) for named, points in zip(texts, cuts, strict=True)]
    return tuple(" / ".join(parts) for parts in itertools.product(*by_values))


def prompt_text(prompt: Sequence[str]) -> str:
    """One text of the texts on a side of a prompt pair."""
    return " | ".join(prompt)


def _bin_names(name: str, positive: str, negative: str, cuts: Sequence[float]) -> list[str]:
    return [positive, *_value_names(name, cuts)[1:-1], negative]


def _value_names(name: str, cuts: Sequence[float]) -> list[str]:
    points = [f"{cut:g}" for cut in cuts]
    if len(set(points)) < len(points):  # they differ in later digits
        points = [repr(float(cut)) for cut in cuts]
    between = [f"{name} {low} to {high}" for low, high in itertools.pairwise(points)]
    return [f"{name} below {points[0]}", *between, f"{name} from {points[-1]}"]
