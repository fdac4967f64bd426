"""k-means: the nearest of many centroids, Lloyd's rounds, and whole clusterings of large tables.

Distances are looked at chunk by chunk, so that memory stays O(points + centroids) where a table of
all of them takes their product. A clustering (`cluster`) runs its rounds from the host, one program
each: it can be stopped, tells how far it is, and ends when no point changes its cluster.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

# Distances held at a time, per point or centroid, where there are few dimensions.
_CHUNK_SHARE = 32
# Up to so many dimensions distances are sums of squared differences, to the last bit where points
# and centroids nearly agree; beyond, a matrix product is faster by far.
_FEW = 16
# Distances held at a time between points of many dimensions: 128 MB, and large enough products.
_MOST = 2**25
# Products of points, centroids and dimensions from which on a round looks again only at what the
# last one moved; below, looking at everything costs less than compiling programs of more sizes.
_LARGE = 10**11
# What is looked at again is rounded up to a half, a quarter, ... of everything, down to this one.
_SMALLEST_PART = 64
# Exchanges of clusters go on while one takes off more than this share of the inertia.
_WORTH = 1e-3
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


class Nearest(NamedTuple):
    """The nearest centroid of each point, Int32[N], and the squared distance from it, Float[N]."""

    labels: np.ndarray
    distances: np.ndarray


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


def _by_products(
    points: jax.Array, centroids: jax.Array, itself: jax.Array | None = None
) -> tuple[jax.Array, jax.Array]:
    """The nearest centroid Int[N] and the squared distance from it Float[N], some points at a time.

    `itself` Int[N] is the centroid that each point may not have, or -1.

    Which one is nearest comes from a matrix product, its distance from the difference itself. The
    last chunk reaches back over the one before it, which spares padded copies of the points.
    """
    (count, dim), num_centroids = points.shape, centroids.shape[0]
    room = min(_MOST, (count + num_centroids) * dim)  # no more than points and centroids take
    chunks = -(-count // max(1, room // num_centroids))
    chunk = -(-count // chunks)  # evenly, so that the last one reaches back over few
    middle = centroids.mean(0)  # far from 0 the squares would round the differences away
    relative = centroids - middle
    lengths = jnp.sum(jnp.square(relative), axis=1)

    def search(number: int, found: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        start = jnp.minimum(number * chunk, count - chunk)
        some = jax.lax.dynamic_slice_in_dim(points, start, chunk)
        # XLA's CPU backend is slow with a product of an array with itself, which the barrier hides.
        products = jax.lax.dot_general(
            jax.lax.optimization_barrier(some - middle),  # type: ignore[no-untyped-call]
            relative,
            (((1,), (1,)), ((), ())),
            precision=jax.lax.Precision.HIGHEST,
        )
        apart = lengths - 2 * products
        if itself is not None:
            barred = jax.lax.dynamic_slice_in_dim(itself, start, chunk)
            own = barred[:, None] == jnp.arange(num_centroids)
            apart = jnp.where(own, jnp.inf, apart)
        index = jnp.argmin(apart, axis=1).astype(jnp.int32)
        distance = jnp.sum(jnp.square(some - centroids[index]), axis=1)
        parts = zip(found, (index, distance), strict=True)
        first, second = (jax.lax.dynamic_update_slice_in_dim(a, b, start, 0) for a, b in parts)
        return first, second

    start = jnp.zeros(count, jnp.int32), jnp.zeros(count, points.dtype)
    return jax.lax.fori_loop(0, chunks, search, start)


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
    cluster. Then clusters are exchanged: two near ones become one wherever that costs less than
    what it gains to take the farthest point out of another, and rounds follow again, while it
    helps. A cluster that has lost its points gets, in each round, the one that lies farthest from
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
            f"{iterations} rounds: give points [N, D], 1 to N clusters, and 1 or more of the rest."
        )
    found = []
    for number in range(restarts):
        seeds = _seeds(points, clusters, jax.random.fold_in(key, number))
        found.append(_rounds(points, *seeds, iterations, functools.partial(told, number + 1)))
    return min(found, key=lambda each: each.inertia)


def _rounds(
    points: jax.Array,
    centroids: jax.Array,
    nearest_now: Nearest,
    iterations: int,
    told: Callable[[int, float], None],
) -> Clustering:
    """Lloyd's rounds from centroids, whose memory is used up, and the nearest of each point."""
    clusters = len(centroids)
    before, last = None, math.inf
    neighbours: Nearest | None = None
    moved = since = np.ones(clusters, bool)  # in the last round; since neighbours were looked for
    for number in range(1, iterations + 1):
        if before is not None:
            nearest_now = _look_again(points, centroids, nearest_now, moved)
        labels, distances = nearest_now
        inertia = float(distances.sum(dtype=np.float64))
        told(number, inertia)
        _refill(labels, distances, clusters)
        if before is not None and np.array_equal(labels, before):
            if inertia > (1 - _WORTH) * last:
                break
            neighbours = _look_again(centroids, centroids, neighbours, since, others=True)
            since = np.zeros(clusters, bool)
            if not _exchange(labels, distances, clusters, neighbours):
                break
            last = inertia
        if before is not None:
            changed = labels != before
            moved = np.zeros(clusters, bool)
            moved[labels[changed]] = moved[before[changed]] = True
        since = since | moved
        before = labels.copy()
        centroids = _move(points, jnp.asarray(labels), centroids)
    found = np.asarray(_distances(points, centroids, jnp.asarray(labels)))
    return Clustering(labels, float(found.sum(dtype=np.float64)), number)


