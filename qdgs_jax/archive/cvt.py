"""The CVT archive: cells around given centroids, for more measures than a grid can have.

CVT-MAP-Elites (Vassiliades, Chatzilygeroudis & Mouret 2018, "Using Centroidal Voronoi Tessellations
to Scale Up the Multidimensional Archive of Phenotypic Elites Algorithm", arXiv:1610.05729). The
nearest centroid is searched in memory O(batch + cells), where QDax's search takes O(batch * cells).
"""

from __future__ import annotations

import dataclasses
import math
import operator
from collections.abc import Mapping, Sequence
from typing import Any, Self, SupportsIndex

import jax
import jax.numpy as jnp
import numpy as np

from qdgs_jax.archive.base import STATIC, Genotypes
from qdgs_jax.archive.exchange import Archive
from qdgs_jax.box import Box, checked_ranges
from qdgs_jax.keywords import named
from qdgs_jax.kmeans import lloyd, nearest
from qdgs_jax.one_program import one_program

_lloyd = one_program("iterations")(lloyd)


class CVTArchive(Archive):
    """Cells are the points closest to each centroid, in units of the ranges.

    Distances are taken where every range has length 1, so that no measure outweighs the others by
    its unit; so does `cvt_centroids` when it spreads them. QDax takes them in the measures' own
    units. Where all ranges have the same length the cells are the same; where not, QDax's emitters
    that look cells up by themselves (CMA-ME, CMA-MEGA, OMG-MEGA) need measures scaled alike.

    Attributes:
        ranges: (low, high) per measure; measures are clipped into them before the search, since far
            from all centroids float32 distances are all the same.
    """

    ranges: Box = dataclasses.field(metadata=STATIC)

    def __repr__(self) -> str:
        return f"CVTArchive({jnp.shape(self.centroids)[0]} cells, ranges={self.ranges})"

    @classmethod
    def create(
        cls,
        genotype: Genotypes,
        *,
        centroids: jax.Array | np.ndarray,
        ranges: Sequence[Sequence[float]],
        learning_rate: float = 1.0,
        threshold_min: float = -math.inf,
        qd_score_offset: float = 0.0,
        dtype: Any = jnp.float32,
        extra_scores: Mapping[str, Any] | None = None,
    ) -> Self:
        """Build an empty archive.

        Args:
            genotype: one example latent, Float[D], or a pytree of arrays.
            centroids: Float[C, M], for instance from `cvt_centroids`. Of equally close ones, the
                first counts.
            ranges: (low, high) per measure, finite, low < high.
            learning_rate: alpha in [0, 1].
            threshold_min: where thresholds start; -inf (MAP-Elites) asks for a learning rate of 1.
            qd_score_offset: subtracted from every fitness in the QD-score.
            dtype: in what precision latents are stored, e.g. jnp.bfloat16. Below float32,
                `genotypes` holds bits, which emitters of QDax that do not read it by `select` take
                for latents.
            extra_scores: one example of each extra score to store per elite.

        Raises:
            ValueError: If a setting is out of its range.
        """
        box = checked_ranges(ranges)
        centroids = jnp.asarray(centroids, jnp.float32)
        if centroids.ndim != 2 or centroids.shape[0] < 1 or centroids.shape[1] != len(box):
            raise ValueError(
                f"centroids has shape {centroids.shape} but there are {len(box)} ranges: give "
                f"[number of cells, {len(box)}]."
            )
        _check_finite_and_distinct(centroids)
        return cls._empty(
            genotype,
            centroids,
            learning_rate=learning_rate,
            threshold_min=threshold_min,
            qd_score_offset=qd_score_offset,
            dtype=dtype,
            extra_scores=extra_scores,
            ranges=box,
        )

    @classmethod
    def _create_around(
        cls, genotype: Genotypes, centroids: jax.Array | None, **settings: Any
    ) -> Self:
        if centroids is None:
            raise ValueError("centroids is None: a CVT archive needs them.")
        return cls.create(genotype, centroids=centroids, **settings)

    def settings(self) -> dict[str, Any]:
        """The arguments of `create` that give an empty archive like this one, but the genotype."""
        return {
            "centroids": np.asarray(self.centroids),
            "ranges": self.ranges,
            **super().settings(),
        }

    def _locate(self, descriptors: jax.Array) -> jax.Array:
        low, high = np.asarray(self.ranges, np.float32).T
        points, centroids = (
            (x - low) / (high - low) for x in (jnp.clip(descriptors, low, high), self.centroids)
        )
        return nearest(points, centroids)


def _check_finite_and_distinct(centroids: jax.Array) -> None:
    """Refuse centroids that are the same or nowhere; under `jit` nobody can look."""
    if isinstance(centroids, jax.core.Tracer):
        return
    lost = np.flatnonzero(~np.isfinite(centroids).all(axis=1))
    if len(lost):
        raise ValueError(f"centroid {lost[0]} is {centroids[lost[0]]}: give finite numbers.")
    distinct = len(np.unique(np.asarray(centroids), axis=0))
    if distinct < len(centroids):
        raise ValueError(
            f"of {len(centroids)} centroids float32 can tell {distinct} apart: leave out those "
            "that repeat, or move and scale the measures to ranges around 0."
        )


@named
def cvt_centroids(
    key: jax.Array,
    num_cells: int,
    ranges: Sequence[Sequence[float]],
    *,
    samples: int | None = None,
    iterations: int = 20,
) -> jax.Array:
    """Spread centroids evenly over a box: Lloyd's k-means on uniform samples.

    Args:
        key: a JAX key.
        num_cells: number C of centroids, at least 1.
        ranges: (low, high) per measure, finite, low < high.
        samples: points to cluster; 20 per cell if None, at least one per cell.
        iterations: rounds of assignment and averaging.

    Returns:
        Float[C, M].

    Raises:
        ValueError: If a setting is out of its range.
    """
    numbers = {"num_cells": num_cells, "samples": samples or 0, "iterations": iterations}
    for name, number in numbers.items():
        if not isinstance(number, SupportsIndex):
            raise ValueError(f"{name} is {number!r:.60}: give a whole number; the key comes first.")
    if not isinstance(key, jax.Array):
        raise ValueError(f"key is {key!r:.60}: give jax.random.key(seed), the first argument.")
    count = 20 * num_cells if samples is None else samples
    if num_cells < 1 or count < num_cells or iterations < 0:
        raise ValueError(
            f"num_cells is {num_cells}, samples {count}, iterations {iterations}: give at least "
            "one cell, as many samples as cells, and no negative number."
        )
    low, high = jnp.asarray(checked_ranges(ranges), jnp.float32).T
    # Distances are taken in the unit cube, so that no measure outweighs the others by its unit.
    points = jax.random.uniform(key, (count, len(low)), jnp.float32)
    spread = _lloyd(points, points[:num_cells], operator.index(iterations))
    return jnp.asarray(low + (high - low) * spread)
