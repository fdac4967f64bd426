"""What the grid archive does with hard candidates, and what it refuses."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from qdax.core.containers.mapelites_repertoire import (
    MapElitesRepertoire,
    compute_euclidean_centroids,
)
from qdax.core.emitters.repertoire_selectors.uniform_selector import UniformSelector

from qdgs_jax.archive import GridArchive

GRID = {"dims": (2, 2), "ranges": ((-1, 1), (-1, 1))}
add_with_info = jax.jit(GridArchive.add_with_info)


@pytest.fixture(scope="module")
def archive():
    """Empty, 2x2 cells over [-1, 1]^2."""
    return GridArchive.create(np.zeros(3, np.float32), **GRID)


def offer(archive, *candidates):
    """Insert (descriptor, fitness) pairs; the latents number them from 1.

    Always as a batch of 4, filled up with candidates that are rejected, so that it compiles once.
    """
    count = len(candidates)
    nothing = ((np.nan,) * archive.centroids.shape[1], np.nan)
    candidates += (nothing,) * (4 - count)
    descriptors = np.asarray([c[0] for c in candidates], np.float32)
    fitnesses = np.asarray([c[1] for c in candidates], np.float32)
    genotypes = np.repeat(np.arange(1, 5, dtype=np.float32)[:, None], 3, axis=1)
    archive, info = add_with_info(archive, genotypes, descriptors, fitnesses)
    return jax.device_get(archive), jax.tree.map(lambda x: np.asarray(x)[:count], info)


@pytest.mark.parametrize(
    ("descriptor", "cell"),
    [
        pytest.param((-0.5, -0.5), 0, id="lower cells"),
        pytest.param((0.0, -0.5), 2, id="inner edge belongs to the upper cell"),
        pytest.param((1.0, 1.0), 3, id="upper edge belongs to the last cell"),
        pytest.param((1e9, -1e9), 2, id="far outside lands in the edge cell"),
        pytest.param((-3e38, 3e38), 1, id="the largest floats too"),
    ],
)
def test_a_candidate_lands_in_its_cell(archive, descriptor, cell):
    inserted, info = offer(archive, (descriptor, 0.5))
    assert info.cell.tolist() == [cell]
    assert info.status.tolist() == [2]
    assert inserted.fitnesses[cell, 0] == 0.5
    assert inserted.descriptors[cell].tolist() == pytest.approx(descriptor)


@pytest.mark.parametrize(
    ("descriptor", "fitness"),
    [
        pytest.param((np.nan, 0.5), 0.5, id="NaN measure"),
        pytest.param((0.5, np.inf), 0.5, id="infinite measure"),
        pytest.param((0.5, -np.inf), 0.5, id="negatively infinite measure"),
        pytest.param((0.5, 0.5), np.nan, id="NaN fitness"),
        pytest.param((0.5, 0.5), np.inf, id="infinite fitness"),
        pytest.param((0.5, 0.5), -np.inf, id="negatively infinite fitness"),
    ],
)
def test_what_is_not_finite_is_rejected(archive, descriptor, fitness):
    inserted, info = offer(archive, (descriptor, fitness))
    assert_same(inserted, archive)
    assert (info.status[0], info.value[0], info.cell[0]) == (0, -np.inf, archive.num_cells)


def test_a_tie_has_one_winner_the_first(archive):
    tied = [((-0.9, -0.1), 1.0), ((-0.1, -0.9), 2.0), ((-0.2, -0.8), 2.0), ((-0.3, -0.7), 2.0)]
    inserted, info = offer(archive, *tied)
    assert inserted.genotypes[0].tolist() == [2, 2, 2]
    np.testing.assert_array_equal(inserted.descriptors[0], np.float32([-0.1, -0.9]))
    assert info.status.tolist() == [2, 2, 2, 2]
    again, info = offer(inserted, ((-0.5, -0.5), 2.0))
    assert_same(again, inserted)  # an equal of the elite is not better
    assert (info.status[0], info.value[0]) == (0, 0)


def test_the_elite_is_the_best_ever_while_the_threshold_lags():
    archive = GridArchive.create(np.zeros(3), **GRID, learning_rate=0.5, threshold_min=0.0)
    here = (-0.5, -0.5)
    archive, info = offer(archive, (here, -1.0))
    assert (info.status[0], info.value[0]) == (0, -1.0)  # below the threshold, yet the best so far
    assert (archive.fitnesses[0, 0], archive.thresholds[0]) == (-1.0, 0.0)
    archive, info = offer(archive, (here, 4.0))
    assert (info.status[0], info.value[0]) == (2, 4.0)  # the first that the threshold let pass
    assert (archive.fitnesses[0, 0], archive.thresholds[0]) == (4.0, 2.0)
    archive, info = offer(archive, (here, 3.0))
    assert (info.status[0], info.value[0]) == (1, 1.0)  # accepted, but no new elite
    assert (archive.fitnesses[0, 0], archive.thresholds[0]) == (4.0, 2.5)


def test_a_threshold_never_moves_with_learning_rate_zero():
    archive = GridArchive.create(np.zeros(3), **GRID, learning_rate=0.0, threshold_min=1.0)
    archive, first = offer(archive, ((0.5, 0.5), 3.0))
    archive, second = offer(archive, ((0.5, 0.5), 2.0))
    assert (first.value[0], second.value[0]) == (2.0, 1.0)
    assert archive.thresholds[3] == 1.0
    assert archive.fitnesses[3, 0] == 3.0


def test_one_huge_fitness_leaves_the_sums_of_other_cells_exact():
    """Thresholds are averaged in integers, scaled for each cell apart."""
    archive = GridArchive.create(np.zeros(3), **GRID, learning_rate=1.0, threshold_min=0.0)
    archive, _ = offer(
        archive,
        ((0.5, 0.5), 3e38),
        ((-0.5, -0.5), 0.25),
        ((-0.5, -0.5), 0.75),
        ((0.5, -0.5), 1e-30),
    )
    np.testing.assert_allclose(archive.thresholds, [0.5, 0.0, 1e-30, 3e38], rtol=1e-6)


def test_judging_afterwards_equals_judging_at_insertion(archive):
    batch = [((-0.5, -0.5), 1.0), ((0.5, np.nan), 1.0), ((0.5, 0.5), 2.0)]
    first, info = offer(archive, *batch)
    _, later = offer(first, *batch)
    descriptors = jnp.asarray([c[0] for c in batch], jnp.float32)
    fitnesses = jnp.asarray([c[1] for c in batch], jnp.float32)
    assert_same(first.judge(descriptors, fitnesses, archive.thresholds), info)
    assert_same(first.judge(descriptors, fitnesses[:, None], first.thresholds), later)


def test_one_cell_and_a_batch_of_one():
    archive = GridArchive.create(np.zeros(3), dims=(1,), ranges=((0, 1),))
    assert archive.sample_elites(jax.random.key(0), 2).tolist() == [[0] * 3] * 2
    archive, _ = offer(archive, ((0.3,), 1.0))
    assert (archive.num_elites, archive.coverage, archive.mean) == (1, 1.0, 1.0)
    assert archive.sample_elites(jax.random.key(0), 2).tolist() == [[1] * 3] * 2


def test_statistics_of_an_empty_archive(archive):
    assert (archive.num_elites, archive.coverage, archive.qd_score) == (0, 0.0, 0.0)
    assert archive.best == -np.inf
    assert np.isnan(archive.mean)


@pytest.fixture(scope="module")
def three_elites(archive):
    """Latents 1, 2, 3 in the cells 3, 0, 1; a fourth candidate lost."""
    batch = [((0.5, 0.5), 7.0), ((-0.5, -0.5), 8.0), ((-0.5, 0.5), 9.0), ((-0.5, 0.5), 1.0)]
    return offer(archive, *batch)[0]


def test_elites_are_sampled_uniformly_from_occupied_cells(three_elites):
    drawn = np.asarray(three_elites.sample_elites(jax.random.key(0), 3000))[:, 0]
    values, counts = np.unique(drawn, return_counts=True)
    assert values.tolist() == [1, 2, 3]
    assert counts.min() > 900


def test_qdax_selectors_work_on_the_archive(three_elites):
    for selector in (None, UniformSelector(), UniformSelector(select_with_replacement=False)):
        chosen = three_elites.select(jax.random.key(1), 3, selector)
        for latent, fitness in zip(chosen.genotypes, chosen.fitnesses, strict=True):
            assert fitness == latent[0] + 6


def test_elites_one_by_one(three_elites):
    found = [(e.cell, float(e.latent[0]), e.objective, e.threshold) for e in three_elites.elites()]
    # Cells discovered in one batch are listed in ascending order.
    assert found == [(0, 2.0, 8.0, 8.0), (1, 3.0, 9.0, 9.0), (3, 1.0, 7.0, 7.0)]


def test_latents_in_half_precision():
    archive = GridArchive.create(np.zeros(3, np.float32), **GRID, dtype=jnp.bfloat16)
    assert archive.genotypes.nbytes == archive.num_cells * 3 * 2
    latents = jnp.asarray([[1.001, -2.0, 3.0]])
    archive, _ = add_with_info(archive, latents, jnp.zeros((1, 2)), jnp.asarray([1.001]))
    drawn = archive.sample_elites(jax.random.key(0), 1)
    assert drawn.dtype == archive.select(jax.random.key(0), 1).genotypes.dtype == jnp.float32
    np.testing.assert_array_equal(drawn, [[1.0, -2.0, 3.0]])
    np.testing.assert_array_equal(archive.latents[3], [1.0, -2.0, 3.0])
    assert [tuple(elite.latent) for elite in archive.elites()] == [(1.0, -2.0, 3.0)]
    assert archive.fitnesses[3, 0] == np.float32(1.001)  # scores keep their precision


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float16])
def test_latents_that_are_not_finite_once_stored_are_rejected(dtype):
    archive = GridArchive.create(np.zeros(2, np.float32), **GRID, dtype=dtype)
    latents = jnp.asarray([[np.nan, 1.0], [1.0, np.inf], [1e5, 1.0], [1.0, 1.0]])
    descriptors = archive.centroids
    inserted, info = add_with_info(archive, latents, descriptors, jnp.ones(4))
    sound = [0, 0, 2 * (dtype == jnp.float32), 2]
    assert info.status.tolist() == sound
    assert (info.cell < 4).tolist() == [bool(x) for x in sound]
    assert inserted.num_elites == sum(sound) / 2
    assert np.isfinite(inserted.latents).all()


def test_double_precision_without_x64_is_single_precision():
    archive = GridArchive.create(np.zeros(3), **GRID, dtype=jnp.float64)
    assert archive.dtype == archive.genotypes.dtype == "float32"


def test_genotypes_may_be_a_tree_and_extra_scores_are_kept():
    genotypes = {"a": jnp.arange(4.0).reshape(2, 2), "b": jnp.arange(2)}
    archive = GridArchive.init(
        genotypes,
        jnp.asarray([[1.0], [2.0]]),
        jnp.asarray([[-0.5, -0.5], [-0.4, -0.4]]),
        None,
        {"kept": jnp.asarray([5.0, 6.0]), "dropped": jnp.zeros(2)},
        keys_extra_scores=("kept",),
        **GRID,
    )
    assert archive.genotypes["a"][0].tolist() == [2.0, 3.0]
    assert (archive.genotypes["b"][0], archive.extra_scores["kept"][0]) == (1, 6.0)
    assert set(archive.extra_scores) == {"kept"}


def test_extra_scores_are_no_latents():
    """Their bits are numbers, even where the bits of latents have the same type."""
    archive = GridArchive.create(
        np.zeros(3, np.float32), **GRID, dtype=jnp.bfloat16, extra_scores={"n": np.uint16(0)}
    )
    batch = jnp.zeros((1, 3)), jnp.zeros((1, 2)), jnp.zeros(1)
    assert archive.add(*batch, {"n": np.full(1, 5, np.uint16)}).extra_scores["n"][3] == 5
    again = GridArchive.create(np.zeros(3, np.float32), **archive.settings())
    assert jax.tree.structure(again) == jax.tree.structure(archive)
    for scores in ({}, {"n": np.zeros((1, 2))}):
        with pytest.raises(ValueError, match=r"extra_scores has .* ask for \{'n': \(1,\)\}"):
            archive.add(*batch, scores)


def test_qdax_agrees_where_it_is_defined():
    """QDax's repertoire with our centroids holds the same elites."""
    rng = np.random.default_rng(0)
    ours = GridArchive.create(np.zeros(3), dims=(4, 3), ranges=((-1, 1), (0, 9)))
    theirs = MapElitesRepertoire.init_default(jnp.zeros(3), ours.centroids)
    theirs_add = jax.jit(MapElitesRepertoire.add)
    for _ in range(3):
        genotypes = rng.normal(size=(16, 3)).astype(np.float32)
        descriptors = rng.uniform((-1, 0), (1, 9), (16, 2)).astype(np.float32)
        fitnesses = rng.normal(size=16).astype(np.float32)
        ours, _ = add_with_info(ours, genotypes, descriptors, fitnesses)
        theirs = theirs_add(theirs, genotypes, descriptors, fitnesses)
    for field in ("genotypes", "fitnesses", "descriptors"):
        np.testing.assert_array_equal(getattr(ours, field), getattr(theirs, field))


