"""k-means: the nearest of many centroids, and Lloyd's rounds of assignment and averaging.

The nearest centroid is searched chunk by chunk, so that memory stays O(points + centroids) where a
table of all distances takes their product.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

# Distances held at a time, per point or centroid.
_CHUNK_SHARE = 32
# Up to so many dimensions distances are sums of squared differences, to the last bit where points
# and centroids nearly agree; beyond, a matrix product is faster by far.
_FEW = 16


def nearest(points: jax.Array, centroids: jax.Array) -> jax.Array:
    """Find the centroid nearest to each point; the first of equally close ones.

    With more than 16 dimensions, distances come from |c|^2 - 2 c p: centroids whose distances
    differ by less than the rounding of the squared lengths may be taken for each other.

    Args:
        points: Float[N, D], finite.
        centroids: Float[C, D].

    Returns:
        Int[N].
    """
    (count, dim), num_centroids = points.shape, centroids.shape[0]
    chunk = min(num_centroids, max(1, _CHUNK_SHARE * (count + num_centroids) // count))
    num_chunks = -(-num_centroids // chunk)
    by_products = dim > _FEW
    if by_products:  # far from 0 the squares would round the differences away
        middle = centroids.mean(0)
        points, centroids = points - middle, centroids - middle
    padding = (0, num_chunks * chunk - num_centroids)
    padded = jnp.pad(centroids, (padding, (0, 0)), constant_values=0 if by_products else jnp.inf)
    squares = jnp.pad(jnp.sum(centroids**2, axis=1), padding, constant_values=jnp.inf)

    def distances(some: jax.Array, lengths: jax.Array) -> jax.Array:
        if by_products:
            return lengths - 2 * jnp.matmul(points, some.T, precision=jax.lax.Precision.HIGHEST)
        # Summed dimension by dimension: an array [count, chunk, dim] would be too much.
        parts = (jnp.square(points[:, None, d] - some[None, :, d]) for d in range(dim))
        return sum(parts, jnp.zeros((count, chunk), points.dtype))

    def closer(
        best: tuple[jax.Array, jax.Array], part: tuple[jax.Array, jax.Array, jax.Array]
    ) -> tuple[tuple[jax.Array, jax.Array], None]:
        first, some, lengths = part
        found = distances(some, lengths)
        index = jnp.argmin(found, axis=1).astype(jnp.int32)
        distance = jnp.min(found, axis=1)
        better = distance < best[0]
        centroid = jnp.where(better, first + index, best[1])
        return (jnp.where(better, distance, best[0]), centroid), None

    start = jnp.full(count, jnp.inf, points.dtype), jnp.zeros(count, jnp.int32)
    parts = (
        jnp.arange(num_chunks, dtype=jnp.int32) * chunk,
        padded.reshape(num_chunks, chunk, dim),
        squares.reshape(num_chunks, chunk),
    )
    (_, centroid), _ = jax.lax.scan(closer, start, parts)
    return centroid


def lloyd(points: jax.Array, centroids: jax.Array, iterations: int) -> jax.Array:
    """Move centroids to the means of the points nearest to them, again and again.

    Args:
        points: Float[N, D], finite.
        centroids: Float[C, D] to start from.
        iterations: rounds, at least 0.

    Returns:
        Float[C, D]. A centroid that no point is nearest to stays where it is.
    """
    count, num_centroids = points.shape[0], centroids.shape[0]

    def improve(_: int, centroids: jax.Array) -> jax.Array:
        group = nearest(points, centroids)
        sums = jax.ops.segment_sum(points, group, num_centroids)
        members = jax.ops.segment_sum(jnp.ones(count, points.dtype), group, num_centroids)[:, None]
        return jnp.where(members > 0, sums / members, centroids)

    moved: jax.Array = jax.lax.fori_loop(0, iterations, improve, centroids)
    return moved
