"""What is in a data set, counted: shares of groups, and spread over the measures.

Counting and files alone; who looks at the images stands in `qdgs_jax.experiments.audit`. The layout
is that of the paper's table "Spread w.r.t. categorical labels" (Chang et al. 2024,
arXiv:2312.14369): a row per data set, a column per group.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from qdgs_jax.datasets.balance import bin_name
from qdgs_jax.datasets.labels import label_rule
from qdgs_jax.datasets.selection import bins_of
from qdgs_jax.files import csv_text, sweep, write_atomically
from qdgs_jax.runs.audit_tables import PRODUCT
from qdgs_jax.runs.config import RunConfig

FOLDER = "audit"  # in a run's folder
SHARES, SPREAD, RESULTS = "shares.csv", "spread.csv", "audit.json"
UNCLEAR = -1  # in place of a group
TIMES = f" {PRODUCT} "  # between the attributes of a product, and between their groups
_FORMAT, _VERSION = "qdgs-audit", 1


@dataclasses.dataclass(frozen=True)
class DataSet:
    """A data set that was looked at.

    Attributes:
        name: what tables call it.
        role: "run", "baseline" or "none", as in experiments.
        path: its folder.
        images: those that were looked at.
        failed: positions of those that could not be: not decodable, or of another size.
        size: height and width of the images as they are in the data set.
        digest: SHA-256 of the manifest of our shards; None for others.
    """

    name: str
    role: str
    path: str
    images: int
    failed: tuple[int, ...]
    size: tuple[int, int]
    digest: str | None = None


@dataclasses.dataclass(frozen=True)
class Tally:
    """How the images of one data set are shared among the groups of an attribute.

    Attributes:
        counts: images per group.
        unclear: images of no group.
    """

    counts: tuple[int, ...]
    unclear: int = 0

    @property
    def shares(self) -> tuple[float, ...]:
        """Share of all images per group; with the unclear ones they add up to 1."""
        return tuple(count / self._total for count in self.counts)

    @property
    def unclear_share(self) -> float:
        """Share of the images that are in no group."""
        return self.unclear / self._total

    @property
    def rarest(self) -> int:
        """Index of the smallest group; the first of equals."""
        return int(np.argmin(self.counts))

    @property
    def _total(self) -> int:
        return max(sum(self.counts) + self.unclear, 1)


@dataclasses.dataclass(frozen=True)
class Attribute:
    """An attribute, or a product of several, in all data sets.

    Attributes:
        by: who tells the groups.
        name: of the attribute.
        groups: their names.
        tallies: one per data set; None where it cannot be told.
        product: whether it is a product.
        can_be_unclear: whether images may be in no group.
    """

    by: str
    name: str
    groups: tuple[str, ...]
    tallies: tuple[Tally | None, ...]
    product: bool = False
    can_be_unclear: bool = False


@dataclasses.dataclass(frozen=True)
class Spread:
    """How the images of one data set spread over places.

    Attributes:
        over: "cells" of the archive's grid, "classes" of the run's labels, or "bins".
        places: how many there are.
        covered: how many hold an image.
        entropy: of the images over the places, by that of the evenest distribution of so many
            images; in [0, 1], 1 for a single place or image.
        smallest: images in the smallest place.
        where: what that is called; "" where places have no names.
    """

    over: str
    places: int
    covered: int
    entropy: float
    smallest: int
    where: str = ""


@dataclasses.dataclass(frozen=True)
class Given:
    """Shares that somebody published.

    Attributes:
        name: what tables call them.
        shares: attribute -> group -> share; what is not there was not published.
    """

    name: str
    shares: Mapping[str, Mapping[str, float]]


# Chang et al. 2024, "Spread w.r.t. categorical labels": FFHQ's generator at random, and QDGS.
PAPER = (
    Given(
        "paper: random",
        {
            "skin": {"light": 0.731, "mixed": 0.171, "dark": 0.098},
            "age": {"young": 0.649, "old": 0.351},
        },
    ),
    Given("paper: QDGS", {"skin": {"light": 0.568, "dark": 0.252}, "age": {"old": 0.457}}),
)


@dataclasses.dataclass(frozen=True)
class Audit:
    """What is in some data sets, the audited one first.

    Attributes:
        data_sets: that were looked at.
        attributes: in the order of columns.
        spread: for each data set, over cells, classes and bins.
        source: what the audit was made with: plain values by name.
        given: published shares to show beside.
    """

    data_sets: tuple[DataSet, ...]
    attributes: tuple[Attribute, ...]
    spread: tuple[tuple[Spread, ...], ...]
    source: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    given: tuple[Given, ...] = ()

    def to_json(self) -> str:
        """The text of `RESULTS`."""
        fields = {"format": _FORMAT, "version": _VERSION, **dataclasses.asdict(self)}
        return json.dumps(fields, indent=1) + "\n"

    @classmethod
    def from_json(cls, text: str) -> Audit:
        """Read `to_json`'s text.

        Raises:
            ValueError: it is other text, or of another version.
        """
        fields = json.loads(text)
        try:
            if (fields["format"], fields["version"]) != (_FORMAT, _VERSION):
                raise ValueError(f"its version is {fields['version']}")
            return cls(
                tuple(_data_set(row) for row in fields["data_sets"]),
                tuple(_attribute(row) for row in fields["attributes"]),
                tuple(tuple(Spread(**row) for row in rows) for rows in fields["spread"]),
                fields["source"],
                tuple(Given(**row) for row in fields["given"]),
            )
        except (KeyError, TypeError) as error:
            raise ValueError(f"its fields do not fit: {error}") from None

    def shares_csv(self) -> str:
        """The text of `SHARES`: a line per data set, attribute and group."""
        header = ("data_set", "by", "attribute", "group", "images", "share")
        return csv_text([header, *self._share_rows(), *self._given_rows()])

    def spread_csv(self) -> str:
        """The text of `SPREAD`: a line per data set and kind of place."""
        rows = [
            (each.name, *dataclasses.astuple(spread))
            for each, spreads in zip(self.data_sets, self.spread, strict=True)
            for spread in spreads
        ]
        names = [field.name for field in dataclasses.fields(Spread)]
        return csv_text([("data_set", *names), *rows])

    def _share_rows(self) -> Iterable[Sequence[object]]:
        for number, each in enumerate(self.data_sets):
            for attribute in self.attributes:
                tally = attribute.tallies[number]
                if tally is None:
                    continue
                names = [*attribute.groups, "unclear"] if attribute.can_be_unclear else None
                counts = (*tally.counts, tally.unclear)
                shares = (*tally.shares, tally.unclear_share)
                for row in zip(names or attribute.groups, counts, shares, strict=False):
                    yield (each.name, attribute.by, attribute.name, *row)

    def _given_rows(self) -> Iterable[Sequence[object]]:
        for given in self.given:
            for attribute, groups in given.shares.items():
                for group, share in groups.items():
                    yield given.name, "published", attribute, group, "", share


def write_audit(folder: Path, audit: Audit) -> None:
    """Write an audit's three files; `RESULTS`, which a report reads, comes last.

    Data sets beside the folder, or below what it lies in, can be moved together with it.

    Raises:
        OSError: the folder cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    sweep(folder, r".*\.(csv|json)")
    write_atomically(folder / SHARES, audit.shares_csv().encode())
    write_atomically(folder / SPREAD, audit.spread_csv().encode())
    kept = _with_paths(audit, functools.partial(_relative, folder.absolute().parent))
    write_atomically(folder / RESULTS, kept.to_json().encode())