@pytest.mark.parametrize("dims", [(100, 100), (500, 500)])
def test_a_donated_insertion_works_in_place(dims):
    """The archive exists once, and what is held beside it does not grow with the cells."""
    shapes = jax.eval_shape(
        functools.partial(
            GridArchive.create,
            dims=dims,
            ranges=((0, 1),) * 2,
            learning_rate=0.1,
            threshold_min=0.0,
        ),
        jnp.zeros(16),
    )
    batch = [jax.ShapeDtypeStruct(s, jnp.float32) for s in ((64, 16), (64, 2), (64,))]
    compiled = jax.jit(GridArchive.add, donate_argnums=0).lower(shapes, *batch).compile()
    memory = compiled.memory_analysis()
    archive_bytes = sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(shapes))
    assert memory.alias_size_in_bytes == archive_bytes
    assert memory.temp_size_in_bytes < 20_000


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"dims": (2,)}, "dims has 1 entries but ranges has 2"),
        ({"dims": (2, 0)}, r"dims is \(2, 0\)"),
        ({"dims": (65536, 65536)}, "at most 2\\*\\*31"),
        ({"dims": 4}, "dims is 4: give a whole number"),
        ({"dims": (2.5, 2)}, r"dims is \(2.5, 2\)"),
        ({"ranges": (-1, 1)}, r"ranges is \(-1, 1\): give one \(low, high\) pair"),
        ({"ranges": ((-1, 1), (1, 1))}, r"\(1.0, 1.0\).*low < high"),
        ({"ranges": ((-1, 1), (1e9, 1e9 + 1))}, "low < high"),
        ({"ranges": ((-1, 1), (0, np.nan))}, "two finite numbers"),
        (
            {"dims": (2, 100), "ranges": ((-1, 1), (1e8, 1e8 + 10))},
            "measure 1 has 100 cells.*float32 can tell 2 apart",
        ),
        ({"dims": (2, 2**24 + 1)}, "float32 can tell 16777216 apart"),
        ({"learning_rate": 1.5, "threshold_min": 0}, "learning_rate is 1.5"),
        ({"learning_rate": 0.5}, "threshold_min is -inf"),
        ({"threshold_min": np.nan}, "threshold_min is nan"),
        ({"qd_score_offset": np.inf}, "qd_score_offset is inf"),
        ({"dtype": jnp.int32}, "floating-point"),
    ],
)
def test_settings_are_checked(change, message):
    with pytest.raises(ValueError, match=message):
        GridArchive.create(np.zeros(3), **{**GRID, **change})


