"""What a user may get wrong, in sentences of our own."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from qdgs_jax.archive import CVTArchive, GridArchive, cvt_centroids
from qdgs_jax.domains import load_domain
from qdgs_jax.emitters import (
    EvoJaxEmitter,
    GaussianEmitter,
    GradientArborescenceEmitter,
    RandomEmitter,
)
from qdgs_jax.emitters.registry import build_emitter
from qdgs_jax.problem import FunctionProblem, value_and_jacobian
from qdgs_jax.runs.config import SearchConfig
from qdgs_jax.search import Search

GRID = {"dims": (4, 4), "ranges": ((-2, 2), (-2, 2))}


def plain(x):
    return x[:, 0], x[:, :2]


def build(function=plain, emitter=None, **settings):
    emitter = emitter or GaussianEmitter(4, 0.5)
    return Search.from_function(function, 3, emitter, **{**GRID, **settings})


def begin(function, **settings):
    search = build(function, **settings)
    return search, search.init(np.zeros((1, 3), np.float32), jax.random.key(0))


def test_a_state_given_away_is_not_taken_again():
    search, state = begin(plain)
    kept = jax.jit(lambda state: jax.tree.map(jnp.copy, state))(state)
    search.run(state, 1)
    with pytest.raises(ValueError, match=r"given to `run` before.*go on with the state"):
        search.run(state, 1)
    _, metrics = search.run(kept, 1)
    assert metrics["step"] == 1


def branches(num_measures):
    return GradientArborescenceEmitter(2, 4, num_measures)


@pytest.mark.parametrize(
    ("attempt", "message"),
    [
        (lambda: build(range=((0, 1),)), "has no .range.: did you mean ranges"),
        (lambda: build(genotype=0), "has no 'genotype'"),
        (lambda: build(emitter=branches(3)), "set up for 3 measures but the problem has 2"),
        (lambda: build(chunk=0), "chunk is 0"),
        (lambda: build(chunk=2.5), "chunk is 2.5: give a whole number"),
        (lambda: build(function=3), r"function is 3: give a function of latents"),
        (lambda: build(lambda params, x: plain(x)), r"called with \(latents\); has_params=True"),
        (lambda: build(jacobian=True), "jacobian is True: give a function"),
        (lambda: build(emitter=GaussianEmitter), "emitter is <class .*: give an emitter"),
        (lambda: build(emitter="cma_mae"), "emitter is 'cma_mae': give an emitter"),
        (lambda: Search.from_function(plain, 3.0, GaussianEmitter(4, 0.5), **GRID), "latent_dim"),
        (lambda: build(ranges=((0, np.nan), (0, 1))), r"the pair \(0.0, nan\)"),
        (lambda: build(threshold_min=None), "threshold_min None"),
        (lambda: build(dtype="flaot32"), "dtype is 'flaot32'"),
        (lambda: GaussianEmitter(4.5, 0.5), "batch is 4.5: give a whole number"),
        (lambda: GaussianEmitter(4, "0.5"), "sigma is '0.5': give a positive number"),
        (lambda: branches("2"), "num_measures is '2'"),
        (lambda: build_emitter("CMA-MAE", SearchConfig(), 3, 2), "Did you mean 'cma_mae'"),
        (lambda: build_emitter("cma_mae", {"emitters": 2}, 3, 2), "settings is a dict"),
        (lambda: cvt_centroids(10, jax.random.key(0), ((0, 1),)), "the key comes first"),
        (lambda: cvt_centroids(0, 10, ((0, 1),)), r"key is 0: give jax.random.key"),
        (
            lambda: CVTArchive.create(jnp.zeros(3), centroids=[[0, np.nan]], ranges=((0, 1),) * 2),
            "centroid 0 is .*give finite",
        ),
        (lambda: load_domain("shapes"), "config is a str: give the RunConfig"),
        (lambda: begin(lambda x: (x[:, 0], None)), "its measures as None"),
        (lambda: begin(lambda x: (1j * x[:, 0], x[:, :2])), "complex objectives"),
        (lambda: build().init(np.zeros(3), jax.random.key(0)), r"shape \(3,\): give start latents"),
        (lambda: build().init([[1, 2], [3]], jax.random.key(0)), "genotypes is .*give start"),
        (lambda: build().init(np.zeros((1, 3)), 0), "key is 0: give jax.random.key"),
        (lambda: build().run(((), {}), 1), "state is a tuple: give the SearchState"),
        (lambda: build().update(None), "state is a NoneType"),
        (lambda: build().run((), 1.5), "num_steps is 1.5"),
        (lambda: run_weighed(False, {"w": jnp.ones(2)}), "the function takes latents alone"),
        (lambda: run_weighed(True, None), "takes weights .* there are none: give params="),
        (lambda: run_weighed(True, {"w": "ones"}), r"params\['w'\] is 'ones', a str"),
        (
            lambda: begin(lambda x: (x[:, 0], (x[:, 1], x[:, 2]))),
            r"its measures as a tuple of 2: return \(objectives, measures\).*jnp.stack",
        ),
        (
            lambda: begin(lambda x: (x[:, 0], np.sin(x[:, :2]))),
            "jax.numpy rather than NumPy",
        ),
        (
            lambda: begin(lambda x: (x[:, 0] if x[0, 0] > 0 else x[:, 1], x[:, :2])),
            "jnp.where rather than `if`",
        ),
        (
            lambda: run_jacobian(lambda x: value_and_jacobian(plain, x)[2]),
            r"no tuple: return \(objectives, measures, Jacobian\)",
        ),
        (
            lambda: run_jacobian(lambda x: (*plain(x), value_and_jacobian(plain, x))),
            "its Jacobian as a tuple of 3",
        ),
        (
            lambda: step(lambda x: (jnp.int32(x[:, 0]), x[:, :2])),
            "objectives of int32, which have no gradient",
        ),
    ],
)
def test_wrong_uses_are_named(attempt, message):
    with pytest.raises(ValueError, match=message):
        attempt()


def test_the_pair_that_run_returns_is_no_state():
    search, state = begin(plain)
    with pytest.raises(ValueError, match=r"the pair \(state, metrics\)"):
        search.run((state, {}), 1)


def test_a_domain_brings_its_own_weights():
    class Own(FunctionProblem):
        params = {"shift": jnp.ones(())}  # noqa: RUF012

    problem = Own(lambda params, x: (x[:, 0] + params["shift"], x[:, :2]), 3, 2, has_params=True)
    search = Search(problem, GaussianEmitter(4, 0.5), **GRID)
    state = search.init(np.zeros((1, 3)), jax.random.key(0))
    assert float(state.archive.best) == 1.0
    state = search.init(np.zeros((1, 3)), jax.random.key(0), params={"shift": jnp.float32(5)})
    assert float(state.archive.best) == 5.0


LISTS = ([[0.5, 0.0, 0.0]], [[0.0, 0.0]], [1.0])


@pytest.mark.parametrize(
    ("position", "values", "message"),
    [
        (0, [["one", "two", "three"]], "genotypes is .*give an array of numbers"),
        (0, [[1.0, 2.0], [3.0]], "genotypes is .*give an array of numbers"),
        (0, np.zeros((1, 3), complex), "genotypes has dtype complex.*give real numbers"),
        (1, None, "descriptors is None: give an array of numbers"),
        (1, [["one", "two"]], "descriptors is .*give an array of numbers"),
        (2, 1j * np.ones(1), "fitnesses has dtype complex"),
    ],
)
def test_an_archive_names_what_are_no_numbers(position, values, message):
    archive = GridArchive.create(jnp.zeros(3), **GRID)
    given = list(LISTS)
    given[position] = values
    with pytest.raises(ValueError, match=message):
        archive.add(*given)


@pytest.mark.parametrize(
    ("ask", "message"),
    [
        (lambda archive: archive.cell_of([0.0, 0.0]), r"descriptors has shape \(2,\)"),
        (lambda archive: archive.storable("abc"), "genotypes is 'abc'"),
        (lambda archive: archive.add(*LISTS, [1.0]), r"extra_scores is \[1.0\]"),
        (lambda archive: archive.from_elites(archive.to_frame()), "elites is a DataFrame"),
        (lambda archive: archive.from_frame(archive.elites()), "frame is a Elites"),
        (lambda archive: archive.create("abc", **GRID), "genotype is 'abc'"),
        (lambda archive: archive.create([0.0], extra_scores=np.ones(3), **GRID), "extra_scores"),
        (lambda archive: archive.cell_of([[0.0] * 3]), r"descriptors has shape \(1, 3\)"),
        (lambda archive: archive.cell_of([["a", "b"]]), "descriptors is"),
        (lambda archive: archive.judge([[0.0]], [1.0], archive.thresholds), "descriptors has"),
        (lambda archive: archive.sample_elites(0, 3), "key is 0: give jax.random.key"),
        (lambda archive: archive.select(0, 3), "key is 0: give jax.random.key"),
        (lambda archive: archive.sample_elites(jax.random.key(0), 2.5), "num_samples is 2.5"),
        (lambda archive: archive.select(jax.random.key(0), -1), "num_samples is -1"),
    ],
)
def test_an_archive_names_what_it_cannot_answer(ask, message):
    with pytest.raises(ValueError, match=message):
        ask(GridArchive.create(jnp.zeros(3), **GRID))


def test_an_emitter_for_other_latents_is_refused():
    for emitter in (EvoJaxEmitter("PGPE", 4, 5), RandomEmitter(4, 5)):
        with pytest.raises(ValueError, match="for 5 numbers a latent but the problem has 3"):
            begin(plain, emitter=emitter)


@pytest.mark.parametrize(("latent_dim", "num_measures"), [(0, 2), (3, 0), (2.5, 2)])
def test_an_emitter_of_no_size_is_refused(latent_dim, num_measures):
    with pytest.raises(ValueError, match=r"latent_dim is|num_measures is"):
        build_emitter("cma_me", SearchConfig(), latent_dim, num_measures)


def test_an_archive_takes_lists():
    archive = jax.jit(lambda empty: empty.add(*LISTS))(GridArchive.create([0.0, 0, 0], **GRID))
    assert archive.storable([[0.0, 1.0, np.inf], [0.0, 1.0, 2.0]]).tolist() == [False, True]
    assert archive.cell_of([[0.0, 0.0]]).tolist() == [archive.elites().cells[0]]
    assert archive.judge([[0.0, 0.0]], [-9.0], archive.thresholds).status.tolist() == [0]
    assert archive.best_elite.latent.tolist() == [0.5, 0.0, 0.0]
    assert {"coverage", "qd_score", "best"} <= archive.stats.keys()


def step(function):
    search, state = begin(function, emitter=branches(2))
    search.run(state, 1)


def run_weighed(has_params, params):
    problem = FunctionProblem(
        (lambda params, x: plain(x)) if has_params else plain, 3, 2, has_params=has_params
    )
    Search(problem, GaussianEmitter(4, 0.5), **GRID).init(
        np.zeros((1, 3)), jax.random.key(0), params=params
    )


def run_jacobian(function):
    search, state = begin(plain, emitter=branches(2), jacobian=function)
    search.run(state, 1)


@dataclasses.dataclass(frozen=True)
class Weighed(GaussianEmitter):
    """Moves its candidates by the problem's weights."""

    takes_params = True

    def emit(self, repertoire, emitter_state, key, params=()):
        genotypes, extra = super().emit(repertoire, emitter_state, key)
        return genotypes * 0 + params, extra