def _look_again(
    points: jax.Array,
    centroids: jax.Array,
    known: Nearest | None,
    moved: np.ndarray,
    others: bool = False,
) -> Nearest:
    """The nearest centroid of each point, after some of the centroids have moved.

    A point that its centroid has not left behind is as near to it as it was to the nearest of all,
    so only centroids that have moved can be nearer now. All of them are looked at for the others.

    Args:
        points: Float[N, D].
        centroids: Float[C, D].
        known: what was nearest before the move, if known; labels may have been changed since.
        moved: Bool[C]. Centroids that have not moved are no nearer to a point than `known` says.
        others: whether the points are the centroids, and none is its own nearest.
    """
    (count, dim), clusters = points.shape, len(centroids)
    everyone = np.arange(count, dtype=np.int32) if others else None
    if known is None or moved.all() or count * dim * clusters < _LARGE:
        return Nearest(*map(np.array, _assign(points, centroids, everyone)))
    labels = known.labels.copy()
    now = np.asarray(_distances(points, centroids, jnp.asarray(labels)))
    distances = np.where(moved[labels], now, known.distances)
    left = distances > known.distances
    if others:
        left |= moved  # the points have moved themselves
    rows = _padded(moved)
    place = np.full(clusters, -1, np.int32)
    place[rows] = np.arange(len(rows))
    itself = jnp.asarray(place) if others else None
    index, found = map(np.array, _assign(points, centroids[rows], itself))
    nearer = found < distances
    labels[nearer], distances[nearer] = rows[index[nearer]], found[nearer]
    if left.any():
        rows = _padded(left)
        itself = jnp.asarray(rows, jnp.int32) if others else None
        labels[rows], distances[rows] = _assign(points[rows], centroids, itself)
    return Nearest(labels, distances)