@pytest.mark.parametrize(
    ("shapes", "message"),
    [
        (((2, 4), (2, 2), (2,)), r"genotypes has shape \(2, 4\).*\(2, 3\)"),
        (((3, 3), (2, 2), (2,)), r"genotypes has shape \(3, 3\).*\(2, 3\)"),
        (((2, 3), (2, 3), (2,)), r"descriptors has shape \(2, 3\).*\(2, 2\)"),
        (((2, 3), (2, 2), (2, 2)), r"fitnesses has shape \(2, 2\)"),
        (((0, 3), (0, 2), (0,)), r"fitnesses has shape \(0,\)"),
    ],
)
def test_shapes_are_checked(archive, shapes, message):
    genotypes, descriptors, fitnesses = map(jnp.zeros, shapes)
    with pytest.raises(ValueError, match=message):
        archive.add_with_info(genotypes, descriptors, fitnesses)


@pytest.mark.parametrize(
    ("centroids", "message"),
    [
        (np.zeros((5, 2)), r"centroids has shape \(5, 2\)"),
        (compute_euclidean_centroids((2, 2), -1.0, 1.0), "centroid 1 lies in cell 2"),
    ],
)
def test_qdax_centroids_of_another_grid_are_refused(centroids, message):
    batch = jnp.zeros((1, 3)), jnp.zeros(1), jnp.zeros((1, 2))
    with pytest.raises(ValueError, match=message):
        GridArchive.init(*batch, jnp.asarray(centroids), **GRID)
    GridArchive.init(*batch, GridArchive.create(np.zeros(3), **GRID).centroids, **GRID)


def assert_same(one, other):
    assert jax.tree.structure(one) == jax.tree.structure(other)
    jax.tree.map(np.testing.assert_array_equal, one, other)
