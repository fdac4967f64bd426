"""The CVT archive: cells around given centroids, for more measures than a grid can have.

CVT-MAP-Elites (Vassiliades, Chatzilygeroudis & Mouret 2018, "Using Centroidal Voronoi Tessellations
to Scale Up the Multidimensional Archive of Phenotypic Elites Algorithm", arXiv:1610.05729). The
nearest centroid is searched chunk by chunk, so that memory stays O(batch + cells) where QDax's
search takes O(batch * cells).
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any, Self

import jax
import jax.numpy as jnp
import numpy as np

from qdgs_jax.archive.base import STATIC, Archive, Genotypes, checked_ranges

# Distances held at a time, per candidate or cell.
_CHUNK_SHARE = 32


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

    ranges: tuple[tuple[float, float], ...] = dataclasses.field(metadata=STATIC)

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

    def cell_of(self, descriptors: jax.Array) -> jax.Array:
        """Cells Int[B] of descriptors Float[B, M]; C for a row that is not finite."""
        low, high = np.asarray(self.ranges, np.float32).T
        finite = jnp.all(jnp.isfinite(descriptors), axis=-1)
        points, centroids = (
            (x - low) / (high - low) for x in (jnp.clip(descriptors, low, high), self.centroids)
        )
        cell = nearest(points, centroids)
        return jnp.where(finite, cell, self.num_cells)


def nearest(points: jax.Array, centroids: jax.Array) -> jax.Array:
    """Find the centroid nearest to each point; the first of equally close ones.

    Args:
        points: Float[B, M].
        centroids: Float[C, M].

    Returns:
        Int[B].
    """
    (batch, measures), num_cells = points.shape, centroids.shape[0]
    chunk = min(num_cells, max(1, _CHUNK_SHARE * (batch + num_cells) // batch))
    num_chunks = -(-num_cells // chunk)
    padding = ((0, num_chunks * chunk - num_cells), (0, 0))
    padded = jnp.pad(centroids, padding, constant_values=jnp.inf)

    def closer(
        best: tuple[jax.Array, jax.Array], part: tuple[jax.Array, jax.Array]
    ) -> tuple[tuple[jax.Array, jax.Array], None]:
        first, some = part
        # Summed measure by measure: an array [batch, chunk, measures] would be too much.
        squares = (jnp.square(points[:, None, m] - some[None, :, m]) for m in range(measures))
        distances = sum(squares, jnp.zeros((batch, chunk)))
        index = jnp.argmin(distances, axis=1)
        distance = jnp.min(distances, axis=1)
        better = distance < best[0]
        cell = jnp.where(better, first + index, best[1])
        return (jnp.where(better, distance, best[0]), cell), None

    start = jnp.full(batch, jnp.inf), jnp.zeros(batch, jnp.int32)
    parts = jnp.arange(num_chunks) * chunk, padded.reshape(num_chunks, chunk, measures)
    (_, cell), _ = jax.lax.scan(closer, start, parts)
    return cell


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
    count = 20 * num_cells if samples is None else samples
    if num_cells < 1 or count < num_cells or iterations < 0:
        raise ValueError(
            f"num_cells is {num_cells}, samples {count}, iterations {iterations}: give at least "
            "one cell, as many samples as cells, and no negative number."
        )
    low, high = jnp.asarray(checked_ranges(ranges), jnp.float32).T
    # Distances are taken in the unit cube, so that no measure outweighs the others by its unit.
    points = jax.random.uniform(key, (count, len(low)))

    def improve(_: int, centroids: jax.Array) -> jax.Array:
        group = nearest(points, centroids)
        sums = jax.ops.segment_sum(points, group, num_cells)
        counts = jax.ops.segment_sum(jnp.ones(count), group, num_cells)[:, None]
        return jnp.where(counts > 0, sums / counts, centroids)

    spread: jax.Array = jax.lax.fori_loop(0, iterations, improve, points[:num_cells])
    return jnp.asarray(low + (high - low) * spread)
