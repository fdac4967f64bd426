"""What holds for every batch, whatever is in it."""

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from qdgs_jax.archive import GridArchive

BATCH, THRESHOLD_MIN = 8, -1.0
compiled = jax.jit(GridArchive.add_with_info)
cell_of = jax.jit(GridArchive.cell_of)
ARCHIVES = {
    "elitist": GridArchive.create(np.zeros(2), dims=(2, 2), ranges=((0, 1),) * 2),
    "annealed": GridArchive.create(
        np.zeros(2),
        dims=(2, 2),
        ranges=((0, 1),) * 2,
        learning_rate=0.3,
        threshold_min=THRESHOLD_MIN,
    ),
}
# Few measures, so that cells are shared; fitnesses of all sizes, ties and not finite ones too.
MEASURES = st.sampled_from([-1e9, 0.2, 0.4, 0.7, 2.0, np.nan, np.inf])
FITNESSES = st.one_of(
    st.sampled_from([-2.0, -1.0, 0.0, 1.0, 2.0]), st.floats(width=32, allow_subnormal=False)
)
any_archive = pytest.mark.parametrize("kind", list(ARCHIVES))
quick = settings(deadline=None, max_examples=60)


@st.composite
def batches(draw, fitnesses=FITNESSES, unique=False):
    """Genotypes, which number the candidates, descriptors and fitnesses."""
    values = hnp.arrays(np.float32, BATCH, elements=fitnesses, unique=unique)
    genotypes = draw(st.integers(0, 100)) + np.arange(2 * BATCH, dtype=np.float32).reshape(-1, 2)
    return genotypes, draw(hnp.arrays(np.float32, (BATCH, 2), elements=MEASURES)), draw(values)


def add_with_info(archive, *batch):
    """Insert; the results are NumPy arrays, on which tests cost no compilations."""
    return jax.device_get(compiled(archive, *batch))


def assert_same(one, other):
    jax.tree.map(np.testing.assert_array_equal, one, other)


@any_archive
@quick
@given(first=batches(), second=batches())
def test_elites_never_get_worse_and_thresholds_stay_in_bounds(kind, first, second):
    archive = ARCHIVES[kind]
    for batch in (first, second):
        before = archive
        archive, info = add_with_info(before, *batch)
        assert (archive.fitnesses >= before.fitnesses).all()
        assert (archive.thresholds >= before.thresholds).all()
        assert (archive.thresholds >= archive.threshold_min).all()
        best = np.asarray(archive.fitnesses[:, 0])
        assert (archive.thresholds <= np.maximum(best, archive.threshold_min)).all()
        occupied = archive.fitnesses[:, 0] > -np.inf
        assert np.isfinite(archive.fitnesses[occupied]).all()
        assert archive.num_elites == occupied.sum()
        listed = archive.occupied_cells[: int(archive.num_elites)]
        assert sorted(listed.tolist()) == np.nonzero(occupied)[0].tolist()
        # A cell that nothing was accepted in kept its threshold.
        untouched = np.setdiff1d(np.arange(4), info.cell[info.status > 0])
        np.testing.assert_array_equal(archive.thresholds[untouched], before.thresholds[untouched])


@any_archive
@quick
@given(batch=batches())
def test_inserting_again_changes_no_elite(kind, batch):
    once, _ = add_with_info(ARCHIVES[kind], *batch)
    twice, info = add_with_info(once, *batch)
    assert_same(twice.replace(thresholds=once.thresholds), once)
    if kind == "elitist":
        assert_same(twice, once)
        assert (info.status == 0).all()


@any_archive
@quick
@given(batch=batches(unique=True), order=st.permutations(range(BATCH)))
def test_order_does_not_matter(kind, batch, order):
    one, info = add_with_info(ARCHIVES[kind], *batch)
    other, shuffled = add_with_info(ARCHIVES[kind], *(x[list(order)] for x in batch))
    assert_same(other, one)
    assert_same(shuffled, jax.tree.map(lambda x: x[np.asarray(order)], info))


def test_the_order_of_many_candidates_leaves_no_trace_in_a_threshold():
    """Floats added one by one would: their sum depends on the order of the scatter."""
    archive = GridArchive.create(
        np.zeros(1), dims=(1,), ranges=((0, 1),), learning_rate=1e-4, threshold_min=0.0
    )
    fitnesses = np.random.default_rng(0).uniform(0, 1, 4096).astype(np.float32)
    thresholds = {
        float(add_with_info(archive, x[:, None], x[:, None], x)[0].thresholds[0])
        for x in (fitnesses, fitnesses[::-1], np.sort(fitnesses))
    }
    assert len(thresholds) == 1
    mean = np.mean(fitnesses, dtype=np.float64)
    assert thresholds.pop() == pytest.approx(mean * (1 - (1 - 1e-4) ** 4096), rel=1e-6)


@any_archive
@quick
@given(batch=batches(fitnesses=st.sampled_from([0.0, 1.0])), order=st.permutations(range(BATCH)))
def test_between_equals_order_decides_the_latent_alone(kind, batch, order):
    one, _ = add_with_info(ARCHIVES[kind], *batch)
    other, _ = add_with_info(ARCHIVES[kind], *(x[list(order)] for x in batch))
    same = {"genotypes": one.genotypes, "descriptors": one.descriptors}
    assert_same(other.replace(**same), one)
    genotypes, descriptors, _ = batch
    for cell in np.nonzero(other.fitnesses[:, 0] > -np.inf)[0]:
        row = int(other.genotypes[cell, 0] - genotypes[0, 0]) // 2
        np.testing.assert_array_equal(other.descriptors[cell], descriptors[row])


@quick
@given(batch=batches())
def test_a_batch_equals_its_candidates_one_by_one(batch):
    whole, _ = add_with_info(ARCHIVES["elitist"], *batch)
    single = ARCHIVES["elitist"]
    nothing = np.full(BATCH, np.nan, np.float32)
    for row in range(BATCH):
        alone = nothing.copy()
        alone[row] = batch[2][row]
        single, _ = add_with_info(single, batch[0], batch[1], alone)
    assert sorted(single.occupied_cells.tolist()) == sorted(whole.occupied_cells.tolist())
    assert_same(single.replace(occupied_cells=whole.occupied_cells), whole)


@pytest.mark.parametrize(("low", "high"), [(-1.0, 1.0), (50.0, 50.7)])
@quick
@given(
    st.one_of(
        hnp.arrays(np.float32, 4, elements=st.floats(-60, 60, width=32)),
        hnp.arrays(
            np.float32, 4, elements=st.floats(width=32, allow_nan=False).filter(np.isfinite)
        ),
    )
)
def test_a_cell_holds_the_measures_around_its_centre(low, high, measures):
    archive = GridArchive.create(np.zeros(1), dims=(7,), ranges=((low, high),))
    centres = np.asarray(archive.centroids)[np.asarray(cell_of(archive, measures[:, None])), 0]
    clipped = np.clip(measures, np.float32(low), np.float32(high))
    assert (np.abs(centres - clipped) <= (high - low) / 14 + 1e-5).all()
