"""The gradient arborescence emitter: golden runs, and what must hold beyond them."""

import dataclasses
import functools
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from qdgs_jax.archive import GridArchive
from qdgs_jax.emitters import GradientArborescenceEmitter, OMGMegaEmitter
from qdgs_jax.emitters.gradients import directions
from qdgs_jax.emitters.optimizer import Optimizer
from qdgs_jax.emitters.restarts import rule_applies

GOLDEN = np.load(
    Path(__file__).parents[1] / "data" / "emitters" / "emitter_gradient_arborescence.npz"
)
CASES = sorted({name.partition("/")[0] for name in GOLDEN.files})


@jax.jit
def one_elite(latent):
    """An archive whose only elite is `latent`, so that every restart lands there."""
    empty = GridArchive.create(latent, dims=(3,), ranges=((-1, 1),))
    return empty.add(latent[None], jnp.zeros((1, 1)), jnp.zeros(1))


def assert_close(got, want):
    scale = np.abs(want).max()
    np.testing.assert_allclose(got, want, rtol=0, atol=1e-5 * (scale if scale > 0 else 1))


init = jax.jit(lambda emitter, *args: emitter.init(*args), static_argnums=0)
emit = jax.jit(GradientArborescenceEmitter.emit, static_argnums=0)
rows_of = jax.jit(GradientArborescenceEmitter.rows, static_argnums=0)
state_update = jax.jit(lambda emitter, *args: emitter.state_update(*args), static_argnums=0)


@functools.partial(jax.jit, static_argnums=0)
def scripted_step(emitter, state, archive, jacobian, coefficients, fitnesses, descriptors, extra):
    """A whole iteration with given coefficients: gradients, branches and the state after it."""
    rows = emitter.rows(state.theta, jacobian[None])
    branches = emitter.branch(state.theta, rows, coefficients[None])[0]
    extra = {**extra, "coefficients": coefficients}
    after = emitter.state_update(state, archive, branches, fitnesses, descriptors, extra)
    return rows[0], branches, after


@pytest.mark.parametrize("case", CASES)
def test_scripted_run_matches_the_reference(case):
    def golden(name, i=...):
        return GOLDEN[f"{case}/{name}"][i]

    ranking, parents, restart, optimizer, _ = golden("config")
    kind = "adam" if optimizer == "adam" else "ascent"
    emitter = GradientArborescenceEmitter(
        num_emitters=1,
        branches=8,
        num_measures=2,
        sigma0=float(golden("sigma0")),
        optimizer=Optimizer(kind, float(golden("lr"))),
        ranking=str(ranking),
        parent_rule="accepted" if parents == "filter" else "mu",
        restart=str(restart),
        variant="pyribs",
        factor="eigen",
    )
    archive = one_elite(golden("x0"))
    state = init(emitter, jax.random.key(0), archive, golden("x0")[None], None, None, {})
    for i in range(len(golden("theta"))):
        np.testing.assert_allclose(
            np.asarray(emitter.parents(state))[0], golden("theta", i), rtol=1e-5, atol=1e-6
        )
        before = state
        gradients, branches, state = scripted_step(
            emitter,
            state,
            one_elite(golden("theta_final", i)),
            golden("jacobian", i),
            golden("coefficients", i),
            golden("objective", i),
            golden("measures", i),
            {
                "status": golden("status", i),
                "value": golden("value", i),
                "key": jax.random.key(i),
            },
        )
        assert_close(gradients, golden("jacobian_normalized", i))
        assert_close(branches, golden("solutions", i))
        found = jax.device_get(state.replace(key=None))
        strategy = found.strategy
        assert bool(found.age[0] == 0) == golden("restarted", i)
        assert_close(strategy.mean[0], golden("es_mean_final", i))
        assert_close(strategy.sigma[0], golden("es_sigma_final", i))
        if not golden("restarted", i):
            assert_close(strategy.C[0], golden("es_C", i))
            assert_close(strategy.pc[0], golden("es_pc", i))
            assert_close(strategy.ps[0], golden("es_ps", i))
            assert strategy.evaluations[0] == golden("es_current_eval", i)
        if golden("num_parents", i) == 0 and not golden("restarted", i):
            # The reference steps to the origin here; we stay, and follow it by hand.
            np.testing.assert_array_equal(state.theta, before.theta)
            state = state.replace(theta=golden("theta_final", i)[None])


def make(**settings):
    defaults = {"num_emitters": 2, "branches": 3, "num_measures": 1}
    return GradientArborescenceEmitter(**(defaults | settings))


