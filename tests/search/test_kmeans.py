"""Nearest centroids and Lloyd's rounds, by differences and by products."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from qdgs_jax import kmeans
from qdgs_jax.kmeans import _by_products, cluster, lloyd, nearest


@pytest.mark.parametrize("dim", [2, 16, 17, 200])
def test_the_nearest_is_that_of_all_distances(dim):
    rng = np.random.default_rng(dim)
    # Far from 0, where squared lengths alone would round the differences away.
    points, centroids = (100 + rng.normal(size=(n, dim)).astype(np.float32) for n in (300, 41))
    distances = np.linalg.norm(
        points[:, None].astype(np.float64) - centroids[None].astype(np.float64), axis=-1
    )
    found = jax.jit(nearest)(points, centroids)
    np.testing.assert_array_equal(found, distances.argmin(1))


def test_many_dimensions_take_memory_of_points_plus_centroids():
    shapes = [jax.ShapeDtypeStruct((n, 64), jnp.float32) for n in (4096, 20_000)]
    memory = jax.jit(nearest).lower(*shapes).compile().memory_analysis()
    assert memory.temp_size_in_bytes < 4 * 4096 * 20_000 / 10


run_lloyd = jax.jit(lloyd, static_argnums=2)


@pytest.mark.parametrize("dim", [2, 50])
def test_rounds_find_separate_groups(dim):
    rng = np.random.default_rng(0)
    middles = 20.0 * np.eye(3, dim, dtype=np.float32)
    middles[2] = -20
    points = np.concatenate([m + rng.normal(size=(30, dim)) for m in middles]).astype(np.float32)
    found = run_lloyd(points, points[[0, 30, 60]], 5)
    wanted = points.reshape(3, 30, dim).mean(1)
    np.testing.assert_allclose(found, wanted, atol=1e-5)


def test_a_centroid_without_points_stays():
    points, start = np.zeros((4, 1), np.float32), np.asarray([[1.0], [9.0]], np.float32)
    assert run_lloyd(points, start, 3).tolist() == [[0.0], [9.0]]


def numpy_lloyd(points, clusters, seed, rounds=50):
    """The least inertia that plain rounds from random points reach in five tries."""
    rng, best = np.random.default_rng(seed), np.inf
    for _ in range(5):
        centroids, labels = points[rng.choice(len(points), clusters, replace=False)], None
        for _ in range(rounds):
            squares = ((points[:, None] - centroids[None]) ** 2).sum(-1)
            before, labels = labels, squares.argmin(1)
            if np.array_equal(labels, before):
                break
            for c in range(clusters):
                if (labels == c).any():
                    centroids[c] = points[labels == c].mean(0)
        best = min(best, squares.min(1).sum())
    return best


@pytest.fixture(scope="module")
def groups():
    """Points in twenty groups of about ten."""
    rng = np.random.default_rng(3)
    centres = rng.normal(size=(20, 24))
    return (centres[rng.integers(0, 20, 200)] + 0.3 * rng.normal(size=(200, 24))).astype(np.float32)


@pytest.mark.parametrize("clusters", [20, 100])
def test_a_clustering_is_as_tight_as_plain_rounds_make_it(groups, clusters):
    lines = []
    found = cluster(
        jnp.asarray(groups), clusters, jax.random.key(1), told=lambda *line: lines.append(line)
    )
    assert found.inertia < 1.01 * numpy_lloyd(groups.astype(np.float64), clusters, 0)
    assert np.bincount(found.labels, minlength=clusters).min() >= 1
    means = [groups[found.labels == c].mean(0) for c in range(clusters)]
    exact = ((groups - np.stack(means)[found.labels]) ** 2).sum()
    assert found.inertia == pytest.approx(exact, rel=1e-5)
    inertias = [inertia for _, _, inertia in lines]
    assert inertias == sorted(inertias, reverse=True)
    assert [number for _, number, _ in lines] == list(range(1, found.rounds + 1))


def test_equal_keys_give_equal_clusterings_and_restarts_help(groups):
    points = jnp.asarray(groups)
    one, two = (cluster(points, 20, jax.random.key(5)) for _ in range(2))
    np.testing.assert_array_equal(one.labels, two.labels)
    assert cluster(points, 20, jax.random.key(5), restarts=3).inertia <= one.inertia


def test_no_cluster_is_empty_while_points_differ():
    points = np.repeat(np.eye(8, 20, dtype=np.float32), [1, 1, 1, 1, 1, 1, 1, 20], axis=0)
    found = cluster(jnp.asarray(points), 8, jax.random.key(0))
    assert found.inertia == 0
    assert sorted(np.bincount(found.labels).tolist()) == [1] * 7 + [20]
    more = cluster(jnp.asarray(points), 12, jax.random.key(0))  # than there are different points
    assert more.inertia == 0


def test_a_clustering_holds_no_table_of_points_and_clusters():
    shapes = [jax.ShapeDtypeStruct((n, 256), jnp.float32) for n in (20_000, 10_000)]
    memory = jax.jit(_by_products).lower(*shapes).compile().memory_analysis()
    assert memory.temp_size_in_bytes < 4 * 20_000 * 10_000 / 5


def test_clusters_that_cannot_be_are_refused():
    with pytest.raises(ValueError, match=r"9 clusters of points \[4, 20\]"):
        cluster(jnp.zeros((4, 20)), 9, jax.random.key(0))


@pytest.mark.parametrize("clusters", [20, 100])
def test_looking_again_at_what_has_moved_finds_what_looking_at_everything_finds(
    groups, clusters, monkeypatch
):
    points, key = jnp.asarray(groups), jax.random.key(4)
    seen = []
    real = kmeans._assign

    def assign(points, centroids, itself):
        seen.append(len(points) * len(centroids))
        return real(points, centroids, itself)

    monkeypatch.setattr(kmeans, "_assign", assign)
    whole = cluster(points, clusters, key)
    everything, seen[:] = sum(seen), []
    monkeypatch.setattr(kmeans, "_LARGE", 0)
    again = cluster(points, clusters, key)
    np.testing.assert_array_equal(again.labels, whole.labels)
    assert again.rounds == whole.rounds
    assert sum(seen) < 0.8 * everything


def test_what_is_looked_at_again_comes_in_few_sizes():
    mask = np.zeros(1000, bool)
    mask[[3, 999]] = True
    assert {3, 999} <= set(kmeans._padded(mask).tolist())
    sizes = [len(kmeans._padded(np.arange(1000) < count)) for count in range(1, 1001)]
    assert set(sizes) == {16, 32, 63, 125, 250, 500, 1000}
    assert all(size >= count for count, size in enumerate(sizes, 1))
