"""What a user may get wrong, in sentences of our own."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from qdgs_jax.emitters import GaussianEmitter, GradientArborescenceEmitter
from qdgs_jax.problem import FunctionProblem, value_and_jacobian
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
    kept = jax.tree.map(jnp.copy, state)
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
        (lambda: build(range=((0, 1),)), "no setting 'range': did you mean ranges"),
        (lambda: build(genotype=0), "no setting 'genotype'"),
        (lambda: build(emitter=branches(3)), "set up for 3 measures but the problem has 2"),
        (lambda: build(chunk=0), "chunk is 0"),
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
    ],
)
def test_wrong_uses_are_named(attempt, message):
    with pytest.raises(ValueError, match=message):
        attempt()


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
            search, state = begin(plain, emitter=emitter, chunk=2)
            _, metrics = search.run(state, 3)
            assert metrics["step"] == 3


def test_double_precision():
    with jax.enable_x64(True):
        search, state = begin(plain, dtype=np.float64, emitter=branches(2), chunk=2)
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
