"""The table of algorithms: each runs, under one compilation, for the same budget per step."""

import collections
import functools
import math
import re
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.extend.core import jaxprs_in_params
from qdax.core.emitters.emitter import Emitter
from small_search import SETTINGS, objective_and_measures

from qdgs_jax.algorithms import archive_settings
from qdgs_jax.emitters.registry import ALGORITHMS, build_emitter
from qdgs_jax.search import Search

HIGHEST = jax.lax.Precision.HIGHEST
WITHOUT_PRODUCTS = ("random", "map_elites", "map_elites_line", "dns")
DOCS = Path(__file__).parents[2] / "docs" / "algorithms.md"


def documented():
    """The rows of the table in docs/algorithms.md: name -> gradients, archive, ranking."""
    _, _, table = DOCS.read_text(encoding="utf-8").partition("| name | gradients |")
    rows = {}
    for line in table.partition("\n\n")[0].splitlines()[2:]:
        names, *said = (cell.strip() for cell in line.strip("|").split("|"))
        for name in re.findall("`([^`]+)`", names):
            rows[name] = [word.strip("`") for word in said[:3]]
    return rows


DOCUMENTED = documented()
ADAPTIVE = [name for name, (_, _, ranking) in DOCUMENTED.items() if ranking != "-"]


# Steps to a floor, of 30. In 8 EvoJAX's CMA-ES finds nearly all that it will on a sphere so small.
EARLY = {"evojax:CMA_ES_JAX": 8}
TRACED = collections.Counter()


def counted(name, latents):
    """Count how often the problem is traced: not at all where a program is there already."""
    TRACED[name] += 1
    return objective_and_measures(latents)


@functools.cache
def make(name):
    return Search.from_function(
        functools.partial(counted, name),
        4,
        build_emitter(name, SETTINGS, 4, 2),
        dims=(10, 10),
        ranges=((-1, 1), (-1, 1)),
        chunk=2 if name in EARLY else 5,  # divides all numbers of steps: one program serves all
        **archive_settings(name, 0.1, 0.0),
    )


def start(name, seed):
    return make(name).init(np.zeros((2, 4), np.float32), jax.random.key(seed))


@functools.cache
def step_over_seeds(name):
    """A step of searches side by side, traced once: the state, the program and what it gives."""
    begin = jax.vmap(lambda seed: start(name, seed))
    before = jax.eval_shape(begin, np.arange(3))
    program, (after, _) = jax.make_jaxpr(jax.vmap(make(name).update), return_shape=True)(before)
    return before, program, after


@pytest.mark.parametrize("name", ALGORITHMS)
def test_every_algorithm_keeps_the_form_of_its_state_over_seeds(name):
    before, _, after = step_over_seeds(name)
    assert jax.tree.structure(before) == jax.tree.structure(after)
    for a, b in zip(jax.tree.leaves(before), jax.tree.leaves(after), strict=True):
        assert (a.shape, a.dtype) == (b.shape, b.dtype)
    emitter = make(name).emitter
    parents = getattr(emitter, "num_parents", 0)
    assert emitter.batch_size + parents == 12  # evaluations of a step


@pytest.mark.parametrize("name", [name for name in ALGORITHMS if not name.startswith("evojax")])
def test_products_are_in_full_precision_on_every_accelerator(name):
    _, step, _ = step_over_seeds(name)
    rounded = [e for e in products(step.jaxpr) if e.params["precision"] != (HIGHEST, HIGHEST)]
    assert not rounded
    assert name in WITHOUT_PRODUCTS or any(products(step.jaxpr))


def products(jaxpr):
    """All matrix products of a program, those of its branches and loops included."""
    for equation in jaxpr.eqns:
        if equation.primitive.name == "dot_general":
            yield equation
        for inner in jaxprs_in_params(equation.params):
            yield from products(inner)


@pytest.mark.parametrize("name", ALGORITHMS)
def test_every_algorithm_improves_repeats_resumes_and_compiles_once(name):
    search, begun = make(name), start(name, 0)
    before = search.metrics(begun)
    state, metrics = search.run(begun, 30)
    assert all(leaf.is_deleted() for leaf in jax.tree.leaves(begun))  # donated
    assert metrics["evaluations"] == 2 + 30 * 12
    assert metrics["rejected"] == 0
    assert int(metrics["num_elites"]) > int(before["num_elites"]) + 5
    assert float(metrics["best"]) > float(before["best"])
    if name in ADAPTIVE:
        assert (np.asarray(state.emitter.age) < SETTINGS.restart).all()

    traced = TRACED[name]
    again, _ = search.run(start(name, 0), 10)
    kept = jax.tree.map(np.array, again)  # as a checkpoint keeps it
    again, _ = search.run(jax.device_put(kept), 20)
    for a, b in zip(jax.tree.leaves(state), jax.tree.leaves(again), strict=True):
        np.testing.assert_array_equal(a, b)
    other, _ = search.run(start(name, 1), 30)
    assert (np.asarray(other.archive.fitnesses) != np.asarray(state.archive.fitnesses)).any()
    assert TRACED[name] == traced


