"""The grid archive: measure space cut into cells of equal size.

A cell is found by arithmetic, O(1) for each candidate, where QDax compares with all centroids. How
candidates meet the archive is told in `base`.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Mapping, Sequence
from typing import Any, Self

import jax
import jax.numpy as jnp
import numpy as np

from qdgs_jax.archive.base import STATIC, Genotypes
from qdgs_jax.archive.exchange import Archive
from qdgs_jax.box import Box, check_resolution, checked_dims, checked_ranges

# Added to a scaled measure, so that one a rounding error below a boundary belongs to the upper
# cell; the value is pyribs'.
_CELL_EPSILON = 1e-6


class GridArchive(Archive):
    """Cells of equal size in a box of measure space, found by arithmetic.

    A measure x with n cells on [lo, hi] belongs to cell `trunc((n (x - lo) + 1e-6) / (hi - lo))`,
    clipped into the grid; the last measure varies fastest in a cell's number.

    Attributes:
        dims: number of cells per measure.
        ranges: (low, high) per measure.
    """

    dims: tuple[int, ...] = dataclasses.field(metadata=STATIC)
    ranges: Box = dataclasses.field(metadata=STATIC)

    def __repr__(self) -> str:
        return f"GridArchive(dims={self.dims}, ranges={self.ranges})"

    @classmethod
    def create(
        cls,
        genotype: Genotypes,
        *,
        dims: Sequence[int],
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
            dims: number of cells per measure, each at least 1.
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
        shape = checked_dims(dims, len(box))
        check_resolution(shape, box)
        return cls._empty(
            genotype,
            _grid_centroids(shape, box),
            learning_rate=learning_rate,
            threshold_min=threshold_min,
            qd_score_offset=qd_score_offset,
            dtype=dtype,
            extra_scores=extra_scores,
            dims=shape,
            ranges=box,
        )

    @classmethod
    def _create_around(
        cls, genotype: Genotypes, centroids: jax.Array | None, **settings: Any
    ) -> Self:
        archive = cls.create(genotype, **settings)
        if centroids is None:
            return archive
        if centroids.shape != archive.centroids.shape:
            raise ValueError(
                f"centroids has shape {centroids.shape} but the grid {archive.dims} has "
                f"{archive.centroids.shape}: pass None, or the centroids of that grid."
            )
        if not isinstance(centroids, jax.core.Tracer):  # under `jit` nobody can look
            cells = archive.cell_of(jnp.asarray(centroids, jnp.float32))
            other = np.asarray(cells) != np.arange(archive.num_cells)
            if other.any():
                row = int(np.argmax(other))
                raise ValueError(
                    f"centroid {row} lies in cell {cells[row]} of the grid {archive.dims}, where "
                    "the last measure varies fastest; QDax's compute_euclidean_centroids has "
                    "another order. Pass None, or the centroids of `GridArchive.create`."
                )
        return archive

    def settings(self) -> dict[str, Any]:
        """The arguments of `create` that give an empty archive like this one, but the genotype."""
        return {"dims": self.dims, "ranges": self.ranges, **super().settings()}

    def _locate(self, descriptors: jax.Array) -> jax.Array:
        dims = np.asarray(self.dims, np.float32)
        low, high = np.asarray(self.ranges, np.float32).T
        scaled = (dims * (descriptors - low) + np.float32(_CELL_EPSILON)) / (high - low)
        # Clipped before the cast, which would wrap or saturate beyond the range of int32.
        index = jnp.clip(scaled, 0, dims - 1).astype(jnp.int32)
        strides = np.cumprod((1, *self.dims[:0:-1]))[::-1].astype(np.int32)
        return jnp.sum(index * strides, axis=-1, dtype=jnp.int32)


@functools.partial(jax.jit, static_argnums=(0, 1))
def _grid_centroids(dims: tuple[int, ...], ranges: Box) -> jax.Array:
    """Centres of the cells, Float[C, M], the last measure varying fastest."""
    index = jnp.stack(jnp.unravel_index(jnp.arange(math.prod(dims)), dims), axis=-1)
    low, high = np.asarray(ranges, np.float32).T
    return (low + (high - low) * (index + np.float32(0.5)) / np.asarray(dims, np.float32)).astype(
        jnp.float32
    )
