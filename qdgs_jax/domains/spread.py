"""Whether the generator can draw what a measure's prompts name, judged by its own samples.

A measure always moves a little, even along prompts that have nothing to do with the images. How
much that is follows from the images alone: embeddings that vary by a total variance V in E
dimensions vary by V / E along a direction that means nothing to them. A measure that moves no
further than twice that deviation tells noise. docs/generators.md shows how well this tells prompts
apart.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from qdgs_jax.domains.scoring import PromptAxis

SAMPLES = 256  # that a spread is judged by
NOISES = 2.0  # deviations of noise that a measure must exceed
NARROW = 0.05  # of a range, that samples should span at least


class MeasureSpread(NamedTuple):
    """How far a measure reaches over the generator's own samples.

    Attributes:
        low: its 5 % quantile.
        high: its 95 % quantile.
        std: its standard deviation.
        noise: the deviation along a direction that means nothing to the images.
    """

    low: float
    high: float
    std: float
    noise: float

    @property
    def margin(self) -> float:
        """The distance from 0 below which a value may be noise."""
        return NOISES * self.noise

    @property
    def hardly_moves(self) -> bool:
        """Whether the measure moves no further than noise does."""
        return not self.std > self.margin

    @property
    def one_sided(self) -> bool:
        """Whether nearly all samples lie on the same side of 0."""
        return self.low > 0 or self.high < 0

    def warning(self) -> str | None:
        """What is doubtful about the measure, to follow on its name; None if nothing is."""
        figures = f"{self.low:+.3f} to {self.high:+.3f}, deviation {self.std:.3f}"
        if self.hardly_moves:
            return (
                f"hardly moves over the generator's own images ({figures}, noise "
                f"{self.noise:.3f}): the generator may not be able to draw what its prompts name, "
                f"and labels within {self.margin:.2g} of 0 are noise"
            )
        if self.one_sided:
            side = "second" if self.low > 0 else "first"
            return (
                f"is near its {side} prompt for nearly all of the generator's own images "
                f"({figures}): the generator may not be able to draw what the other one names"
            )
        return None

    def range_warning(self, low: float, high: float, cells: int) -> str | None:
        """What is doubtful about the measure's range, to follow on its name; None if nothing is.

        Args:
            low: the range's lower end.
            high: its upper end.
            cells: how many it is cut into.
        """
        reach = self.high - self.low
        figures = f"{self.low:+.3g} to {self.high:+.3g}"
        suggested = f"[{self.low - reach / 2:.2g}, {self.high + reach / 2:.2g}]"
        if self.low > high or self.high < low:
            return (
                f"is {figures} over the generator's own images, outside its range "
                f"[{low:g}, {high:g}]: the cells at its edge would hold everything; a range of "
                f"{suggested} spans what the generator draws, and as much again"
            )
        if not self.hardly_moves and reach < NARROW * (high - low):
            reached = max(1, round(cells * reach / (high - low)))
            return (
                f"is {figures} over the generator's own images, about {reached} of the {cells} "
                f"cells of its range [{low:g}, {high:g}]: most of the archive, and of the data "
                f"set's bins, can hardly be reached; a range of {suggested} spans what the "
                "generator draws, and as much again"
            )
        return None


def measure_spread(
    measures: np.ndarray, embeds: np.ndarray, axes: tuple[PromptAxis, ...]
) -> tuple[MeasureSpread, ...]:
    """Judge measures by samples.

    Args:
        measures: Float[N, M].
        embeds: Float[N, E], the normalised embeddings of the same images.
        axes: the M measures' prompts.
    """
    # Near a right angle, where images stand to texts, a distance changes as the product with the
    # unit text does: a measure, as the product with the difference of its two sides' means.
    deviation = math.sqrt(np.var(embeds, axis=0).mean())
    spreads = []
    for values, axis in zip(measures.T, axes, strict=True):
        sides = [np.asarray(texts) for texts in (axis.positive, axis.negative)]
        means = [
            np.mean(side / np.linalg.norm(side, axis=-1, keepdims=True), axis=0) for side in sides
        ]
        low, high = np.quantile(values, (0.05, 0.95))
        noise = deviation * float(np.linalg.norm(means[0] - means[1]))
        spreads.append(MeasureSpread(float(low), float(high), float(values.std()), noise))
    return tuple(spreads)
