"""CMA-ME, CMA-MAE, OMG-MEGA and the emitters without a strategy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from qdgs_jax.archive import GridArchive
from qdgs_jax.emitters import (
    EvolutionStrategyEmitter,
    GaussianEmitter,
    IsoLineEmitter,
    OMGMegaEmitter,
    RandomEmitter,
    qdax_driver,
    ranking,
)
from qdgs_jax.emitters.ranking import Verdict


def on_host(function, **static):
    """A function as one program, whose results cost no further ones: they are NumPy's."""
    program = jax.jit(function, **static)
    return lambda *args: jax.device_get(program(*args))


add = on_host(GridArchive.add_with_info)
init = on_host(lambda emitter, *args: emitter.init(*args), static_argnums=0)
emit = on_host(lambda emitter, *args: emitter.emit(*args), static_argnums=0)
state_update = on_host(lambda emitter, *args: emitter.state_update(*args), static_argnums=0)
rank = on_host(ranking.rank, static_argnums=0)
select_parents = on_host(ranking.select_parents, static_argnums=0)
verdict = on_host(qdax_driver.verdict)


def archive_of(latents, **settings):
    """A grid over the first two components, holding the latents."""
    latents = jnp.asarray(latents, jnp.float32)
    empty = GridArchive.create(latents[0], dims=(4, 4), ranges=((-2, 2), (-2, 2)), **settings)
    return add(empty, latents, latents[:, :2], -jnp.sum(latents**2, axis=-1))[0]


ELITES = [[0.5, 0.5, 3.0], [-1.5, 1.5, 1.0], [1.5, -1.5, 2.0]]


def rows_in(rows, pool):
    return (np.asarray(rows)[:, None] == np.asarray(pool, np.float32)).all(-1).any(-1)


def test_gaussian_candidates_surround_elites():
    archive = archive_of(ELITES)
    x, _ = emit(GaussianEmitter(600, sigma=0.01), archive, None, jax.random.key(0))
    distance = np.linalg.norm(np.asarray(x)[:, None] - np.asarray(ELITES), axis=-1)
    assert distance.min(1).max() < 0.06
    assert (np.bincount(distance.argmin(1), minlength=3) > 150).all()
    assert np.isclose(distance.min(1).mean(), 0.01 * 1.6, rtol=0.1)  # mean norm in 3 dimensions


def test_iso_line_candidates_lie_on_lines_between_elites():
    archive = archive_of(ELITES[:2])
    emitter = IsoLineEmitter(200, iso_sigma=1e-6, line_sigma=0.3)
    x = np.asarray(emit(emitter, archive, None, jax.random.key(0))[0])
    a, b = map(np.asarray, ELITES[:2])
    along = (x - a) @ (b - a) / ((b - a) @ (b - a))
    np.testing.assert_allclose(x, a + along[:, None] * (b - a), atol=1e-4)
    assert along.min() < -0.1 and along.max() > 1.1
    assert 0.3 < np.mean((along % 1 < 1e-4) | (along % 1 > 1 - 1e-4)) < 0.7  # pairs of one elite


def test_random_candidates_come_from_the_prior():
    x, _ = emit(RandomEmitter(4000, 3), None, None, jax.random.key(0))
    np.testing.assert_allclose(x.mean(0), 0, atol=0.1)
    np.testing.assert_allclose(x.std(0), 1, atol=0.1)
    emitter = RandomEmitter(5, 3, prior=lambda params, key, n: jnp.full((n, 3), params["mean"]))
    np.testing.assert_array_equal(
        emit(emitter, None, None, jax.random.key(0), {"mean": 7.0})[0], np.full((5, 3), 7)
    )


@pytest.mark.parametrize(
    "emitter", [GaussianEmitter(8, bounds=(-0.1, 0.1)), IsoLineEmitter(8, bounds=(-0.1, 0.1))]
)
def test_an_empty_archive_gives_candidates_around_the_origin_and_bounds_hold(emitter):
    empty = GridArchive.create(jnp.zeros(3), dims=(2,), ranges=((-1, 1),))
    x, _ = emit(emitter, empty, None, jax.random.key(0))
    assert x.shape == (emitter.batch_size, 3)
    assert (np.abs(x) <= np.float32(0.1)).all() and (x != x[0]).any()


def strategy(**settings):
    emitter = EvolutionStrategyEmitter(**({"num_emitters": 2, "batch": 4} | settings))
    archive = archive_of(ELITES)
    starts = jnp.asarray([[0.0, 0.0, 0.0], [1.0, 1.0, 1.0]])
    return emitter, archive, init(emitter, jax.random.key(0), archive, starts, None, None, {})