def test_seeds_run_side_by_side():
    search = make("cma_mae")
    together = jax.tree.map(
        lambda *leaves: np.stack(leaves), *(start("cma_mae", seed) for seed in range(3))
    )

    def steps(state):
        return jax.lax.fori_loop(0, 10, lambda _, s: search.update(s)[0], state)

    together = jax.device_get(jax.jit(jax.vmap(steps))(together))
    alone, _ = search.run(start("cma_mae", 1), 10)
    np.testing.assert_array_equal(together.archive.occupied_cells[1], alone.archive.occupied_cells)
    np.testing.assert_allclose(
        together.archive.fitnesses[1], alone.archive.fitnesses, rtol=1e-4, atol=1e-4
    )


# Normalised QD-scores between those after half of the steps and after all 30: an algorithm of which
# half the steps are lost does not reach its floor.
FLOORS = {
    "random": 4.1,
    "map_elites": 4.8,
    "map_elites_line": 1.2,
    "cma_me": 4.9,
    "cma_me_opt": 4.6,
    "cma_me_rd": 3.9,
    "cma_mae": 5.0,
    "omg_mega": 5.0,
    "cma_mega": 5.0,
    "cma_maega": 4.7,
    "dns": 0.62,
    "squad": 3.2,
    "evojax:PGPE": 4.4,
    "evojax:SimpleGA": 4.2,
    "evojax:CMA_ES_JAX": 2.3,
}


@pytest.mark.parametrize("name", ALGORITHMS)
def test_every_algorithm_reaches_a_qd_score_that_half_its_steps_do_not_reach(name):
    if jax.config.jax_enable_x64:
        pytest.skip("the floors are those of searches in single precision")
    halves, wholes = [], []
    half = EARLY.get(name, 30) // 2
    for seed in range(4):
        state, metrics = make(name).run(start(name, seed), half)
        halves.append(metrics["norm_qd_score"])
        _, metrics = make(name).run(state, half)
        wholes.append(metrics["norm_qd_score"])
    assert np.mean(halves) < FLOORS[name] < np.mean(wholes)


def test_the_documented_table_names_every_algorithm():
    assert DOCUMENTED.keys() == ALGORITHMS.keys()


@pytest.mark.parametrize("name", ALGORITHMS)
def test_every_algorithm_is_built_as_documented(name):
    gradients, archive, ranking = DOCUMENTED[name]
    emitter = build_emitter(name, SETTINGS, 4, 2)
    assert hasattr(emitter, "parents") == (gradients == "yes")
    assert getattr(emitter, "ranking", "-") == ranking
    assert ALGORITHMS[name].archive == archive
    empty = start(name, 0).archive
    annealed = {"learning_rate": 0.1, "threshold_min": 0.0}
    elitist = {"learning_rate": 1.0, "threshold_min": -math.inf}
    wanted = annealed if archive == "annealed" else elitist
    assert {setting: getattr(empty, setting) for setting in wanted} == wanted
    # Where thresholds anneal, a candidate counts by its value alone.
    assert (archive == "annealed") == (ranking == "imp")


class Aside(Emitter):
    """Its parent lies elsewhere than its candidates."""

    num_parents, batch_size = 1, 2

    def parents(self, state):
        return jnp.full((1, 4), 0.7)

    def emit(self, repertoire, emitter_state, key, jacobian=None):
        return jnp.zeros((2, 4)), {}


def test_parents_are_offered_to_the_archive():
    """QDax's CMA-MEGA throws the evaluation of its parent away."""
    search = Search.from_function(
        objective_and_measures, 4, Aside(), dims=(10, 10), ranges=((-1, 1), (-1, 1))
    )
    state, _ = search.run(search.init(np.zeros((1, 4), np.float32), jax.random.key(0)), 1)
    elites = [elite.latent[0] for elite in state.archive.elites()]
    np.testing.assert_allclose(elites, [0.0, 0.7])


def test_elitist_algorithms_get_an_elitist_archive():
    assert archive_settings("cma_maega", 0.1, 2.0) == {"learning_rate": 0.1, "threshold_min": 2.0}
    elitist = {"learning_rate": 1.0, "threshold_min": -math.inf}
    assert archive_settings("cma_mega", 0.1, 2.0) == elitist


def test_long_latents_get_a_separable_covariance():
    assert build_emitter("cma_mae", SETTINGS, 7168, 4).form == "separable"
    assert build_emitter("cma_mae", SETTINGS, 6, 4).form == "full"


def test_an_unknown_name_is_corrected():
    with pytest.raises(ValueError, match=r"'cma_maegaa'.*random.*Did you mean 'cma_maega'"):
        build_emitter("cma_maegaa", SETTINGS, 4, 2)


def test_the_prior_reaches_the_random_emitter():
    emitter = build_emitter(
        "random", SETTINGS, 4, 2, lambda params, key, n: params * jnp.ones((n, 4))
    )
    x, _ = emitter.emit(None, None, jax.random.key(0), 1.0)
    np.testing.assert_array_equal(x, np.ones((12, 4)))