def started(emitter, latents=((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))):
    latents = np.asarray(latents, np.float32)
    archive = one_elite(np.full(latents.shape[1], 7, np.float32))
    return archive, init(emitter, jax.random.key(0), archive, latents, None, None, {})


def emitted(emitter, archive, state, seed, jacobian):
    """What an emitter emits, as NumPy arrays, on which tests cost no compilations."""
    return jax.device_get(emit(emitter, archive, state, jax.random.key(seed), jacobian))


EYE = np.broadcast_to(np.eye(2, 3, dtype=np.float32), (2, 2, 3))


def told(emitter, state, archive, genotypes, extra, fitnesses, status):
    """State after the archive judged a batch as given."""
    fitnesses = np.asarray(fitnesses, np.float32)
    judged = {"status": np.asarray(status), "value": fitnesses, "key": jax.random.key(5)}
    descriptors = np.zeros((len(fitnesses), 1), np.float32)
    return state_update(
        emitter, state, archive, genotypes, fitnesses, descriptors, {**extra, **judged}
    )


def test_emitters_start_at_the_start_latents_in_turn():
    _, state = started(make(num_emitters=3))
    assert np.asarray(state.theta)[:, 0].tolist() == [0, 1, 0]


def test_branches_lie_in_the_gradients_span():
    emitter = make()
    archive, state = started(emitter)
    jacobian = np.array([[[3, 0, 0], [0, 0.5, 0]], [[0, 0, 2], [0, 0, 0]]], np.float32)
    genotypes, extra = emitted(emitter, archive, state, 1, jacobian)
    assert genotypes.shape == (emitter.batch_size, 3) == (6, 3)
    c = extra["coefficients"]
    np.testing.assert_allclose(genotypes[:3, :2], c[:3], rtol=1e-6)
    assert not genotypes[:3, 2].any()
    np.testing.assert_allclose(genotypes[3:, 2] - 1, c[3:, 0], rtol=1e-6, atol=1e-7)
    np.testing.assert_array_equal(genotypes[3:, :2], np.ones((3, 2)))


@pytest.mark.parametrize("bad", [jnp.nan, jnp.inf, 0.0])
def test_a_useless_gradient_row_counts_as_zero(bad):
    emitter = make()
    archive, state = started(emitter)
    jacobian = np.ones((2, 2, 3), np.float32)
    jacobian[0, 1, 2], jacobian[1] = bad, bad
    if bad == 0:
        jacobian[0, 1] = 0
    rows = np.asarray(rows_of(emitter, state.theta, jacobian))
    assert not rows[0, 1].any() and not rows[1].any()
    genotypes, _ = emitted(emitter, archive, state, 1, jacobian)
    assert np.isfinite(genotypes).all()
    np.testing.assert_array_equal(genotypes[:3, 1:], np.broadcast_to(genotypes[:3, :1], (3, 2)))
    # Emitter 1 has no gradient at all: it branches at random, as far as others do.
    steps = genotypes[3:] - 1
    assert np.linalg.matrix_rank(steps) == 2  # 1 + M directions
    assert 0.05 < np.linalg.norm(steps, axis=1).mean() < 2
    again, _ = emitted(emitter, archive, state, 2, jacobian)
    assert np.linalg.matrix_rank(np.concatenate([steps, again[3:] - 1])) == 3  # others each time


def test_orthonormal_rows_keep_the_span_and_the_objectives_leaves_the_measures_alone():
    emitter = make(num_emitters=1, num_measures=2, normalization="orthonormal")
    _, state = started(emitter, np.zeros((1, 5)))
    spread = np.float32([[1, 2, 0, 0, 0], [3, 3, 3, 0, 0], [3, 3, 3, 0.01, 0]])
    rows = np.asarray(rows_of(emitter, state.theta, spread[None]), np.float64)[0]
    np.testing.assert_allclose(rows @ rows.T, np.eye(3), atol=1e-6)
    np.testing.assert_allclose(spread @ rows.T @ rows, spread, atol=1e-5)  # nothing is lost
    np.testing.assert_allclose(rows[1], spread[1] / np.linalg.norm(spread[1]), atol=1e-6)
    np.testing.assert_allclose(rows[0] @ spread[1:].T, 0, atol=1e-6)
    assert rows[0] @ spread[0] > 0


