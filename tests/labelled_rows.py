"""Rows of data sets for the tests, from a few columns."""

from __future__ import annotations

import numpy as np

from qdgs_jax.datasets.labels import SIGN, LabelRule
from qdgs_jax.datasets.selection import Labelled
from qdgs_jax.elites import Elites


def labelled(
    labels: np.ndarray,
    measures: np.ndarray,
    *,
    cells: np.ndarray | None = None,
    objectives: np.ndarray | None = None,
    latents: np.ndarray | None = None,
    subjects: np.ndarray | None = None,
) -> Labelled:
    """Rows with these columns; what is not given counts up, is zero or has no width."""
    count = len(labels)
    elites = Elites(
        cells=np.arange(count) if cells is None else cells,
        objectives=np.zeros(count, np.float32) if objectives is None else objectives,
        thresholds=np.full(count, np.nan, np.float32),
        measures=measures,
        latents=np.zeros((count, 0), np.float32) if latents is None else latents,
    )
    return Labelled(elites, np.asarray(labels, np.int64), subjects)


def sign_of(measure: int, margin: float = 0.0) -> LabelRule:
    """The rule by which the sign of a measure is the label."""
    return LabelRule((measure,), (SIGN,), ("negative", "positive"), margin)
