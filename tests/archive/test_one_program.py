"""Archives called from outside `jit`: one program for each kind of call, and the same values."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from qdgs_jax import CVTArchive, GaussianEmitter, GridArchive, Search

RANGES = ((-1.0, 1.0),) * 2
KEY = jax.random.key(3)


@pytest.fixture
def compilations():
    """Counts compiled programs, those from the cache of programs included."""
    seen = []

    def note(name, seconds, **_):
        if name == "/jax/core/compile/backend_compile_duration":
            seen.append(name)

    jax.monitoring.register_event_duration_secs_listener(note)
    yield seen
    jax.monitoring.unregister_event_duration_listener(note)


def candidates(seed, count, dim):
    rng = np.random.default_rng(seed)
    rows = rng.normal(size=(count, dim)), rng.uniform(-1, 1, (count, 2)), rng.normal(size=count)
    return tuple(jnp.asarray(x, jnp.float32) for x in rows)


def grid(dim, dims=(3, 7), **settings):
    annealed = {"learning_rate": 0.1, "threshold_min": -5.0}
    return GridArchive.create(np.zeros(dim), dims=dims, ranges=RANGES, **annealed | settings)


def cvt(dim):
    centroids = np.random.default_rng(0).uniform(-1, 1, (11, 2))
    return CVTArchive.create(np.zeros(dim), centroids=centroids, ranges=RANGES)


@pytest.mark.parametrize("make", [grid, cvt])
def test_an_insertion_is_one_program(make, compilations):
    archive, batches = make(5), (candidates(0, 13, 5), candidates(1, 13, 5))
    compilations.clear()
    first = archive.add(*batches[0])
    second = first.add(*batches[1])
    assert len(compilations) == 1
    assert int(archive.num_elites) == 0  # what was given stays the caller's
    assert 0 < int(first.num_elites) <= int(second.num_elites)


BATCH = candidates(2, 17, 6)
CALLS = {
    "add_with_info": lambda archive: archive.add_with_info(*BATCH),
    "cell_of": lambda archive: archive.cell_of(BATCH[1]),
    "judge": lambda archive: archive.judge(*BATCH[1:], archive.thresholds),
    "sample_elites": lambda archive: archive.sample_elites(KEY, np.int64(9)),
    "select": lambda archive: archive.select(KEY, 9),
    "stats": lambda archive: archive.stats,
    "qd_score": lambda archive: archive.qd_score,
    "mean": lambda archive: archive.mean,
}


@pytest.mark.parametrize("name", CALLS)
def test_every_call_is_one_program_with_the_values_of_a_search(name, compilations):
    archive = grid(6, (4, 5)).add(*BATCH)
    compilations.clear()
    found = CALLS[name](archive)
    assert len(compilations) <= 1
    inside = jax.jit(CALLS[name])(archive)
    assert jax.tree.structure(found) == jax.tree.structure(inside)
    jax.tree.map(np.testing.assert_array_equal, found, inside)


def test_figures_keep_their_order():
    named = ["coverage", "qd_score", "norm_qd_score", "best", "mean", "num_elites"]
    assert list(grid(2).stats) == named


def test_below_jit_an_insertion_is_no_program_of_its_own():
    archive, batch = grid(5), candidates(0, 13, 5)
    inner = jax.make_jaxpr(lambda *args: args[0].add(*args[1:]))(archive, *batch).jaxpr
    names = {str(equation.params.get("name")) for equation in inner.eqns}
    assert not names & {"_add", "_insert", "storable"}


def test_a_step_from_outside_jit_is_one_program_and_spares_the_state(compilations):
    search = Search.from_function(
        lambda x: (-jnp.sum(x**2, axis=-1), x[:, :2]),
        3,
        GaussianEmitter(8, 0.5),
        dims=(5, 5),
        ranges=RANGES,
    )
    state = search.init(jnp.zeros((1, 3)), KEY)
    search.metrics(state)
    compilations.clear()
    after, metrics = search.update(state)
    assert len(compilations) == 1
    assert (int(state.step), int(after.step), int(metrics["step"])) == (0, 1, 1)
    again, _ = search.run(state, 1)
    jax.tree.map(np.testing.assert_array_equal, again, after)