def test_an_orthonormal_row_without_a_direction_of_its_own_is_zero():
    emitter = make(num_emitters=3, num_measures=2, normalization="orthonormal")
    _, state = started(emitter, np.zeros((1, 3)))
    x, y, none = np.float32([[1, 0, 0], [0, 1, 0], [0, 0, 0]])
    jacobian = np.stack([[x, x, y], [y, none, x], [x, x, 2 * x]])
    jacobian[1, 1, 0] = np.nan
    rows = rows_of(emitter, state.theta, jacobian)
    want = np.stack([[none, x, y], [y, none, x], [none, x, none]])
    np.testing.assert_allclose(rows, want, atol=1e-6)


def test_seeds_side_by_side_draw_the_directions_that_they_draw_alone():
    keys = jax.random.split(jax.random.key(0), 3)
    gradients = np.ones((2, 3, 4), np.float32)
    gradients[1] = 0
    together = np.asarray(jax.jit(jax.vmap(functools.partial(directions, gradients)))(keys))
    alone = jax.jit(directions)
    for row, key in zip(together, keys, strict=True):
        np.testing.assert_allclose(row, alone(gradients, key), rtol=1e-6)
    np.testing.assert_array_equal(together[:, 0], np.ones((3, 3, 4)))
    np.testing.assert_allclose(np.linalg.norm(together[:, 1], axis=-1), 1, rtol=1e-5)


def test_nonnegative_branches_never_descend_and_learn_from_the_drawn_coefficients():
    emitter = make(branches=64, objective_coefficient="nonnegative")
    archive, state = started(emitter)
    genotypes, extra = emitted(emitter, archive, state, 1, EYE)
    c = extra["coefficients"]
    assert (c[:, 0] < 0).any()
    np.testing.assert_allclose(genotypes[:64, 0], np.abs(c[:64, 0]), rtol=1e-6)
    np.testing.assert_allclose(genotypes[:64, 1], c[:64, 1], rtol=1e-6)
    # Ranked at random, the mean of the coefficients moves to and fro instead of upwards.
    moves = []
    for seed in range(8):
        luck = jax.random.normal(jax.random.key(seed), (128,))
        after = told(emitter, state, archive, genotypes, extra, luck, np.ones(128, int))
        moves.extend(np.asarray(after.strategy.mean)[:, 0].tolist())
    assert abs(np.mean(moves)) < 0.1 < 0.5 * np.sqrt(2 / np.pi)  # the mean of a folded draw


@pytest.mark.parametrize("restart", ["basic", 1])
def test_bounds_hold_for_branches_and_parents(restart):
    emitter = make(
        bounds=(-0.1, 0.2), sigma0=5.0, optimizer=Optimizer("adam", 3.0), restart=restart
    )
    archive, state = started(emitter, [[0.0, 9.0, 0.0]])  # its one elite is at 7
    assert np.asarray(emitter.parents(state)).max() == pytest.approx(0.2)
    jacobian = np.ones((2, 2, 3), np.float32)
    genotypes, extra = emitted(emitter, archive, state, 1, jacobian)
    assert genotypes.min() == pytest.approx(-0.1) and genotypes.max() == pytest.approx(0.2)
    state = told(emitter, state, archive, genotypes, extra, np.arange(6), [1] * 6)
    assert (np.asarray(state.age) == 0).all() == (restart == 1)
    theta = np.asarray(emitter.parents(state))
    assert theta.min() >= -0.1 and theta.max() == pytest.approx(0.2)


@pytest.mark.parametrize("branches", [1, 3])
def test_with_few_branches_the_parent_steps_to_the_best(branches):
    emitter = make(branches=branches, optimizer=Optimizer("ascent", 1.0))
    archive, state = started(emitter)
    genotypes, extra = emitted(emitter, archive, state, 1, EYE)
    fitnesses = np.arange(2 * branches)
    after = told(emitter, state, archive, genotypes, extra, fitnesses, np.ones(2 * branches, int))
    np.testing.assert_allclose(after.theta, genotypes[branches - 1 :: branches], rtol=1e-6)
    assert after.age.tolist() == [1, 1]


@pytest.mark.parametrize(
    ("rule", "restarted"),
    [("basic", [0, 0, 0]), ("no_improvement", [1, 0, 1]), (2, [0, 1, 1])],
)
def test_restart_rules(rule, restarted):
    status = np.array([[0, 0], [0, 2], [0, 0]])
    applies = jax.jit(functools.partial(rule_applies, rule))
    assert applies(status, np.array([1, 2, 3])).tolist() == restarted


