"""Nearest centroids and Lloyd's rounds, by differences and by products."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from qdgs_jax.kmeans import lloyd, nearest


@pytest.mark.parametrize("dim", [2, 16, 17, 200])
def test_the_nearest_is_that_of_all_distances(dim):
    rng = np.random.default_rng(dim)
    # Far from 0, where squared lengths alone would round the differences away.
    points, centroids = (100 + rng.normal(size=(n, dim)).astype(np.float32) for n in (300, 41))
    distances = np.linalg.norm(
        points[:, None].astype(np.float64) - centroids[None].astype(np.float64), axis=-1
    )
    found = nearest(jnp.asarray(points), jnp.asarray(centroids))
    np.testing.assert_array_equal(found, distances.argmin(1))


def test_many_dimensions_take_memory_of_points_plus_centroids():
    shapes = [jax.ShapeDtypeStruct((n, 64), jnp.float32) for n in (4096, 20_000)]
    memory = jax.jit(nearest).lower(*shapes).compile().memory_analysis()
    assert memory.temp_size_in_bytes < 4 * 4096 * 20_000 / 10


@pytest.mark.parametrize("dim", [2, 50])
def test_rounds_find_separate_groups(dim):
    rng = np.random.default_rng(0)
    middles = 20.0 * np.eye(3, dim, dtype=np.float32)
    middles[2] = -20
    points = np.concatenate([m + rng.normal(size=(30, dim)) for m in middles]).astype(np.float32)
    found = lloyd(jnp.asarray(points), jnp.asarray(points[[0, 30, 60]]), 5)
    wanted = points.reshape(3, 30, dim).mean(1)
    np.testing.assert_allclose(found, wanted, atol=1e-5)


def test_a_centroid_without_points_stays():
    points, start = jnp.zeros((4, 1)), jnp.asarray([[1.0], [9.0]])
    assert lloyd(points, start, 3).tolist() == [[0.0], [9.0]]
