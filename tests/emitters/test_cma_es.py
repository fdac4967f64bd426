"""CMA-ES against golden vectors, and the promises its batch makes."""

import functools
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from qdgs_jax.emitters import cma_es
from qdgs_jax.emitters.cma_es import CMAConfig

DATA = Path(__file__).parents[1] / "data" / "emitters"
FILES = {
    "full": np.load(DATA / "opt_cma_es.npz"),
    "separable": np.load(DATA / "opt_sep_cma_es.npz"),
}
init = jax.jit(cma_es.init, static_argnums=0)
should_stop = jax.jit(cma_es.should_stop, static_argnums=0)
update = jax.jit(cma_es.update, static_argnums=0)
refresh = jax.jit(cma_es.refresh, static_argnums=0)
sample = jax.jit(cma_es.sample, static_argnums=0)
CASES = ["d5_n12_mu", "d5_n12_filter", "d20_n36_mu", "d20_n36_filter"]


@functools.partial(jax.jit, static_argnums=0)
def step(config, state, ranked, num_parents):
    """A whole iteration, and whether the strategy should stop after it."""
    state, rates = cma_es.update(config, cma_es.refresh(config, state), ranked, num_parents)
    return state, rates, cma_es.should_stop(config, state)


def assert_close(got, want):
    """Within 1e-5 of the array's largest entry, the scale that matters to a matrix."""
    scale = np.abs(want).max()
    np.testing.assert_allclose(got, want, rtol=0, atol=1e-5 * (scale if scale > 0 else 1))


@pytest.mark.parametrize("variant", ["pyribs", "textbook"])
@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("form", ["full", "separable"])
def test_ten_steps_match_the_reference(form, case, variant):
    def golden(name):
        return FILES[form][f"{case}/{name}"]

    _, batch, dim = golden("solutions").shape
    config = CMAConfig(dim, batch, 0.5, form=form, factor="eigen", variant=variant)
    if form == "full":
        assert config.refresh_gap == pytest.approx(golden("lazy_gap_evals"), rel=1e-5)
    prefix = "textbook_" if variant == "textbook" else ""

    state = init(config, golden("x0")[None])
    for i in range(10):
        ranked = golden("solutions")[i][golden("ranking_indices")[i]]
        num_parents = golden("num_parents")[i : i + 1]
        state, rates, stops = jax.device_get(step(config, state, ranked[None], num_parents))
        for name in ("mean", "sigma", "C", "pc", "ps"):
            assert_close(getattr(state, name)[0], golden(prefix + name)[i])
        assert_close(rates.weights[0], golden("weights")[i])
        assert state.evaluations[0] == (i + 1) * batch
        assert bool(stops[0]) == golden("check_stop")[i]
        if form == "full":
            assert state.refreshed_at[0] == golden(prefix + "updated_eval")[i]


@functools.cache
def adapted(form, factor):
    """Two strategies after some steps on an ellipsoid, the second without a last refresh."""
    config = CMAConfig(4, 12, 0.5, form=form, factor=factor)
    scales = np.float32([1, 3, 10, 30])

    def iteration(state, key):
        x = cma_es.sample(config, cma_es.refresh(config, state), key)
        cost = ((x * scales) ** 2).sum(-1)
        ranked = jnp.take_along_axis(x, jnp.argsort(cost)[..., None], axis=1)
        state, _ = cma_es.update(config, state, ranked[:, : config.num_parents], jnp.full(2, 6))
        return cma_es.refresh(config, state), cost.min(-1)

    @jax.jit
    def run():
        state = cma_es.init(config, jnp.ones((2, 4)))
        return jax.lax.scan(iteration, state, jax.random.split(jax.random.key(0), 200))

    return config, *jax.device_get(run())


@pytest.mark.parametrize(
    ("form", "factor"), [("full", "eigen"), ("full", "cholesky"), ("separable", "eigen")]
)
def test_an_ellipsoid_is_minimised(form, factor):
    _, _, best = adapted(form, factor)
    assert (best[:5] > 0.1).all()
    assert (best[-1] < 1e-8).all()