def told(emitter, archive, state, genotypes, *, value, status=None, descriptors=None):
    value = jnp.asarray(value, jnp.float32)
    extra = {
        "status": jnp.ones(8, int) if status is None else jnp.asarray(status),
        "value": value,
        "key": jax.random.key(3),
    }
    descriptors = jnp.zeros((8, 2)) if descriptors is None else descriptors
    return state_update(emitter, state, archive, genotypes, value, descriptors, extra)


@pytest.mark.parametrize("form", ["full", "separable"])
def test_strategies_move_towards_what_the_archive_valued(form):
    emitter, archive, state = strategy(form=form)
    x, _ = emit(emitter, archive, state, jax.random.key(1))
    after = told(emitter, archive, state, x, value=x[:, 0])
    assert (after.strategy.mean[:, 0] > state.strategy.mean[:, 0]).all()
    best = np.sort(x.reshape(2, 4, 3)[..., 0], axis=1)[:, -2:]
    assert (after.strategy.mean[:, 0] >= best[:, 0]).all()
    assert (after.strategy.mean[:, 0] <= best[:, 1]).all()


def test_random_direction_emitters_move_along_their_direction():
    emitter, archive, state = strategy(ranking="2rd")
    assert (state.direction[0] != state.direction[1]).any()
    x, _ = emit(emitter, archive, state, jax.random.key(1))
    after = told(emitter, archive, state, x, value=jnp.zeros(8), descriptors=x[:, :2])
    along = np.einsum("ed,ed->e", after.strategy.mean[:, :2], state.direction)
    before = np.einsum("ed,ed->e", state.strategy.mean[:, :2], state.direction)
    assert (along > before).all()


def test_a_restart_goes_to_an_elite_with_a_new_direction():
    emitter, archive, state = strategy(restart="no_improvement", ranking="2rd")
    x, _ = emit(emitter, archive, state, jax.random.key(1))
    status = [0, 0, 0, 0, 1, 0, 0, 0]
    after = told(
        emitter, archive, state, x, value=jnp.arange(8.0), status=status, descriptors=x[:, :2]
    )
    assert after.age.tolist() == [0, 1]
    assert rows_in(after.strategy.mean, ELITES).tolist() == [True, False]
    assert after.strategy.sigma[0] == emitter.sigma0
    assert (after.direction[0] != state.direction[0]).all()
    np.testing.assert_array_equal(after.direction[1], state.direction[1])


def test_a_number_restarts_after_as_many_iterations():
    emitter, archive, state = strategy(restart=2)
    x, _ = emit(emitter, archive, state, jax.random.key(1))
    ages = []
    for _ in range(3):
        state = told(emitter, archive, state, x, value=jnp.arange(8.0))
        ages.append(state.age.tolist())
    assert ages == [[1, 1], [0, 0], [1, 1]]


def test_candidates_stay_inside_the_bounds():
    emitter, archive, state = strategy(bounds=(-0.1, 0.1))
    x, _ = emit(emitter, archive, state, jax.random.key(1))
    assert (np.abs(x) <= np.float32(0.1)).all()
    assert (np.abs(x) < np.float32(0.1)).any()  # not all of them had to be moved


def test_candidates_that_are_not_finite_are_never_learnt_from():
    emitter, archive, state = strategy()
    x, _ = emit(emitter, archive, state, jax.random.key(1))
    bad = x.copy()
    bad[[0, 1, 5]] = np.nan
    after = told(emitter, archive, state, bad, value=bad[:, 0])
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(after))
    kept = x[2:4].mean(0)[0]
    assert abs(after.strategy.mean[0, 0] - kept) < np.abs(x[2, 0] - x[3, 0])


@pytest.mark.parametrize("variant", ["imp", "2imp", "obj", "2obj", "rd", "2rd"])
def test_ranking_by_hand(variant):
    judged = Verdict(
        status=jnp.array([[0, 2, 1, 1]]),
        value=jnp.array([[9.0, 1.0, 5.0, 5.0]]),
        fitnesses=jnp.array([[1.0, 2.0, 3.0, 0.0]]),
    )
    projection = jnp.array([[3.0, 0.0, 1.0, 2.0]])
    order, flat = rank(variant, judged, projection)
    assert (
        order[0].tolist()
        == {
            "imp": [0, 3, 2, 1],  # of equals the later one leads
            "2imp": [1, 3, 2, 0],
            "obj": [2, 1, 0, 3],
            "2obj": [1, 2, 3, 0],
            "rd": [0, 3, 2, 1],
            "2rd": [1, 3, 2, 0],
        }[variant]
    )
    assert not flat[0]


