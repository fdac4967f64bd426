"""k-means: the nearest of many centroids, Lloyd's rounds, and whole clusterings of large tables.

Distances are looked at chunk by chunk, so that memory stays O(points + centroids) where a table of
all of them takes their product. A clustering (`cluster`) runs its rounds from the host, one program
each: it can be stopped, tells how far it is, and ends when no point changes its cluster.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

# Distances held at a time, per point or centroid, where there are few dimensions.
_CHUNK_SHARE = 32
# Up to so many dimensions distances are sums of squared differences, to the last bit where points
# and centroids nearly agree; beyond, a matrix product is faster by far.
_FEW = 16
# Distances held at a time between points of many dimensions: 64 MB, and large enough products.
_MOST = 2**24
# Draws that the seeds of a clustering come in; k-means++ draws one seed at a time.
_DRAWS = 16


@dataclasses.dataclass(frozen=True)
class Clustering:
    """What `cluster` found.

    Attributes:
        labels: Int32[N], the cluster of each point.
        inertia: sum of the points' squared distances from the means of their clusters.
        rounds: rounds of the restart that was best.
    """

    labels: np.ndarray
    inertia: float
    rounds: int


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
    if points.shape[1] > _FEW:
        return _by_products(points, centroids)[0]
    return _by_differences(points, centroids)


def _by_differences(points: jax.Array, centroids: jax.Array) -> jax.Array:
    """The nearest centroid in few dimensions, some centroids at a time."""
    (count, dim), num_centroids = points.shape, centroids.shape[0]
    chunk = min(num_centroids, max(1, _CHUNK_SHARE * (count + num_centroids) // count))
    num_chunks = -(-num_centroids // chunk)
    padding = (0, num_chunks * chunk - num_centroids)
    padded = jnp.pad(centroids, (padding, (0, 0)), constant_values=jnp.inf)

    def closer(
        best: tuple[jax.Array, jax.Array], part: tuple[jax.Array, jax.Array]
    ) -> tuple[tuple[jax.Array, jax.Array], None]:
        first, some = part
        # Summed dimension by dimension: an array [count, chunk, dim] would be too much.
        squares = (jnp.square(points[:, None, d] - some[None, :, d]) for d in range(dim))
        found = sum(squares, jnp.zeros((count, chunk), points.dtype))
        index = jnp.argmin(found, axis=1).astype(jnp.int32)
        distance = jnp.min(found, axis=1)
        better = distance < best[0]
        centroid = jnp.where(better, first + index, best[1])
        return (jnp.where(better, distance, best[0]), centroid), None

    start = jnp.full(count, jnp.inf, points.dtype), jnp.zeros(count, jnp.int32)
    firsts = jnp.arange(num_chunks, dtype=jnp.int32) * chunk
    (_, centroid), _ = jax.lax.scan(closer, start, (firsts, padded.reshape(num_chunks, chunk, dim)))
    return centroid


def _by_products(points: jax.Array, centroids: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The nearest centroid Int[N] and the squared distance from it Float[N], some points at a time.

    Which one is nearest comes from a matrix product, its distance from the difference itself. The
    last chunk reaches back over the one before it, which spares padded copies of the points.
    """
    (count, dim), num_centroids = points.shape, centroids.shape[0]
    room = min(_MOST, (count + num_centroids) * dim)  # no more than points and centroids take
    chunk = min(count, max(1, room // num_centroids))
    middle = centroids.mean(0)  # far from 0 the squares would round the differences away
    relative = centroids - middle
    lengths = jnp.sum(jnp.square(relative), axis=1)

    def search(number: int, found: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        start = jnp.minimum(number * chunk, count - chunk)
        some = jax.lax.dynamic_slice_in_dim(points, start, chunk)
        products = jax.lax.dot_general(
            some - middle,
            relative,
            (((1,), (1,)), ((), ())),
            precision=jax.lax.Precision.HIGHEST,
        )
        index = jnp.argmin(lengths - 2 * products, axis=1).astype(jnp.int32)
        distance = jnp.sum(jnp.square(some - centroids[index]), axis=1)
        parts = zip(found, (index, distance), strict=True)
        first, second = (jax.lax.dynamic_update_slice_in_dim(a, b, start, 0) for a, b in parts)
        return first, second

    start = jnp.zeros(count, jnp.int32), jnp.zeros(count, points.dtype)
    return jax.lax.fori_loop(0, -(-count // chunk), search, start)


def lloyd(points: jax.Array, centroids: jax.Array, iterations: int) -> jax.Array:
    """Move centroids to the means of the points nearest to them, again and again.

    Args:
        points: Float[N, D], finite.
        centroids: Float[C, D] to start from.
        iterations: rounds, at least 0.

    Returns:
        Float[C, D]. A centroid that no point is nearest to stays where it is.
    """

    def improve(_: int, centroids: jax.Array) -> jax.Array:
        return _means(points, nearest(points, centroids), centroids)

    moved: jax.Array = jax.lax.fori_loop(0, iterations, improve, centroids)
    return moved


def _means(points: jax.Array, groups: jax.Array, centroids: jax.Array) -> jax.Array:
    """Means Float[C, D] of the points of each group; of an empty one, where it was."""
    sums = jax.ops.segment_sum(points, groups, len(centroids))
    ones = jnp.ones(len(points), points.dtype)
    members = jax.ops.segment_sum(ones, groups, len(centroids))[:, None]
    return jnp.where(members > 0, sums / members, centroids)


def cluster(
    points: jax.Array,
    clusters: int,
    key: jax.Array,
    *,
    restarts: int = 1,
    iterations: int = 300,
    told: Callable[[int, int, float], None] = lambda restart, rounds, inertia: None,
) -> Clustering:
    """Share points out among clusters, each point near the mean of its own.

    Seeds are points that lie far from each other, drawn as k-means++ draws them (Arthur &
    Vassilvitskii 2007), but many at a time. Lloyd's rounds follow, until no point changes its
    cluster. A cluster that has lost its points gets, in each round, the one that lies farthest from
    the mean of a cluster with others in it; so none is empty at the end, unless there are fewer
    different points than clusters.

    Args:
        points: Float[N, D], finite.
        clusters: their number C, from 1 to N.
        key: seeds the draws; equal keys give equal clusterings where sums are taken in a fixed
            order, as on processors.
        restarts: whole clusterings to choose the one of least inertia from, at least 1.
        iterations: most rounds of each, at least 1.
        told: called after each round with the restart and round, from 1, and the inertia.

    Raises:
        ValueError: the points or a number do not fit.
    """
    if points.ndim != 2 or not 1 <= clusters <= len(points) or min(restarts, iterations) < 1:
        raise ValueError(
            f"{clusters} clusters of points {list(points.shape)} in {restarts} restarts of "
            f"{iterations} rounds: give points [N, D], from 1 to N clusters, and at least one of "
            "the others."
        )
    best: Clustering | None = None
    for restart in range(restarts):
        seeds = _seeds(points, clusters, jax.random.fold_in(key, restart))
        found = _rounds(points, seeds, iterations, functools.partial(told, restart + 1))
        if best is None or found.inertia < best.inertia:
            best = found
    assert best is not None
    return best


def _rounds(
    points: jax.Array,
    centroids: jax.Array,
    iterations: int,
    told: Callable[[int, float], None],
) -> Clustering:
    """Lloyd's rounds from some centroids, whose memory is used up."""
    clusters = len(centroids)
    before: np.ndarray | None = None
    for number in range(1, iterations + 1):
        labels, distances = map(np.array, _assign(points, centroids))
        told(number, float(distances.sum(dtype=np.float64)))
        _refill(labels, distances, clusters)
        if before is not None and np.array_equal(labels, before):
            break
        before = labels
        centroids = _move(points, jnp.asarray(labels), centroids)
    inertia = _distances(points, centroids, jnp.asarray(labels))
    return Clustering(labels, float(np.asarray(inertia).sum(dtype=np.float64)), number)


def _refill(labels: np.ndarray, distances: np.ndarray, clusters: int) -> None:
    """Give each empty cluster the point farthest from its centroid, in place.

    A cluster never gives its last point away; of equally far points the first goes first.
    """
    members = np.bincount(labels, minlength=clusters)
    empty = np.flatnonzero(members == 0).tolist()
    if not empty:
        return
    for point in np.argsort(-distances, kind="stable"):
        if not empty or distances[point] == 0:
            break
        if members[labels[point]] > 1:
            members[labels[point]] -= 1
            labels[point] = empty.pop(0)
            distances[point] = 0


def _seeds(points: jax.Array, clusters: int, key: jax.Array) -> jax.Array:
    """Points to start from, Float[C, D]; the farther from those drawn before, the likelier.

    Each draw is without repetition (Gumbel's top k), in proportion to squared distances.
    """
    at_a_time = -(-clusters // _DRAWS)
    nearness = jnp.ones(len(points), points.dtype)
    chosen: list[jax.Array] = []
    for start in range(0, clusters, at_a_time):
        count = min(at_a_time, clusters - start)
        index = _draw(nearness, jax.random.fold_in(key, start), count)
        chosen.append(index)
        if start + count < clusters:
            far = _distance_from(points, points[index])
            nearness = far if start == 0 else jnp.minimum(nearness, far)
    return points[jnp.concatenate(chosen)]


@functools.partial(jax.jit, static_argnames="count")
def _draw(weights: jax.Array, key: jax.Array, count: int) -> jax.Array:
    noise = jax.random.gumbel(key, weights.shape, weights.dtype)
    return jax.lax.top_k(jnp.log(weights) + noise, count)[1]


@jax.jit
def _distance_from(points: jax.Array, centroids: jax.Array) -> jax.Array:
    return _by_products(points, centroids)[1]


_assign = jax.jit(_by_products)
_move = jax.jit(_means, donate_argnames="centroids")


@jax.jit
def _distances(points: jax.Array, centroids: jax.Array, groups: jax.Array) -> jax.Array:
    """Squared distance Float[N] of each point from the centroid of its group."""

    def one(part: tuple[jax.Array, jax.Array]) -> jax.Array:
        point, group = part
        return jnp.sum(jnp.square(point - centroids[group]))

    return jax.lax.map(one, (points, groups), batch_size=min(len(points), 256))
