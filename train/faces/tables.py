"""The paper's two tables: what identities a network was pretrained on, and how it verifies.

A row per arm (none, Rand15, Rand50, QD15, QD50 in the paper), a column per figure, each the mean
over seeds with its standard error. As text for people, as CSV with full precision for programs.
"""

from __future__ import annotations

import csv
import dataclasses
import io
import math
from collections.abc import Mapping, Sequence

from qdgs_jax.train.faces.fairness import mean_and_error

SKIN_TITLE = "Verification accuracy by skin tone, %"
BENCHMARK_TITLE = "Verification accuracy by data set, %"
GAIN_TITLE = "Gain over no pretraining, points (seed by seed)"
GROUPS_TITLE = "Spread over skin tones, and errors at a common threshold, %"


@dataclasses.dataclass(frozen=True)
class SeedTable:
    """Figures of arms over seeds.

    Attributes:
        title: what the figures are.
        columns: names of the figures.
        rows: (mean, standard error) of each figure, by the arm's name, in order.
        beside: numbers of somebody else, such as a paper's, by arm; shown in brackets.
    """

    title: str
    columns: tuple[str, ...]
    rows: Mapping[str, tuple[tuple[float, float], ...]]
    beside: Mapping[str, Mapping[str, float]] = dataclasses.field(default_factory=dict)

    @property
    def header(self) -> tuple[str, ...]:
        """Names of all columns, that of the arms first."""
        return ("Pretraining", *self.columns)

    def texts(self) -> list[tuple[str, ...]]:
        """The rows as texts, "88.94 ± 0.12 [88.90]": mean, standard error, what stands beside."""
        return [
            (
                arm,
                *(
                    self._cell(arm, name, *cell)
                    for name, cell in zip(self.columns, row, strict=True)
                ),
            )
            for arm, row in self.rows.items()
        ]

    def _cell(self, arm: str, column: str, mean: float, error: float) -> str:
        shown = f"{mean:.2f}" if math.isfinite(mean) else "-"
        if math.isfinite(error):
            shown += f" ± {error:.2f}"
        known = self.beside.get(arm, {}).get(column)
        return shown if known is None else f"{shown} [{known:.2f}]"

    def to_text(self) -> str:
        """Aligned lines under the title."""
        lines = [self.header, *self.texts()]
        widths = [max(len(line[i]) for line in lines) for i in range(len(self.header))]
        rows = [
            "  ".join(
                cell.ljust(width) if number == 0 else cell.rjust(width)
                for number, (cell, width) in enumerate(zip(line, widths, strict=True))
            ).rstrip()
            for line in lines
        ]
        return "\n".join([self.title, *rows]) + "\n"

    def to_csv(self) -> str:
        """A header and a line per arm: each mean, and its standard error in a column NAME_se."""
        buffer = io.StringIO()
        writer = csv.writer(buffer, lineterminator="\n")
        writer.writerow(["pretraining", *(n for c in self.columns for n in (c, f"{c}_se"))])
        for arm, row in self.rows.items():
            numbers = (number for cell in row for number in cell)
            writer.writerow([arm, *("" if math.isnan(n) else repr(n) for n in numbers)])
        return buffer.getvalue()


def seed_table(
    title: str,
    arms: Mapping[str, Sequence[Mapping[str, float]]],
    beside: Mapping[str, Mapping[str, float]] | None = None,
) -> SeedTable:
    """Take means over seeds.

    Args:
        title: what the figures are.
        arms: for each arm a table of figures per seed, from `fairness.skin_row` or
            `fairness.benchmark_row`; all with the same columns.
        beside: other people's numbers by arm and column.

    Raises:
        ValueError: there are no arms or seeds, or columns differ.
    """
    columns = tuple(next((seed for seeds in arms.values() for seed in seeds), {}))
    if not columns:
        raise ValueError("there are no arms or seeds: give the figures of one at least.")
    for arm, seeds in arms.items():
        for number, seed in enumerate(seeds):
            if tuple(seed) != columns:
                raise ValueError(
                    f"seed {number} of {arm!r} has columns {tuple(seed)}, others {columns}: give "
                    "every seed the same."
                )
    rows = {
        arm: tuple(mean_and_error(seed[name] for seed in seeds) for name in columns)
        for arm, seeds in arms.items()
    }
    return SeedTable(title, columns, rows, dict(beside or {}))


def gain_table(
    title: str, arms: Mapping[str, Sequence[Mapping[str, float]]], over: str
) -> SeedTable:
    """Differences from one arm, seed by seed: what seeds have in common is in no standard error.

    Args:
        title: what the figures are.
        arms: figures of each arm, see `seed_table`; all with as many seeds, in one order.
        over: the arm that is taken off the others, and left out.

    Raises:
        ValueError: numbers of seeds differ, there is no such arm or no other, or columns differ.
    """
    if over not in arms:
        raise ValueError(f"there is no arm {over!r}: give one of {', '.join(arms)}.")
    base = arms[over]
    gains: dict[str, list[Mapping[str, float]]] = {}
    for arm, seeds in arms.items():
        if len(seeds) != len(base):
            raise ValueError(
                f"{arm!r} has {len(seeds)} seeds and {over!r} {len(base)}: give as many of each."
            )
        if arm != over:
            pairs = zip(seeds, base, strict=True)
            gains[arm] = [{n: seed[n] - other[n] for n in seed} for seed, other in pairs]
    return seed_table(title, gains)