def read_audit(folder: Path) -> Audit | None:
    """Read what `write_audit` wrote, its paths made absolute; None where there is nothing.

    Raises:
        ValueError: the file is damaged or of another version.
    """
    file = folder / RESULTS
    try:
        audit = Audit.from_json(file.read_text(encoding="utf-8"))
        return _with_paths(audit, lambda path: str(folder.absolute().parent / path))
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise ValueError(
            f"{file} is damaged or of another version of this program ({error}): delete it, and "
            "`qdgs audit` writes it again."
        ) from None


def _with_paths(audit: Audit, change: Callable[[str], str]) -> Audit:
    changed = (dataclasses.replace(each, path=change(each.path)) for each in audit.data_sets)
    return dataclasses.replace(audit, data_sets=tuple(changed))


def _relative(root: Path, path: str) -> str:
    """A path as seen from a folder that it lies in; else an absolute one."""
    whole = Path(path).absolute()
    return whole.relative_to(root).as_posix() if whole.is_relative_to(root) else str(whole)


def tally(codes: np.ndarray, groups: int) -> Tally:
    """Count groups.

    Args:
        codes: Int[N], group of each image, or `UNCLEAR`.
        groups: how many there are.
    """
    counts = np.bincount(codes[codes >= 0], minlength=groups)
    return Tally(tuple(int(count) for count in counts), int(np.sum(codes < 0)))


