"""The CVT archive: nearest centroids without a table of all distances."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from qdax.core.containers.mapelites_repertoire import get_cells_indices

from qdgs_jax.archive.cvt import CVTArchive, cvt_centroids
from qdgs_jax.kmeans import nearest

BOX = ((-1.0, 1.0), (0.0, 10.0), (5.0, 6.0))


@pytest.fixture(scope="module")
def archive():
    centroids = cvt_centroids(jax.random.key(0), 37, BOX, iterations=5)
    return CVTArchive.create(np.zeros(2, np.float32), centroids=centroids, ranges=BOX)


def test_cells_are_those_of_qdax_where_ranges_have_one_length():
    box = ((-1.0, 1.0), (0.0, 2.0), (5.0, 7.0))
    centroids = cvt_centroids(jax.random.key(0), 37, box, iterations=5)
    archive = CVTArchive.create(np.zeros(2, np.float32), centroids=centroids, ranges=box)
    points = uniform(box, 200)
    wanted = get_cells_indices(points, archive.centroids)
    np.testing.assert_array_equal(archive.cell_of(points), wanted)
    # A few candidates are compared with all centroids at once, many in chunks.
    np.testing.assert_array_equal(archive.cell_of(points[:1]), wanted[:1])


def test_cells_do_not_depend_on_the_units_of_measures(archive):
    low, high = np.asarray(BOX).T
    points = uniform(BOX, 200)
    wanted = get_cells_indices(
        (points - low) / (high - low), (archive.centroids - low) / (high - low)
    )
    np.testing.assert_array_equal(archive.cell_of(points), wanted)


def uniform(box, count):
    low, high = np.asarray(box).T
    return jnp.asarray(np.random.default_rng(0).uniform(low, high, (count, len(box))), jnp.float32)


def test_of_equally_close_centroids_the_first_counts():
    centroids = jnp.asarray([[3.0], [1.0], [-1.0], [1.0]])
    assert nearest(jnp.zeros((50, 1)), centroids).tolist() == [1] * 50


def test_far_and_missing_measures(archive):
    points = [[1e9, 1e9, -1e9], [1.0, 10.0, 5.0], [np.nan, 1.0, 5.0], [np.inf, 1.0, 5.0]]
    far, corner, nan, infinite = archive.cell_of(jnp.asarray(points, jnp.float32))
    assert far == corner
    assert nan == infinite == archive.num_cells


def test_insertion_is_that_of_every_archive(archive):
    descriptors = archive.centroids[jnp.asarray([4, 4, 9])]
    genotypes = jnp.asarray([[1.0, 1.0], [2.0, 2.0], [3.0, 3.0]])
    inserted, info = archive.add_with_info(genotypes, descriptors, jnp.asarray([1.0, 2.0, 3.0]))
    assert info.cell.tolist() == [4, 4, 9]
    assert inserted.genotypes[4].tolist() == [2.0, 2.0]
    assert inserted.num_elites == 2


def test_memory_grows_with_batch_plus_cells():
    shapes = [jax.ShapeDtypeStruct((n, 3), jnp.float32) for n in (4096, 20_000)]
    memory = jax.jit(nearest).lower(*shapes).compile().memory_analysis()
    all_distances = 4 * 4096 * 20_000
    assert memory.temp_size_in_bytes < all_distances / 10


def test_cells_spread_evenly_over_the_box():
    low, high = np.asarray(BOX).T
    centroids = cvt_centroids(jax.random.key(1), 27, BOX)
    assert ((centroids > low) & (centroids < high)).all()
    archive = CVTArchive.create(np.zeros(2), centroids=centroids, ranges=BOX)
    points = uniform(BOX, 2000)
    cell = archive.cell_of(points)
    share = np.bincount(cell, minlength=27) / 2000
    assert share.max() < 2.5 / 27
    assert share.min() > 0.25 / 27
    # As shares of the ranges, cells are equally wide in every measure, about a third.
    offset = jnp.abs(points - centroids[cell]).mean(0) / (high - low)
    assert offset.max() < 0.12


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"centroids": np.zeros((4, 2)), "ranges": BOX}, r"shape \(4, 2\) but there are 3 ranges"),
        ({"centroids": np.zeros((0, 3)), "ranges": BOX}, r"shape \(0, 3\)"),
        (
            {"centroids": 1e8 + np.arange(10.0)[:, None], "ranges": ((1e8, 1e8 + 10),)},
            "of 10 centroids float32 can tell 3 apart",
        ),
        ({"centroids": np.zeros((4, 1)), "ranges": ((1, 0),)}, "low < high"),
        ({"centroids": np.zeros((4, 1)), "ranges": (0, 1)}, r"one \(low, high\) pair"),
    ],
)
def test_settings_are_checked(settings, message):
    with pytest.raises(ValueError, match=message):
        CVTArchive.create(np.zeros(2), **settings)


def test_fewer_samples_than_cells_and_empty_ranges_are_refused():
    with pytest.raises(ValueError, match="samples 3"):
        cvt_centroids(jax.random.key(0), 4, BOX, samples=3)
    with pytest.raises(ValueError, match=r"\(1.0, 1.0\).*low < high"):
        cvt_centroids(jax.random.key(0), 4, ((1, 1), (0, 1)))