def _padded(mask: np.ndarray) -> np.ndarray:
    """Indices of a mask and as many others as make one of few numbers, in order."""
    count, size = int(mask.sum()), len(mask)
    while size >= 2 * max(1, count) and size > -(-len(mask) // _SMALLEST_PART):
        size = -(-size // 2)
    return np.sort(np.argsort(~mask, kind="stable")[:size])


def _exchange(
    labels: np.ndarray, distances: np.ndarray, clusters: int, neighbours: Nearest
) -> bool:
    """Join clusters and take points out of others, in place, wherever that lowers the inertia.

    Joining clusters of a and b points adds ab / (a + b) times the squared distance of their means;
    taking a point out of n saves n / (n - 1) times its squared distance. No cluster takes part
    twice, so that what is added and saved is exact. There is no empty cluster, and `distances` are
    from the means, whose nearest `neighbours` are given. Returns whether anything has changed.
    """
    if clusters < 3:
        return False
    members = np.bincount(labels, minlength=clusters)
    other, apart = neighbours
    costs = members * members[other] / np.maximum(members + members[other], 1) * apart
    farthest = np.zeros(clusters, np.int64)
    order = np.argsort(distances, kind="stable")
    farthest[labels[order]] = order  # the last one assigned is the farthest
    gains = np.where(members > 1, members / np.maximum(members - 1, 1) * distances[farthest], 0.0)
    joins = iter(np.argsort(costs, kind="stable").tolist())
    free = np.ones(clusters, bool)
    renamed = np.arange(clusters)
    taken: list[tuple[int, int]] = []
    for split in np.argsort(-gains, kind="stable").tolist():
        if not free[split]:
            continue
        free[split] = False
        join = next((j for j in joins if free[j] and free[other[j]]), None)
        if join is None or costs[join] >= gains[split]:
            break
        free[[join, other[join]]] = False
        renamed[join] = other[join]
        taken.append((int(farthest[split]), join))
    labels[:] = renamed[labels]
    for point, cluster in taken:
        labels[point] = cluster
    return bool(taken)


def _refill(labels: np.ndarray, distances: np.ndarray, clusters: int) -> None:
    """Give each empty cluster the point farthest from its centroid, in place.

    A cluster never gives its last point away; of equally far points the first goes first.
    """
    members = np.bincount(labels, minlength=clusters)
    empty = np.flatnonzero(members == 0).tolist()
    for point in np.argsort(-distances, kind="stable") if empty else ():
        if not empty or distances[point] == 0:
            break
        if members[labels[point]] > 1:
            members[labels[point]] -= 1
            labels[point] = empty.pop(0)
            distances[point] = 0


def _seeds(points: jax.Array, clusters: int, key: jax.Array) -> tuple[jax.Array, Nearest]:
    """Points to start from, Float[C, D]; the farther from those drawn before, the likelier.

    Each draw is without repetition (Gumbel's top k), in proportion to squared distances, which are
    kept: at the end the nearest seed of every point is known.
    """
    at_a_time = -(-clusters // _DRAWS)
    weights = jnp.asarray(np.ones(len(points), points.dtype))
    known = Nearest(np.zeros(len(points), np.int32), np.full(len(points), np.inf, points.dtype))
    chosen: list[jax.Array] = []
    for start in range(0, clusters, at_a_time):
        count = min(at_a_time, clusters - start)
        chosen.append(_draw(points, weights, jax.random.fold_in(key, start), count))
        index, distance = map(np.asarray, _assign(points, chosen[-1], None))
        nearer = distance < known.distances
        known.labels[nearer], known.distances[nearer] = start + index[nearer], distance[nearer]
        weights = jnp.asarray(known.distances)
    return jnp.concatenate(chosen), known


@functools.partial(jax.jit, static_argnames="count")
def _draw(points: jax.Array, weights: jax.Array, key: jax.Array, count: int) -> jax.Array:
    noise = jax.random.gumbel(key, weights.shape, weights.dtype)
    return points[jax.lax.top_k(jnp.log(weights) + noise, count)[1]]


_assign = jax.jit(_by_products)
_move = jax.jit(_means, donate_argnames="centroids")


@jax.jit
def _distances(points: jax.Array, centroids: jax.Array, groups: jax.Array) -> jax.Array:
    """Squared distance Float[N] of each point from the centroid of its group."""
    return jax.lax.map(
        lambda part: jnp.sum(jnp.square(part[0] - centroids[part[1]])),
        (points, groups),
        batch_size=min(len(points), 256),
    )
