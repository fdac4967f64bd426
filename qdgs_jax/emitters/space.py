"""The spaces that emitters work in: latents with their bounds, and the extents of the measures."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

Bounds = tuple[float, float] | None  # of every component of a candidate

# Of products: accelerators would round the factors to TF32 or bfloat16.
HIGHEST = jax.lax.Precision.HIGHEST


def clip(genotypes: jax.Array, bounds: Bounds) -> jax.Array:
    """Genotypes inside `bounds`."""
    return genotypes if bounds is None else jnp.clip(genotypes, *bounds)


def start_points(genotypes: jax.Array, num_emitters: int) -> jax.Array:
    """Spread start latents: Float[E, D] of at least single precision, genotypes[e % n] at e.

    Raises:
        ValueError: If genotypes is not Float[n, D] with n >= 1.
    """
    if getattr(genotypes, "ndim", 0) != 2 or genotypes.shape[0] < 1:
        shape = getattr(genotypes, "shape", type(genotypes).__name__)
        raise ValueError(f"genotypes has shape {shape}: give start latents Float[n, D], n >= 1.")
    dtype = jnp.promote_types(genotypes.dtype, jnp.float32)
    return jnp.asarray(genotypes, dtype)[jnp.arange(num_emitters) % genotypes.shape[0]]


def origin(repertoire: Any, count: int) -> jax.Array:
    """Zeros Float[count, D] for the latents of a repertoire."""
    dtype = jnp.promote_types(repertoire.genotypes.dtype, jnp.float32)
    return jnp.zeros((count, repertoire.genotypes.shape[1]), dtype)


def extent(repertoire: Any) -> jax.Array:
    """Extents Float[M] of a repertoire's cells per measure; 1 where they have none."""
    centroids = repertoire.centroids
    width = centroids.max(0) - centroids.min(0)
    return jnp.where(width > 0, width, jnp.ones_like(width))
