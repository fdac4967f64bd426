"""What the repair of biased classifiers of shapes came to; read without JAX."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping

import numpy as np

ARMS = ("none", "baseline", "run")
GROUPS = ("red triangle", "blue triangle", "red square", "blue square")  # 2 * shape + colour


@dataclasses.dataclass(frozen=True)
class RepairResult:
    """Accuracies of all classifiers.

    Attributes:
        biases: the J strengths of the bias.
        accuracy: for each arm of `ARMS`, Float[J, S, 4]: the share of right answers for each bias,
            seed and group of `GROUPS`.
        images: for each arm, the number of generated images it learnt from.
    """

    biases: tuple[float, ...]
    accuracy: Mapping[str, np.ndarray]
    images: Mapping[str, int]

    def balanced(self, arm: str) -> np.ndarray:
        """Balanced accuracy Float[J, S]: the mean over the groups."""
        return self.accuracy[arm].mean(axis=-1)

    def mean(self, arm: str) -> np.ndarray:
        """Balanced accuracy Float[J], averaged over the seeds."""
        return self.balanced(arm).mean(axis=1)

    def standard_error(self, arm: str) -> np.ndarray:
        """Standard error Float[J] of `mean` over the seeds; NaN for a single seed."""
        seeds = self.balanced(arm).shape[1]
        if seeds == 1:
            return np.full(len(self.biases), math.nan)
        return self.balanced(arm).std(axis=1, ddof=1) / math.sqrt(seeds)

    def gain(self, arm: str) -> np.ndarray:
        """Float[J]: by how much the arm's balanced accuracy exceeds that of no repair."""
        return self.mean(arm) - self.mean("none")

    def table_rows(self) -> list[list[str]]:
        """Balanced accuracy in per cent, mean ± standard error over the seeds, a row per bias."""
        rows = []
        for j, bias in enumerate(self.biases):
            cells = []
            for arm in ARMS:
                error = self.standard_error(arm)[j]
                spread = "" if math.isnan(error) else f" ± {100 * error:.1f}"
                cells.append(f"{100 * self.mean(arm)[j]:.1f}{spread}")
            rows.append([f"{bias:.2f}", *cells, f"{100 * self.gain('run')[j]:+.1f}"])
        return rows

    def to_json(self) -> str:
        """All numbers as JSON text."""
        accuracy = {arm: self.accuracy[arm].tolist() for arm in ARMS}
        table = {"biases": self.biases, "groups": GROUPS, "accuracy": accuracy}
        return json.dumps({**table, "images": dict(self.images)}, indent=2) + "\n"

    @classmethod
    def from_json(cls, text: str) -> RepairResult:
        """Read `to_json`'s text.

        Raises:
            ValueError: it is not such a text.
        """
        try:
            table = json.loads(text)
            accuracy = {arm: np.array(table["accuracy"][arm], np.float64) for arm in ARMS}
            images = {arm: int(table["images"][arm]) for arm in ARMS}
            biases = tuple(float(bias) for bias in table["biases"])
        except (KeyError, TypeError) as error:
            raise ValueError(f"not the result of a repair experiment: {error!r}") from None
        for arm, values in accuracy.items():
            if values.ndim != 3 or values.shape[::2] != (len(biases), len(GROUPS)):
                raise ValueError(
                    f"accuracy of {arm} has shape {values.shape}: expected "
                    f"({len(biases)}, seeds, {len(GROUPS)})"
                )
        return cls(biases, accuracy, images)