def test_accepted_parents_are_accepted_whatever_the_ranking():
    status = jnp.array([[0, 1, 0, 2], [0, 0, 0, 0]])
    fitnesses = jnp.array([[9.0, 5.0, 8.0, 7.0], [1.0, 2.0, 3.0, 4.0]])
    order, _ = rank("obj", Verdict(status, jnp.zeros((2, 4)), fitnesses))
    parents, count = select_parents("accepted", order, status)
    assert parents.tolist() == [[3, 1, 0, 2], [3, 2, 1, 0]]
    assert count.tolist() == [2, 0]


@pytest.mark.parametrize(("rule", "parents"), [("mu", [[1, 3]]), ("all", [[1, 3, 0, 2]])])
def test_parents_by_number_come_in_their_order(rule, parents):
    selected, count = select_parents(rule, jnp.array([[1, 3, 0, 2]]), jnp.zeros((1, 4), int))
    assert selected.tolist() == parents
    assert count.tolist() == [len(parents[0])]


def test_a_flat_ranking_is_noticed_and_one_candidate_is_none():
    equal = Verdict(jnp.array([[1, 1], [1, 2]]), jnp.zeros((2, 2)), jnp.zeros((2, 2)))
    assert rank("imp", equal)[1].tolist() == [True, True]
    assert rank("2imp", equal)[1].tolist() == [True, False]
    single = Verdict(jnp.array([[1]]), jnp.zeros((1, 1)), jnp.zeros((1, 1)))
    assert not rank("imp", single)[1][0]
    with pytest.raises(ValueError, match=r"'rd'.*projection"):
        rank("rd", single)


def test_the_verdict_of_a_snapshot_is_that_of_add_info():
    archive = archive_of(ELITES, learning_rate=0.1, threshold_min=-9.0)
    key = jax.random.key(0)
    x = jax.random.uniform(key, (64, 3), jnp.float32, minval=-2, maxval=2)
    x = x.at[7].set(jnp.nan)
    fitnesses = 2 - jnp.sum(x**2, axis=-1)
    after, info = add(archive, x, x[:, :2], fitnesses)
    extra = {"status": info.status, "value": info.value}
    told = verdict(after, fitnesses, x[:, :2], extra)
    recovered = verdict(after, fitnesses[:, None], x[:, :2], {"thresholds": archive.thresholds})
    for a, b in zip(told, recovered, strict=True):
        np.testing.assert_array_equal(a, b)
    assert set(told.status.tolist()) == {0, 1, 2}


def test_omg_mega_branches_random_elites_upwards():
    emitter = OMGMegaEmitter(num_emitters=4, branches=3, num_measures=2, sigma=2.0)
    archive = archive_of(ELITES)
    state = init(emitter, jax.random.key(0), archive, jnp.asarray(ELITES[:1]), None, None, {})
    state = state_update(emitter, state, archive, None, None, None, {})
    theta = emitter.parents(state)
    assert rows_in(theta, ELITES).all()
    again = state_update(emitter, state, archive, None, None, None, {"key": jax.random.key(9)})
    assert (again.theta != theta).any()
    jacobian = jnp.broadcast_to(3 * jnp.eye(3), (4, 3, 3))
    x, _ = emit(emitter, archive, state, jax.random.key(1), jacobian)
    steps = np.asarray(x).reshape(4, 3, 3) - np.asarray(theta)[:, None]
    assert (steps[..., 0] >= 0).all() and (steps[..., 1:] < 0).any()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: GaussianEmitter(0), "batch is 0"),
        (lambda: GaussianEmitter(4, sigma=-1.0), "sigma is -1.0"),
        (lambda: IsoLineEmitter(4, line_sigma=0.0), "line_sigma is 0.0"),
        (lambda: RandomEmitter(4, 0), "latent_dim is 0"),
        (lambda: OMGMegaEmitter(1, 0, 2), "branches is 0"),
        (lambda: EvolutionStrategyEmitter(0, 4), "num_emitters is 0"),
        (lambda: EvolutionStrategyEmitter(1, 4, ranking="3imp"), "'3imp'"),
        (lambda: EvolutionStrategyEmitter(1, 4, form="diagonal"), "'diagonal'"),
        (lambda: EvolutionStrategyEmitter(1, 4, bounds=(2.0, 1.0)), "low < high"),
    ],
)
def test_bad_settings_are_named(make, message):
    with pytest.raises(ValueError, match=message):
        make()
