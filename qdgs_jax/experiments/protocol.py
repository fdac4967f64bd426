"""Experiments: what is done with a run's data sets, as plug-ins.

An experiment has a table of its name in the run file, a folder of its name for its results, and
says in tables, charts and figures what came of it. The command line and the report know no more of
it than this module says. The arms that are compared are "run" and "baseline", and "none" for
neither.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Protocol, TypeVar

from qdgs_jax.runs.config import RunConfig
from qdgs_jax.runs.folder import RunFolder

Progress = Callable[[int, int], None]  # hundredths done, hundredths in all
R = TypeVar("R")  # results


class ExperimentError(ValueError):
    """An experiment that a run does not allow; the message names what is missing."""


@dataclasses.dataclass(frozen=True)
class Table:
    """A table of texts; the first column names its row.

    Attributes:
        title: what stands above it.
        header: a name per column.
        rows: a text per column.
        spans: names of groups of columns with their widths, from the left; () for no groups.
    """

    title: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    spans: Sequence[tuple[str, int]] = ()

    @property
    def full_header(self) -> list[str]:
        """A name per column that also says its group, on a line above."""
        groups = [name for name, width in self.spans for _ in range(width)] or [""] * len(
            self.header
        )
        return [
            f"{group}\n{name}" if group else name
            for group, name in zip(groups, self.header, strict=True)
        ]


@dataclasses.dataclass(frozen=True)
class Series:
    """Numbers of one arm.

    Attributes:
        name: how the arm is called.
        role: "run", "baseline" or "none".
        values: Float[K], fractions.
        errors: Float[K], standard errors; None without.
    """

    name: str
    role: str
    values: Sequence[float]
    errors: Sequence[float] | None = None


@dataclasses.dataclass(frozen=True)
class Lines:
    """A chart of fractions over a number, a line per series; `at` is Float[K]."""

    title: str
    x_name: str
    y_name: str
    at: Sequence[float]
    series: Sequence[Series]


@dataclasses.dataclass(frozen=True)
class Bars:
    """A chart of shares, a bar per group and series; a line stands where all were equal."""

    title: str
    groups: Sequence[str]
    series: Sequence[Series]
    caption: str = ""


@dataclasses.dataclass(frozen=True)
class Card:
    """A figure for the head of the report: what it is, its value, what to compare it with."""

    what: str
    value: str
    beside: str = ""


@dataclasses.dataclass(frozen=True)
class Section:
    """An experiment's part of the report."""

    title: str
    words: str
    cards: Sequence[Card] = ()
    tables: Sequence[Table] = ()
    lines: Sequence[Lines] = ()
    bars: Sequence[Bars] = ()


class Experiment(Protocol[R]):
    """A use of a run's data sets.

    The name is that of the run file's table and of the results' folder.
    """

    @property
    def name(self) -> str:
        """Name of the table and of the folder."""

    def check_file(self, config: RunConfig, place: Path) -> None:
        """Refuse a run file that the experiment cannot be made with, `place` being where it is.

        Raises:
            ExperimentError: its table or its labels are missing.
        """

    def check_pictures(self, config: RunConfig, side: int, place: Path) -> None:
        """Refuse pictures of data sets that are too small for what the run file asks for.

        Args:
            config: the run, which has the experiment's table.
            side: pixels of their shorter side.
            place: where the run file is.

        Raises:
            ExperimentError: they are.
        """

    def check(self, folder: RunFolder) -> None:
        """Refuse a run that the experiment cannot be made with: its file, a baseline or data set.

        Raises:
            ExperimentError: something is missing; the message names it.
        """

    def data_sets(self, folder: RunFolder) -> Mapping[str, Path]:
        """The folder of each arm's data set, inside the run's; for runs that `check` lets through.

        Raises:
            ExperimentError: there is none.
        """

    def run(self, folder: RunFolder, progress: Progress) -> None:
        """Make the experiment and keep its results in the run's folder."""

    def results(self, folder: RunFolder) -> R | None:
        """Read the results; None if the experiment was not made."""

    def tables(self, result: R, names: Mapping[str, str]) -> list[Table]:
        """What a terminal shows; `names` says how the arms are called."""

    def section(self, result: R, names: Mapping[str, str]) -> Section:
        """What the report shows; `names` says how the arms are called."""


def arm_names(folder: RunFolder) -> dict[str, str]:
    """How a run's arms are called: by their algorithms."""
    names = {"run": folder.config().search.algorithm}
    if folder.baseline.exists:
        names["baseline"] = folder.baseline.config().search.algorithm
    if names["run"] == names.get("baseline"):
        names = {arm: f"{name} ({arm})" for arm, name in names.items()}
    return names