def test_weights_reach_an_emitter_that_takes_them():
    problem = FunctionProblem(lambda params, x: plain(x), 3, 2, has_params=True)
    search = Search(problem, Weighed(4, 0.5), **GRID)
    weights = jnp.asarray([1.0, 0.5, 0.0])
    state = search.init(np.zeros((1, 3)), jax.random.key(0), params=weights)
    state, _ = search.run(state, 1, params=weights)
    assert state.archive.best_elite.latent.tolist() == [1.0, 0.5, 0.0]


def test_no_key_is_used_twice():
    emitters = (branches(2), GaussianEmitter(4, 0.5))
    with jax.debug_key_reuse(True):
        for emitter in emitters:
            search, state = begin(plain, emitter=emitter, chunk=3)
            _, metrics = search.run(state, 3)
            assert metrics["step"] == 3


def test_double_precision():
    with jax.enable_x64(True):
        search, state = begin(plain, dtype=np.float64, emitter=branches(2), chunk=3)
        archive = search.run(state, 3)[0].archive
        assert archive.genotypes.dtype == np.float64
        assert {x.dtype.name for x in jax.tree.leaves((archive.fitnesses, archive.thresholds))} == {
            "float32"
        }
        elites = archive.elites()
        assert elites.latents.dtype == np.float64
        again = type(archive).from_elites(elites)
        np.testing.assert_array_equal(again.genotypes, archive.genotypes)
    with (
        jax.enable_x64(False),
        pytest.raises(ValueError, match=r"float64, which JAX would cut to float32.*X64"),
    ):
        type(archive).from_elites(elites)