@pytest.mark.parametrize("factor", ["eigen", "cholesky"])
def test_samples_have_the_strategy_s_covariance(factor):
    C = np.float32([[[2.0, 0.9], [0.9, 1.0]]])
    config = CMAConfig(2, 20_000, 0.5, factor=factor)
    start = init(config, np.float32([[1, -2]])).replace(C=C)
    state = jax.device_get(refresh(config, start.replace(evaluations=np.int32([10_000_000]))))
    np.testing.assert_allclose(state.factor.mT @ state.factor, C, rtol=1e-5)
    x = np.asarray(sample(config, state, jax.random.key(0)))[0]
    np.testing.assert_allclose(x.mean(0), [1, -2], atol=0.02)
    np.testing.assert_allclose(np.cov(x.T), 0.25 * C[0], atol=0.02)


def test_a_strategy_without_parents_only_counts():
    config, state, _ = adapted("full", "eigen")
    ranked = np.ones((2, 6, 4), np.float32)
    after, rates = jax.device_get(update(config, state, ranked, np.int32([0, 6])))
    assert not rates.weights[0].any()
    assert (after.evaluations == state.evaluations + config.batch).all()
    for name in ("mean", "sigma", "C", "pc", "ps"):
        np.testing.assert_array_equal(getattr(after, name)[0], getattr(state, name)[0])
        assert (getattr(after, name)[1] != getattr(state, name)[1]).any()


def test_one_due_strategy_refreshes_the_batch_and_none_refreshes_nothing():
    config = CMAConfig(2, 4, 1.0, factor="eigen")
    C = np.float32([[[4, 0], [0, 1]]] * 2)
    state = init(config, np.zeros((2, 2), np.float32)).replace(C=C)
    np.testing.assert_array_equal(refresh(config, state).factor, state.factor)
    due = state.replace(evaluations=np.int32([1, 1000]))
    after = jax.device_get(refresh(config, due))
    np.testing.assert_allclose(after.factor.mT @ after.factor, C, rtol=1e-6)
    assert after.refreshed_at.tolist() == [1, 1000]


def test_refresh_stays_a_branch_under_vmap():
    config, state, _ = adapted("full", "eigen")
    seeds = jax.tree.map(lambda a: np.stack([a] * 3), state)
    seeds.evaluations[1] += 1000
    mapped = jax.vmap(functools.partial(cma_es.refresh, config))
    assert " cond[" in str(jax.make_jaxpr(mapped)(seeds))
    after = jax.device_get(jax.jit(mapped)(seeds))
    np.testing.assert_allclose(after.factor.mT @ after.factor, seeds.C, rtol=1e-4, atol=1e-12)


@functools.partial(jax.jit, static_argnums=0)
def restarted(config, state, chosen, mean):
    """The state once chosen strategies were reset, and refreshed."""
    return cma_es.refresh(config, cma_es.reset(config, state, chosen, mean))


def test_reset_restores_only_the_chosen():
    config, state, _ = adapted("full", "cholesky")
    mean = np.arange(8, dtype=np.float32).reshape(2, 4)
    after, fresh = restarted(config, state, np.array([False, True]), mean), init(config, mean)
    after, fresh = jax.device_get((after, fresh))
    for new, old, start in zip(*map(jax.tree.leaves, (after, state, fresh)), strict=True):
        np.testing.assert_array_equal(new[0], old[0])
        np.testing.assert_array_equal(new[1], start[1])


@pytest.mark.parametrize(
    "change",
    [
        pytest.param({"sigma": np.float32([1e-12])}, id="collapsed"),
        pytest.param({"sigma": np.float32([np.nan])}, id="sigma is not finite"),
        pytest.param({"mean": np.float32([[np.inf, 0]])}, id="mean is not finite"),
        pytest.param({"scale": np.float32([[1e8, 0.1]])}, id="ill-conditioned"),
        pytest.param({"scale": np.zeros((1, 2), np.float32)}, id="no variance left"),
    ],
)
def test_degenerate_strategies_stop(change):
    config = CMAConfig(2, 4, 1.0)
    state = init(config, np.zeros((1, 2), np.float32))
    assert should_stop(config, state).tolist() == [False]
    assert should_stop(config, state.replace(**change)).tolist() == [True]


