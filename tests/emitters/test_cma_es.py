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
update = jax.jit(cma_es.update, static_argnums=0)
refresh = jax.jit(cma_es.refresh, static_argnums=0)
sample = jax.jit(cma_es.sample, static_argnums=0)
CASES = ["d5_n12_mu", "d5_n12_filter", "d20_n36_mu", "d20_n36_filter"]


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

    state = cma_es.init(config, jnp.asarray(golden("x0"))[None])
    for i in range(10):
        ranked = golden("solutions")[i][golden("ranking_indices")[i]]
        num_parents = golden("num_parents")[i : i + 1]
        state, rates = update(config, refresh(config, state), ranked[None], num_parents)
        for name in ("mean", "sigma", "C", "pc", "ps"):
            assert_close(getattr(state, name)[0], golden(prefix + name)[i])
        assert_close(rates.weights[0], golden("weights")[i])
        assert state.evaluations[0] == (i + 1) * batch
        assert bool(cma_es.should_stop(config, state)[0]) == golden("check_stop")[i]
        if form == "full":
            assert state.refreshed_at[0] == golden(prefix + "updated_eval")[i]


@functools.cache
def adapted(form, factor):
    """Two strategies after some steps on an ellipsoid, the second without a last refresh."""
    config = CMAConfig(4, 12, 0.5, form=form, factor=factor)
    scales = jnp.array([1.0, 3.0, 10.0, 30.0])

    def step(state, key):
        x = cma_es.sample(config, cma_es.refresh(config, state), key)
        cost = ((x * scales) ** 2).sum(-1)
        ranked = jnp.take_along_axis(x, jnp.argsort(cost)[..., None], axis=1)
        state, _ = cma_es.update(config, state, ranked[:, : config.num_parents], jnp.full(2, 6))
        return cma_es.refresh(config, state), cost.min(-1)

    state = cma_es.init(config, jnp.ones((2, 4)))
    run = jax.jit(lambda state, keys: jax.lax.scan(step, state, keys))
    state, best = run(state, jax.random.split(jax.random.key(0), 200))
    return config, state, best


@pytest.mark.parametrize(
    ("form", "factor"), [("full", "eigen"), ("full", "cholesky"), ("separable", "eigen")]
)
def test_an_ellipsoid_is_minimised(form, factor):
    _, _, best = adapted(form, factor)
    assert (best[:5] > 0.1).all()
    assert (best[-1] < 1e-8).all()


@pytest.mark.parametrize("factor", ["eigen", "cholesky"])
def test_samples_have_the_strategy_s_covariance(factor):
    C = jnp.array([[[2.0, 0.9], [0.9, 1.0]]])
    config = CMAConfig(2, 20_000, 0.5, factor=factor)
    start = cma_es.init(config, jnp.array([[1.0, -2.0]])).replace(C=C)
    state = refresh(config, start.replace(evaluations=jnp.array([10_000_000])))
    np.testing.assert_allclose(state.factor.mT @ state.factor, C, rtol=1e-5)
    x = sample(config, state, jax.random.key(0))[0]
    np.testing.assert_allclose(x.mean(0), [1, -2], atol=0.02)
    np.testing.assert_allclose(jnp.cov(x.T), 0.25 * C[0], atol=0.02)


def test_a_strategy_without_parents_only_counts():
    config, state, _ = adapted("full", "eigen")
    ranked = jnp.ones((2, 6, 4))
    after, rates = update(config, state, ranked, jnp.array([0, 6]))
    assert not rates.weights[0].any()
    assert (after.evaluations == state.evaluations + config.batch).all()
    for name in ("mean", "sigma", "C", "pc", "ps"):
        np.testing.assert_array_equal(getattr(after, name)[0], getattr(state, name)[0])
        assert (getattr(after, name)[1] != getattr(state, name)[1]).any()


def test_one_due_strategy_refreshes_the_batch_and_none_refreshes_nothing():
    config = CMAConfig(2, 4, 1.0, factor="eigen")
    C = jnp.array([[[4.0, 0.0], [0.0, 1.0]]] * 2)
    state = cma_es.init(config, jnp.zeros((2, 2))).replace(C=C)
    np.testing.assert_array_equal(refresh(config, state).factor, state.factor)
    due = state.replace(evaluations=jnp.array([1, 1000]))
    after = refresh(config, due)
    np.testing.assert_allclose(after.factor.mT @ after.factor, C, rtol=1e-6)
    assert after.refreshed_at.tolist() == [1, 1000]


