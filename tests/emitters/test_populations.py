"""DNS, SQUAD and EvoJAX's solvers: algorithms with a population of their own."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from evojax.algo import CMA_ES_JAX

from qdgs_jax.archive import GridArchive
from qdgs_jax.emitters import DominatedNoveltyEmitter, EvoJaxEmitter, SquadEmitter
from qdgs_jax.emitters.dominated_novelty import dominated_novelty
from qdgs_jax.emitters.evojax_task import LatentPolicy, LatentTask
from qdgs_jax.emitters.optimizer import Optimizer
from qdgs_jax.emitters.squad import soft_qd_gradient
from qdgs_jax.problem import FunctionProblem, value_and_jacobian

KEY = jax.random.key(0)


@functools.partial(jax.jit, static_argnums=(0, 1))
def call(emitter, method, *arguments):
    """One program for each of an emitter's methods; operation by operation they are hundreds."""
    return getattr(emitter, method)(*arguments)


@jax.jit
def archive_of(latents):
    latents = jnp.asarray(latents, jnp.float32)
    empty = GridArchive.create(latents[0], dims=(3, 3), ranges=((-1.5, 1.5), (-1.5, 1.5)))
    return empty.add(latents, latents[:, :2], jnp.zeros(len(latents)))


def test_dominated_novelty_by_hand():
    place = jnp.array([[0.0], [1.0], [3.0], [7.0], [7.5]])
    fitnesses = jnp.array([4.0, 1.0, 3.0, 3.0, -jnp.inf])
    novelty = dominated_novelty(fitnesses, place, neighbors=2)
    # The best has nobody above it, the second three at 1, 2 and 6; equals do not count.
    np.testing.assert_allclose(novelty, [np.inf, 1.5, 3.0, 7.0, -np.inf], atol=1e-6)


def test_dns_keeps_the_best_of_each_neighbourhood():
    emitter = DominatedNoveltyEmitter(batch=4, population=2, neighbors=1)
    archive = archive_of([[0.0, 0.0, 0.0]])
    starts = jnp.array([[0.0, 0.0, 5.0], [1.0, 0.0, 6.0], [0.1, 0.0, 7.0]])
    begun = jnp.array([3.0, 1.0, 2.0])
    state = call(emitter, "init", KEY, archive, starts, begun, starts[:, :2], {})
    assert state.genotypes[:, 2].tolist() == [5.0, 6.0]
    offered = jnp.array([[0.0, 0.0, 8.0], [1.0, 0.0, 9.0], [0.5, 0.0, 1.0], [1.0, 1.0, 2.0]])
    fitnesses = jnp.array([9.0, 2.0, jnp.nan, jnp.inf])
    state = call(emitter, "state_update", state, archive, offered, fitnesses, offered[:, :2], {})
    assert state.genotypes[:, 2].tolist() == [8.0, 9.0]
    x, _ = call(emitter, "emit", archive, state, KEY)
    assert x.shape == (emitter.batch_size, 3)
    assert jnp.isfinite(x).all()


def bound(latents, bandwidth, extent):
    """The lower bound of Soft QD for a toy problem, as the paper writes it."""
    fitnesses, place = toy(latents)
    place = place / extent
    apart = ((place[:, None] - place) ** 2).sum(-1)
    pairs = jnp.sqrt(fitnesses[:, None] * fitnesses) * jnp.exp(-apart / bandwidth**2)
    return fitnesses.sum() - jnp.triu(pairs, 1).sum()


def toy(latents):
    return 5 + jnp.sin(latents).sum(-1), latents[:, :2] + 0.1 * latents[:, 2:] ** 2


follow = jax.jit(soft_qd_gradient, static_argnums=(3, 4))


def squad(**settings):
    emitter = SquadEmitter(**({"num_emitters": 2, "population": 6, "bandwidth": 0.4} | settings))
    archive = archive_of([[0.0, 0.0, 0.0]])
    return emitter, archive, call(emitter, "init", KEY, archive, jnp.zeros((1, 3)), None, None, {})


@jax.jit
def jacobians(latents):
    return value_and_jacobian(toy, latents)[2]


def test_squad_follows_the_gradient_of_soft_qd():
    _, _, state = squad()
    fitnesses, place = toy(state.genotypes)
    state = state.replace(
        fitnesses=fitnesses, descriptors=place / state.extent, evaluated=jnp.ones(6, bool)
    )
    members = jnp.array([4, 1])
    gradient = follow(state, members, jacobians(state.genotypes[members]), 0.4, 5)
    want = jax.jit(jax.grad(bound))(state.genotypes, 0.4, state.extent)[members]
    np.testing.assert_allclose(gradient, want, rtol=1e-4, atol=1e-5)


def test_squad_members_without_light_climb_and_repel_nobody():
    _, _, state = squad()
    fitnesses, place = toy(state.genotypes)
    lit = state.replace(
        fitnesses=fitnesses, descriptors=place / state.extent, evaluated=jnp.ones(6, bool)
    )
    dark = lit.replace(fitnesses=fitnesses.at[4].set(-3.0))
    members, rows = jnp.array([4, 1]), jacobians(state.genotypes[jnp.array([4, 1])])
    gradient = follow(dark, members, rows, 0.4, 5)
    np.testing.assert_allclose(gradient[0], rows[0, 0], rtol=1e-6)
    alone = lit.replace(evaluated=lit.evaluated.at[4].set(False))
    want = follow(alone, members[1:], rows[1:], 0.4, 5)
    np.testing.assert_allclose(gradient[1], want[0], rtol=1e-5)