@pytest.mark.parametrize("dim", [4, 40])
@pytest.mark.parametrize("factor", ["eigen", "cholesky"])
def test_a_restarted_strategy_samples_like_a_fresh_one(factor, dim):
    config = CMAConfig(dim, 6, 0.5, factor=factor)
    state = init(config, np.zeros((2, dim), np.float32))
    wide = np.asarray(state.C) * np.linspace(1, 2, dim, dtype=np.float32)
    state = refresh(config, state.replace(C=wide, evaluations=np.int32([9000, 9000])))
    mean = np.ones((2, dim), np.float32)
    after = restarted(config, state, np.array([True, False]), mean)
    fresh, key = init(config, mean), jax.random.key(0)
    got, want, old = (np.asarray(sample(config, s, key)) for s in (after, fresh, state))
    np.testing.assert_allclose(got[0], want[0], rtol=1e-6)
    np.testing.assert_allclose(got[1], old[1], rtol=1e-5)
    assert after.evaluations.tolist() == after.refreshed_at.tolist() == [0, 9000]
    adapted, anew = (
        np.asarray(update(config, s, got[:, :3], np.int32([3, 3]))[0].C) for s in (after, fresh)
    )
    np.testing.assert_allclose(adapted[0], anew[0], rtol=1e-5, atol=1e-6)
    assert np.abs(adapted[1] - anew[1]).max() > 0.5


@pytest.mark.parametrize(
    ("form", "spread", "stops"),
    [
        ("full", 1e3, False),
        ("full", 1e4, True),
        ("separable", 1e6, False),
        ("separable", 1e8, True),
    ],
)
def test_the_condition_that_stops_a_strategy_follows_from_the_precision(form, spread, stops):
    config = CMAConfig(2, 4, 1.0, form=form)
    state = init(config, np.zeros((1, 2), np.float32))
    state = state.replace(scale=np.float32([[spread, 1]]))
    assert should_stop(config, state).tolist() == [stops]


@pytest.mark.parametrize("factor", ["eigen", "cholesky"])
def test_a_covariance_without_factor_stops_its_strategy_only(factor):
    config = CMAConfig(2, 4, 1.0, factor=factor)
    state = init(config, np.zeros((2, 2), np.float32))
    broken = np.array(state.C)
    broken[0] = np.nan
    after = refresh(config, state.replace(C=broken, evaluations=np.int32([1000, 1000])))
    assert should_stop(config, after).tolist() == [True, False]
    assert np.isfinite(sample(config, after, jax.random.key(0))).all()


@pytest.mark.parametrize("batch", [1, 2, 3])
def test_tiny_batches_have_a_parent(batch):
    config = CMAConfig(3, batch, 0.5)
    assert config.num_parents == 1
    state = init(config, np.zeros((1, 3), np.float32))
    after, rates = update(config, state, np.ones((1, 1, 3), np.float32), np.int32([1]))
    np.testing.assert_array_equal(rates.weights, [[1.0]])
    np.testing.assert_allclose(after.mean, np.ones((1, 3)))
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(after))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"dim": 0}, "dim is 0"),
        ({"batch": 0}, "batch is 0"),
        ({"sigma0": -1.0}, "sigma0 is -1.0"),
        ({"form": "diagonal"}, "'diagonal'.*'separable'"),
        ({"factor": "lu"}, "'lu'.*'cholesky'"),
        ({"variant": "ribs"}, "'ribs'.*'pyribs'"),
    ],
)
def test_bad_settings_are_named(settings, message):
    with pytest.raises(ValueError, match=message):
        CMAConfig(**({"dim": 2, "batch": 4, "sigma0": 0.5} | settings))


def test_a_mean_of_the_wrong_shape_is_named():
    with pytest.raises(ValueError, match=r"\(2, 5\).*\[E, 3\]"):
        cma_es.init(CMAConfig(3, 4, 0.5), np.zeros((2, 5), np.float32))
