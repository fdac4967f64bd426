"""Whether a data set is balanced: what was asked of each class and bin, and what it got."""

from __future__ import annotations

import collections
import dataclasses
import itertools
import operator
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from qdgs_jax.datasets.labels import LabelRule, prompt_text
from qdgs_jax.datasets.selection import Labelled, bin_positions
from qdgs_jax.runs.config import RunConfig

CURE = "search longer, ask for fewer images, or give a smaller margin"  # of short groups
TOUCHING = 1e-9  # of a range: bins and classes that overlap by less only share an edge


class UnbalancedError(ValueError):
    """A data set in which groups are short, where this was not to be."""


@dataclasses.dataclass(frozen=True)
class Group:
    """The images of one class in one measure bin.

    Attributes:
        label: name of the class.
        bin: what the bin is called.
        asked: images that an equal share would be, rounded down, but at least one.
        got: images that there are.
    """

    label: str
    bin: str
    asked: int
    got: int


@dataclasses.dataclass(frozen=True)
class Balance:
    """How the images of a data set are shared among classes and bins.

    Attributes:
        asked: images wanted.
        groups: every class in every bin that it reaches into, classes first.
    """

    asked: int
    groups: tuple[Group, ...]

    @property
    def got(self) -> int:
        """Images in all."""
        return sum(group.got for group in self.groups)

    @property
    def labels(self) -> tuple[Group, ...]:
        """The classes, over all their bins."""
        names = list(dict.fromkeys(group.label for group in self.groups))
        share = max(1, self.asked // max(len(names), 1))
        counts = dict.fromkeys(names, 0)
        for group in self.groups:
            counts[group.label] += group.got
        return tuple(Group(name, "", share, counts[name]) for name in names)

    @property
    def ratio(self) -> float:
        """Images of the smallest group for each image of the largest, in [0, 1]."""
        return least_to_most(self.groups)

    @property
    def short(self) -> tuple[Group, ...]:
        """Groups with fewer images than asked."""
        return tuple(group for group in self.groups if group.got < group.asked)

    @property
    def cure(self) -> str:
        """What helps groups that are short."""
        if sum(group.asked for group in self.groups) > self.asked:
            return f"ask for at least {len(self.groups)} images, one for each group"
        return CURE

    @property
    def uneven(self) -> str | None:
        """Why classes have to differ where every group has its share; None if they need not.

        A class that reaches into fewer bins than another one has fewer groups, and fewer images.
        """
        reach = collections.Counter(group.label for group in self.groups)
        if len(set(reach.values())) < 2:
            return None
        most, least = max(reach, key=reach.__getitem__), min(reach, key=reach.__getitem__)
        told = f"{least!r} and {most!r} will not have as many images"
        if self.got:
            got = {group.label: f"{group.got:,}" for group in self.labels}
            counts = f"{least!r} has {got[least]} and {most!r} has {got[most]}"
            told = f"of {self.got:,} images {counts}"
        return (
            f"{told}, for they reach into {reach[least]} and {reach[most]} bins: give each "
            "measure that tells the label 1 bin, or cut it where as many bins lie on each side"
        )

    def times(self, count: int) -> Balance:
        """The same where each image becomes `count`."""
        groups = [
            dataclasses.replace(group, asked=count * group.asked, got=count * group.got)
            for group in self.groups
        ]
        return Balance(count * self.asked, tuple(groups))

    def check(self) -> None:
        """Refuse a data set with short groups, or with classes that reach into unequal bins.

        Raises:
            UnbalancedError: there are some; they are named.
        """
        if self.uneven is not None:
            raise UnbalancedError(f"the classes are not equally large: {self.uneven}.")
        if self.short:
            named = "; ".join(f"{g.label}, {g.bin}: {g.got} of {g.asked}" for g in self.short)
            raise UnbalancedError(
                f"{len(self.short)} of {len(self.groups)} groups are short ({named}): {self.cure}."
            )

    def to_dict(self) -> dict[str, Any]:
        """As plain values, for the manifest."""
        return {
            "asked": self.asked,
            "got": self.got,
            "min_to_max": round(self.ratio, 4),
            "groups": [dataclasses.asdict(group) for group in self.groups],
        }

    @classmethod
    def from_dict(cls, table: Mapping[str, Any]) -> Balance:
        """Read `to_dict`'s values.

        Raises:
            KeyError, TypeError: they are others.
        """
        return cls(int(table["asked"]), tuple(Group(**group) for group in table["groups"]))


def least_to_most(groups: Sequence[Group]) -> float:
    """Images of the smallest of some groups for each image of the largest; 1 for no images."""
    counts = [group.got for group in groups]
    most = max(counts, default=0)
    return min(counts) / most if most else 1.0


def measure_balance(config: RunConfig, rule: LabelRule, rows: Labelled) -> Balance:
    """Count a data set's rows by class and bin.

    Args:
        config: the run, whose [dataset] says how many images in which bins.
        rule: its labels.
        rows: the data set.
    """
    bins, ranges = config.dataset.bins, config.ranges
    where = bin_positions(rows.elites.measures, bins, ranges)
    held = np.column_stack([rows.labels, where])
    found, numbers = np.unique(held, axis=0, return_counts=True)
    counts = {
        tuple(int(place) for place in row): int(number)
        for row, number in zip(found, numbers, strict=True)
    }
    places = itertools.product(range(len(rule.names)), *map(range, bins))
    reached = [key for key in places if key in counts or _reaches(rule, bins, ranges, *key)]
    share = max(1, config.dataset.images // max(len(reached), 1))
    groups = []
    for label, keys in itertools.groupby(reached, key=operator.itemgetter(0)):
        within = np.asarray(list(keys))[:, 1:]
        # A class that lies on one side of a measure says so itself.
        told = (within != within[0]).any(axis=0) | (np.asarray(bins) != 2)
        for place in within.tolist():
            count = counts.get((label, *place), 0)
            groups.append(Group(rule.names[label], bin_name(config, place, told), share, count))
    return Balance(asked=config.dataset.images, groups=tuple(groups))


def _reaches(
    rule: LabelRule,
    bins: Sequence[int],
    ranges: Sequence[tuple[float, float]],
    label: int,
    *where: int,
) -> bool:
    """Whether rows of a class can lie in a bin; the outer bins reach beyond their range."""
    for measure, (low, high) in rule.intervals(label).items():
        first, last = ranges[measure]
        width = (last - first) / bins[measure]
        number = where[measure]
        if number > 0:
            low = max(low, first + number * width)
        if number < bins[measure] - 1:
            high = min(high, first + (number + 1) * width)
        if high - low <= TOUCHING * (last - first):
            return False
    return True


def bin_name(
    config: RunConfig, where: Sequence[int], told: Sequence[bool] | np.ndarray | None = None
) -> str:
    """Name a bin: by its prompts where a measure has two bins, else by its values.

    Args:
        config: the run.
        where: number of its bin, per measure.
        told: whether to name it, per measure; None names all.
    """
    parts = []
    named = [True] * len(where) if told is None else told
    for measure, number, count, name in zip(
        config.measures, where, config.dataset.bins, named, strict=True
    ):
        if not name:
            continue
        low, high = measure.range
        width = (high - low) / count
        if count == 2:
            text = prompt_text((measure.positive, measure.negative)[number])
            parts.append(text.rstrip("."))
        elif count > 2:
            start, end = (f"{round(low + i * width, 6):g}" for i in (number, number + 1))
            parts.append(f"{measure.name} {start} to {end}")
    return ", ".join(parts) or "everywhere"