def test_squad_fitnesses_begin_at_the_offset_of_the_archive():
    emitter, archive, state = squad(num_emitters=6)
    archive = archive.replace(qd_score_offset=-100.0)
    fitnesses, place = toy(state.genotypes)
    _, extra = call(emitter, "emit", archive, state, KEY, jacobians(emitter.parents(state)))
    args = archive, state.genotypes, fitnesses - 100, place, extra
    after = call(emitter, "state_update", state, *args)
    np.testing.assert_allclose(after.fitnesses, fitnesses, rtol=1e-5)


def test_squad_evaluates_its_population_then_moves_it_in_turn():
    emitter, archive, state = squad(optimizer=Optimizer("adam", 0.1))
    begin = state.genotypes
    for _ in range(3):
        x, extra = call(emitter, "emit", archive, state, KEY, jacobians(emitter.parents(state)))
        state = call(emitter, "state_update", state, archive, x, *toy(x), extra)
    np.testing.assert_array_equal(state.genotypes, begin)
    assert state.evaluated.all() and state.first == 0
    x, extra = call(emitter, "emit", archive, state, KEY, jacobians(emitter.parents(state)))
    state = call(emitter, "state_update", state, archive, x, *toy(x), extra)
    np.testing.assert_allclose(jnp.abs(state.genotypes[:2] - begin[:2]), 0.1, rtol=1e-3)
    np.testing.assert_array_equal(state.genotypes[2:], begin[2:])


def test_squad_members_without_finite_scores_start_afresh():
    emitter, archive, state = squad()
    x, extra = call(emitter, "emit", archive, state, KEY, jnp.full((2, 3, 3), jnp.nan))
    fitnesses, place = toy(x)
    args = archive, x, fitnesses.at[0].set(jnp.nan), place, extra
    state = call(emitter, "state_update", state, *args)
    np.testing.assert_array_equal(state.genotypes[0], jnp.zeros(3))  # the only elite
    assert state.evaluated.tolist() == [False, True] + [False] * 4
    assert all(jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(state))


def test_squad_without_jacobians_says_so():
    emitter, archive, state = squad()
    with pytest.raises(ValueError, match=r"Jacobians.*jacobian_function"):
        emitter.emit(archive, state, KEY)


def test_evojax_solver_behaves_as_in_evojax_around_the_best_start():
    emitter = EvoJaxEmitter("CMA_ES_JAX", batch=8, latent_dim=3, sigma=0.3)
    starts = jnp.asarray([[0.0, 0.0, 0.0], [20.0, 30.0, 40.0], [1.0, 1.0, 1.0]])
    fitnesses = jnp.asarray([1.0, 2.0, jnp.nan])
    solver = CMA_ES_JAX(param_size=3, pop_size=8, mean=starts[1], init_stdev=0.3)
    solver.state = solver.state._replace(key=jax.random.key_data(KEY))
    state = jax.jit(emitter.init)(KEY, None, starts, fitnesses, None, {})
    update = jax.jit(emitter.state_update)
    for _ in range(4):
        x, _ = emitter.emit(None, state, KEY)
        wanted = solver.ask()
        np.testing.assert_allclose(x, wanted, rtol=1e-4, atol=1e-5)
        fitnesses = toy(wanted)[0].at[2].set(jnp.nan)
        state = update(state, None, x, fitnesses, None, {})
        solver.tell(jnp.nan_to_num(fitnesses, nan=jnp.nanmin(fitnesses)))


def test_a_problem_is_an_evojax_task():
    task = LatentTask(FunctionProblem(toy, 3, 2), ())
    policy = LatentPolicy(3)
    state = task.reset(jax.random.split(jax.random.PRNGKey(0), 4))
    latents = jax.random.normal(KEY, (4, 3))
    actions, _ = policy.get_actions(state, latents, policy.reset(state))
    state, reward, done = task.step(state, actions)
    np.testing.assert_allclose(reward, toy(latents)[0], rtol=1e-6)
    np.testing.assert_allclose(state.descriptors, toy(latents)[1], rtol=1e-6)
    assert done.all() and task.max_steps == 1 and policy.num_params == task.act_shape[0] == 3


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: DominatedNoveltyEmitter(batch=4, population=0), "population is 0"),
        (lambda: SquadEmitter(num_emitters=9, population=8), "population is 8.*9 members"),
        (lambda: SquadEmitter(num_emitters=1, bandwidth=0.0), "bandwidth is 0.0"),
        (lambda: EvoJaxEmitter("OpenAI", 4, 3), "'OpenAI'.*PGPE"),
        (lambda: EvoJaxEmitter("PGPE", 0, 3), "batch is 0"),
    ],
)
def test_bad_settings_are_named(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_a_population_that_does_not_suit_a_solver_is_named():
    emitter = EvoJaxEmitter("PGPE", 5, 3)
    with pytest.raises(ValueError, match="asks for 6 candidates instead of 5"):
        emitter.init(KEY, None, jnp.zeros((1, 3)), jnp.zeros(1), None, {})
