"""Verification per group of people: accuracy, disparate impact, and errors at one threshold.

The paper (Chang et al. 2024, arXiv:2312.14369) compares accuracies on dark and light skin and their
ratio. A system in use has one threshold for everybody, so false matches and false non-matches at a
common threshold are told beside them: equal rates over groups are equalised odds (Hardt et al.
2016, arXiv:1610.02413).
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from qdgs_jax.train.faces.verification import (
    FOLDS,
    THRESHOLDS,
    check_pairs,
    count_below,
    roc_curve,
    verify_folds,
)


@dataclasses.dataclass(frozen=True)
class GroupResult:
    """How a group's pairs are verified.

    Attributes:
        name: of the group.
        pairs: number of its pairs.
        accuracy: over folds of its own pairs, in [0, 1].
        fmr: false match rate at the common threshold, NaN without impostor pairs.
        fnmr: false non-match rate there, NaN without genuine pairs.
    """

    name: str
    pairs: int
    accuracy: float
    fmr: float
    fnmr: float


@dataclasses.dataclass(frozen=True)
class Fairness:
    """Groups side by side.

    Attributes:
        groups: in the order of their names.
        threshold: the common one, a squared distance; pairs below are matched.
    """

    groups: tuple[GroupResult, ...]
    threshold: float

    def __getitem__(self, name: str) -> GroupResult:
        for group in self.groups:
            if group.name == name:
                return group
        known = [group.name for group in self.groups]
        raise KeyError(f"there is no group {name!r}: give one of {known}.")

    @property
    def accuracy(self) -> float:
        """Mean of the groups' accuracies."""
        return float(np.mean([group.accuracy for group in self.groups]))

    @property
    def deviation(self) -> float:
        """Standard deviation of the groups' accuracies, over these groups (not a sample's)."""
        return float(np.std([group.accuracy for group in self.groups]))

    @property
    def worst(self) -> GroupResult:
        """The group of the lowest accuracy, the first of equals."""
        return min(self.groups, key=lambda group: group.accuracy)

    def disparate_impact(self, dark: str = "dark", light: str = "light") -> float:
        """Accuracy of the one group over that of the other, per cent; NaN where that is 0."""
        divisor = self[light].accuracy
        return 100.0 * self[dark].accuracy / divisor if divisor else math.nan

    @property
    def odds_gaps(self) -> tuple[float, float]:
        """Largest differences of groups in FMR and in FNMR, both 0 with equalised odds."""
        rates = np.array([(group.fmr, group.fnmr) for group in self.groups])
        fmr, fnmr = rates.max(axis=0) - rates.min(axis=0)
        return float(fmr), float(fnmr)


def common_threshold(distances: np.ndarray, same: np.ndarray, fmr: float | None = None) -> float:
    """One threshold for everybody, a squared distance; pairs below it are matched.

    Args:
        distances: Float[P], squared.
        same: Bool[P].
        fmr: the false match rate that may not be exceeded over all pairs; None takes the first
            threshold of the best accuracy, as folds do.

    Raises:
        ValueError: shapes do not fit, `fmr` is out of range, or there are no impostor pairs for it.
    """
    check_pairs(distances, same)
    if fmr is None:
        # Matched genuine pairs, less matched impostors: the others are right without them.
        right = count_below(distances[same]) - count_below(distances[~same])
        return float(THRESHOLDS[np.argmax(right)])
    if not 0.0 <= fmr <= 1.0:
        raise ValueError(f"fmr is {fmr}: give a rate in [0, 1], e.g. 1e-3.")
    if same.all():
        raise ValueError("there are no impostor pairs to take a false match rate of.")
    roc = roc_curve(distances, same)
    last = int(np.searchsorted(roc.far, fmr * (1 + 1e-12), side="right")) - 1
    # Pairs must lie below the threshold, so it lies just above the last accepted distance.
    return float(np.nextafter(max(roc.thresholds[last], 0.0), np.inf)) if last else 0.0


def verify_groups(
    distances: np.ndarray,
    same: np.ndarray,
    groups: Sequence[str] | np.ndarray,
    *,
    threshold: float | None = None,
    folds: int = FOLDS,
) -> Fairness:
    """Verify each group's pairs, by themselves and at a common threshold.

    Args:
        distances: Float[P], squared distances of the pairs.
        same: Bool[P], whether a pair shows one person.
        groups: the group of each of the P pairs, such as "dark" or "light".
        threshold: the common one; None takes `common_threshold` of all pairs.
        folds: of each group's own pairs.

    Raises:
        ValueError: shapes do not fit, or a group has fewer pairs than folds.
    """
    if len(groups) != len(same):
        raise ValueError(f"{len(groups)} groups for {len(same)} pairs: pass one for every pair.")
    names = sorted({str(name) for name in groups})
    numbers = {name: number for number, name in enumerate(names)}
    group_of = np.fromiter((numbers[str(name)] for name in groups), np.int64, len(groups))
    if threshold is None:
        threshold = common_threshold(distances, same)
    check_pairs(distances, same)
    found = []
    for number, name in enumerate(names):
        members = group_of == number
        if members.sum() < folds:
            raise ValueError(f"group {name} has {members.sum()} pairs: {folds} folds need more.")
        own, truth = distances[members], same[members]
        matched = own.astype(np.float64) < threshold  # which float32 cannot tell from a distance
        found.append(
            GroupResult(
                name=name,
                pairs=int(members.sum()),
                accuracy=verify_folds(own, truth, folds).accuracy,
                fmr=_share(matched[~truth]),
                fnmr=_share(~matched[truth]),
            )
        )
    return Fairness(tuple(found), float(threshold))


def mean_and_error(values: Iterable[float]) -> tuple[float, float]:
    """Mean over seeds and its standard error, NaN for a single seed.

    Raises:
        ValueError: there are no values.
    """
    array = np.asarray(list(values), np.float64)
    if not len(array):
        raise ValueError("there are no seeds to take a mean of.")
    if len(array) == 1:
        return float(array[0]), math.nan
    return float(array.mean()), float(array.std(ddof=1) / math.sqrt(len(array)))


def skin_row(result: Fairness, dark: str = "dark", light: str = "light") -> Mapping[str, float]:
    """One seed's figures as the paper's table of skin tones has them, per cent."""
    return {
        "Dark": 100.0 * result[dark].accuracy,
        "Light": 100.0 * result[light].accuracy,
        "DI": result.disparate_impact(dark, light),
        "AVG": 50.0 * (result[dark].accuracy + result[light].accuracy),
    }


def fairness_row(result: Fairness) -> Mapping[str, float]:
    """One seed's figures beyond the paper's, per cent: spread of accuracies, and errors.

    FMR and FNMR of each group are those at the common threshold.
    """
    row = {"SD": 100.0 * result.deviation, "Worst": 100.0 * result.worst.accuracy}
    for rate in ("fmr", "fnmr"):
        for group in result.groups:
            row[f"{rate.upper()} {group.name}"] = 100.0 * float(getattr(group, rate))
    return row


def benchmark_row(accuracies: Mapping[str, float]) -> Mapping[str, float]:
    """One seed's accuracies on verification sets, fractions, as per cent with their mean last."""
    if not accuracies:
        raise ValueError("there are no verification sets: give the accuracy of one at least.")
    shown = {name: 100.0 * value for name, value in accuracies.items()}
    return {**shown, "AVG": float(np.mean(list(shown.values())))}


def _share(flags: np.ndarray) -> float:
    return float(flags.mean()) if len(flags) else math.nan