def test_refresh_stays_a_branch_under_vmap():
    config, state, _ = adapted("full", "eigen")
    seeds = jax.tree.map(lambda a: jnp.stack([a] * 3), state)
    seeds = seeds.replace(evaluations=seeds.evaluations.at[1].add(1000))
    mapped = jax.vmap(functools.partial(cma_es.refresh, config))
    assert " cond[" in str(jax.make_jaxpr(mapped)(seeds))
    after = jax.jit(mapped)(seeds)
    np.testing.assert_allclose(after.factor.mT @ after.factor, seeds.C, rtol=1e-4, atol=1e-12)


def test_reset_restores_only_the_chosen():
    config, state, _ = adapted("full", "cholesky")
    mean = jnp.arange(8.0).reshape(2, 4)
    after = refresh(config, cma_es.reset(config, state, jnp.array([False, True]), mean))
    fresh = cma_es.init(config, mean)
    for new, old, start in zip(*map(jax.tree.leaves, (after, state, fresh)), strict=True):
        np.testing.assert_array_equal(new[0], old[0])
        np.testing.assert_array_equal(new[1], start[1])


@pytest.mark.parametrize(
    "change",
    [
        pytest.param({"sigma": jnp.array([1e-12])}, id="collapsed"),
        pytest.param({"sigma": jnp.array([jnp.nan])}, id="sigma is not finite"),
        pytest.param({"mean": jnp.array([[jnp.inf, 0.0]])}, id="mean is not finite"),
        pytest.param({"scale": jnp.array([[1e8, 0.1]])}, id="ill-conditioned"),
        pytest.param({"scale": jnp.zeros((1, 2))}, id="no variance left"),
    ],
)
def test_degenerate_strategies_stop(change):
    config = CMAConfig(2, 4, 1.0)
    state = cma_es.init(config, jnp.zeros((1, 2)))
    assert not cma_es.should_stop(config, state)[0]
    assert cma_es.should_stop(config, state.replace(**change))[0]


@pytest.mark.parametrize("dim", [4, 40])
@pytest.mark.parametrize("factor", ["eigen", "cholesky"])
def test_a_restarted_strategy_samples_like_a_fresh_one(factor, dim):
    config = CMAConfig(dim, 6, 0.5, factor=factor)
    state = cma_es.init(config, jnp.zeros((2, dim)))
    spread = jnp.linspace(1.0, 2.0, dim)
    state = refresh(config, state.replace(C=state.C * spread, evaluations=jnp.array([9000, 9000])))
    mean = jnp.ones((2, dim))
    after = refresh(config, cma_es.reset(config, state, jnp.array([True, False]), mean))
    fresh, key = cma_es.init(config, mean), jax.random.key(0)
    got, want = sample(config, after, key), sample(config, fresh, key)
    np.testing.assert_allclose(got[0], want[0], rtol=1e-6)
    np.testing.assert_allclose(got[1], sample(config, state, key)[1], rtol=1e-5)
    assert after.evaluations.tolist() == after.refreshed_at.tolist() == [0, 9000]
    adapted, _ = update(config, after, got[:, :3], jnp.array([3, 3]))
    anew, _ = update(config, fresh, got[:, :3], jnp.array([3, 3]))
    np.testing.assert_allclose(adapted.C[0], anew.C[0], rtol=1e-5, atol=1e-6)
    assert jnp.abs(adapted.C[1] - anew.C[1]).max() > 0.5


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
    state = cma_es.init(config, jnp.zeros((1, 2), jnp.float32))
    state = state.replace(scale=jnp.array([[spread, 1.0]], jnp.float32))
    assert cma_es.should_stop(config, state).tolist() == [stops]


@pytest.mark.parametrize("factor", ["eigen", "cholesky"])
def test_a_covariance_without_factor_stops_its_strategy_only(factor):
    config = CMAConfig(2, 4, 1.0, factor=factor)
    state = cma_es.init(config, jnp.zeros((2, 2)))
    broken = state.C.at[0].set(jnp.nan)
    after = refresh(config, state.replace(C=broken, evaluations=jnp.array([1000, 1000])))
    assert cma_es.should_stop(config, after).tolist() == [True, False]
    assert jnp.isfinite(sample(config, after, jax.random.key(0))).all()


@pytest.mark.parametrize("batch", [1, 2, 3])
def test_tiny_batches_have_a_parent(batch):
    config = CMAConfig(3, batch, 0.5)
    assert config.num_parents == 1
    state = cma_es.init(config, jnp.zeros((1, 3)))
    after, rates = update(config, state, jnp.ones((1, 1, 3)), jnp.array([1]))
    np.testing.assert_array_equal(rates.weights, [[1.0]])
    np.testing.assert_allclose(after.mean, jnp.ones((1, 3)))
    assert all(jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(after))


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
        cma_es.init(CMAConfig(3, 4, 0.5), jnp.zeros((2, 5)))