def test_a_restarted_emitter_starts_afresh_at_an_elite():
    emitter = make(restart="no_improvement")
    archive, state = started(emitter)
    genotypes, extra = emitted(emitter, archive, state, 1, EYE)
    status = [0, 0, 0, 0, 1, 0]
    after = told(emitter, state, archive, genotypes, extra, [1, 2, 3, 1, 2, 3], status)
    after = jax.device_get(after.replace(key=None))
    assert after.age.tolist() == [0, 1]
    np.testing.assert_array_equal((after.theta == 7).all(-1), [True, False])
    assert after.strategy.sigma[0] == emitter.sigma0 != after.strategy.sigma[1]
    assert not after.optimizer.m[0].any() and after.optimizer.m[1].any()
    # Without any elite it stays where it is.
    empty = GridArchive.create(np.zeros(3), dims=(3,), ranges=((-1, 1),))
    after = told(emitter, state, empty, genotypes, extra, [1, 2, 3, 1, 2, 3], status)
    assert after.age.tolist() == [0, 1]
    theta = np.asarray(after.theta)
    assert np.isfinite(theta).all() and (theta[0] != 7).all()


@pytest.mark.parametrize("value", [2.5, -jnp.inf])
def test_a_flat_ranking_restarts(value):
    emitter = make()
    archive, state = started(emitter)
    genotypes, extra = emitted(emitter, archive, state, 1, EYE)
    fitnesses = [value, value, value, 1, 2, 3]
    after = told(emitter, state, archive, genotypes, extra, fitnesses, [0, 0, 0, 1, 1, 1])
    assert after.age.tolist() == [0, 1]


def test_an_emitter_whose_scores_are_not_finite_recovers():
    emitter = make()
    archive, state = started(emitter)
    genotypes, extra = emitted(emitter, archive, state, 1, EYE)
    nan = np.nan
    genotypes = np.concatenate([np.full((1, 3), nan, np.float32), genotypes[1:]])
    after = told(emitter, state, archive, genotypes, extra, [nan, nan, nan, 1, nan, 3], [0] * 6)
    after = jax.device_get(after)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(after))
    np.testing.assert_array_equal(after.theta[0], np.full(3, 7.0))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"num_emitters": 0}, "num_emitters is 0"),
        ({"branches": 0}, "branches is 0"),
        ({"sigma0": 0.0}, "sigma0 is 0.0"),
        ({"num_measures": -1}, "num_measures is -1"),
        ({"ranking": "best"}, "'best'.*'2imp'"),
        ({"parent_rule": "most"}, "'most'.*'accepted'"),
        ({"restart": 0}, "restart is 0"),
        ({"restart": "never"}, "'never'.*'basic'"),
        ({"objective_coefficient": "abs"}, "'abs'.*'nonnegative'"),
        ({"normalization": True}, "True.*'orthonormal'"),
        ({"bounds": (1.0, 1.0)}, r"\(1.0, 1.0\).*low < high"),
    ],
)
def test_bad_settings_are_named(settings, message):
    with pytest.raises(ValueError, match=message):
        make(**settings)


def test_wrong_shapes_are_named():
    emitter = make()
    _, state = started(emitter)
    with pytest.raises(ValueError, match=r"\(2, 3, 3\).*\(2, 2, 3\)"):
        emitter.emit(None, state, jax.random.key(0), np.zeros((2, 3, 3), np.float32))
    with pytest.raises(ValueError, match=r"\(3,\).*Float\[n, D\]"):
        emitter.init(jax.random.key(0), None, np.zeros(3), None, None, {})
    with pytest.raises(ValueError, match="neither 'status' and 'value' nor 'thresholds'"):
        emitter.state_update(state, None, np.zeros((6, 3)), np.zeros(6), np.zeros((6, 1)), {})


@pytest.mark.parametrize("emitter", [make(), OMGMegaEmitter(2, 3, 1)])
def test_without_jacobians_of_this_step_an_emitter_says_so(emitter):
    archive, state = started(emitter)
    with pytest.raises(ValueError, match=r"Jacobians.*Search.*jacobian_function"):
        emitter.emit(archive, state, jax.random.key(0))
    jacobian = np.ones((2, 2, 3), np.float32)
    genotypes, extra = jax.jit(emitter.emit)(archive, state, jax.random.key(0), jacobian)
    state = told(emitter, state, archive, genotypes, extra, np.arange(6), [1] * 6)
    with pytest.raises(ValueError, match="Jacobians"):  # the parents have moved since
        emitter.emit(archive, state, jax.random.key(0))


def test_settings_are_hashable_and_comparable():
    assert hash(make()) == hash(make())
    assert make() != dataclasses.replace(make(), sigma0=1.0)