def cross_names(groups: Sequence[Sequence[str]]) -> tuple[str, ...]:
    """Names of the groups of a product; those of the last attribute run fastest."""
    return tuple(TIMES.join(parts) for parts in itertools.product(*groups))


def cross_codes(codes: Sequence[np.ndarray], sizes: Sequence[int]) -> np.ndarray:
    """Groups of a product, in the order of `cross_names`.

    Args:
        codes: for each attribute Int[N], group of each image, or `UNCLEAR`.
        sizes: groups of each attribute.

    Returns:
        Int[N], `UNCLEAR` where one of the attributes is.
    """
    clear = np.all([column >= 0 for column in codes], axis=0)
    whole = np.ravel_multi_index([np.maximum(column, 0) for column in codes], tuple(sizes))
    return np.where(clear, whole, UNCLEAR)


def spread_over(measures: np.ndarray, config: RunConfig) -> tuple[Spread, ...]:
    """How images spread over a run's cells, classes and bins.

    Args:
        measures: Float[N, M]; what lies beyond a range belongs to its edge.
        config: the run; of a CVT archive, cells are those of the grid that its maps show.
    """
    rule, bins = label_rule(config), config.dataset.bins
    cells = bins_of(measures, config.dims, config.ranges)
    classes = rule.labels(measures)
    found = [
        _spread("cells", cells, math.prod(config.dims)),
        _spread("classes", classes, len(rule.names)),
    ]
    found[1] = dataclasses.replace(found[1], where=rule.names[_smallest(classes, len(rule.names))])
    if math.prod(bins) > 1:
        where = bins_of(measures, bins, config.ranges)
        smallest = np.unravel_index(_smallest(where, math.prod(bins)), bins)
        name = bin_name(config, tuple(int(place) for place in smallest))
        found.append(dataclasses.replace(_spread("bins", where, math.prod(bins)), where=name))
    return tuple(found)


def _spread(over: str, places: np.ndarray, total: int) -> Spread:
    _, counts = np.unique(places, return_counts=True)
    images = len(places)
    smallest = 0 if len(counts) < total else int(counts.min())
    return Spread(over, total, len(counts), _entropy(counts, min(images, total)), smallest)


def _entropy(counts: np.ndarray, reachable: int) -> float:
    """Entropy of counts by that of `reachable` places with equal counts, in [0, 1]."""
    if reachable <= 1:
        return 1.0
    shares = counts / counts.sum()
    entropy = -np.sum(shares * np.log(shares)) / math.log(reachable)
    return float(np.clip(entropy, 0.0, 1.0)) + 0.0  # 0, not -0, of a single place


def _smallest(places: np.ndarray, total: int) -> int:
    """The place with the fewest images, the first of equals."""
    found, counts = np.unique(places, return_counts=True)
    if len(found) == total:
        return int(found[np.argmin(counts)])
    gaps = np.flatnonzero(found != np.arange(len(found)))
    return int(gaps[0]) if len(gaps) else len(found)


def _data_set(row: Mapping[str, Any]) -> DataSet:
    return DataSet(**{**row, "failed": tuple(row["failed"]), "size": tuple(row["size"])})


def _attribute(row: Mapping[str, Any]) -> Attribute:
    tallies = tuple(
        None if each is None else Tally(tuple(each["counts"]), each["unclear"])
        for each in row["tallies"]
    )
    return Attribute(**{**row, "groups": tuple(row["groups"]), "tallies": tallies})
