"""Parents' optimisers against golden vectors, and what they do for emitters that skip a step."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from qdgs_jax.emitters.optimizer import Optimizer

GOLDEN = np.load(Path(__file__).parents[1] / "data" / "emitters" / "opt_gradient.npz")

step = jax.jit(Optimizer.step, static_argnums=0)


def runs():
    """(array prefix, dimension, optimiser) of every golden run."""
    for prefix in sorted({k.rpartition("/")[0] for k in GOLDEN.files if k.endswith("/theta")}):
        kind, rest = prefix.split("_d", 1)
        dim, *settings = rest.split("_")
        options = {"step_size": float(settings[0].removeprefix("lr"))}
        if kind == "adam":
            options["weight_decay"] = float(settings[1].removeprefix("l2"))
        yield pytest.param(
            prefix,
            f"d{dim}",
            Optimizer("adam" if kind == "adam" else "ascent", **options),
            id=prefix,
        )


@pytest.mark.parametrize(("prefix", "dim", "optimizer"), list(runs()))
def test_ten_steps_match_the_reference(prefix, dim, optimizer):
    theta = jnp.asarray(GOLDEN[f"{dim}/theta0"])[None]
    state = optimizer.init(theta)
    for i, direction in enumerate(GOLDEN[f"{dim}/gradients"]):
        theta, state = step(optimizer, state, theta, direction[None], jnp.array([True]))
        np.testing.assert_allclose(theta[0], GOLDEN[f"{prefix}/theta"][i], rtol=1e-5, atol=1e-6)
        if optimizer.kind == "adam":
            np.testing.assert_allclose(state.m[0], GOLDEN[f"{prefix}/m"][i], rtol=1e-5, atol=1e-6)
            np.testing.assert_allclose(state.v[0], GOLDEN[f"{prefix}/v"][i], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kind", ["adam", "ascent"])
def test_inactive_emitters_keep_parent_and_state(kind):
    optimizer = Optimizer(kind, 0.1)
    theta = jnp.ones((2, 3))
    state = optimizer.init(theta)
    active = jnp.array([True, False])
    moved, after = step(optimizer, state, theta, jnp.ones((2, 3)), active)
    np.testing.assert_array_equal(moved[1], theta[1])
    assert (moved[0] > theta[0]).all()
    for new, old in zip(jax.tree.leaves(after), jax.tree.leaves(state), strict=True):
        np.testing.assert_array_equal(new[1], old[1])


def test_reset_clears_only_the_chosen():
    optimizer = Optimizer("adam", 0.1)
    theta = jnp.ones((2, 3))
    _, state = step(optimizer, optimizer.init(theta), theta, theta, jnp.array([True, True]))
    after = optimizer.reset(state, jnp.array([True, False]))
    assert after.count.tolist() == [0, 1]
    assert not after.m[0].any() and after.m[1].all()
    assert not after.v[0].any() and after.v[1].all()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"kind": "sgd"}, "'sgd'.*'adam' or 'ascent'"),
        ({"step_size": 0.0}, "step_size is 0.0"),
        ({"step_size": float("nan")}, "step_size is nan"),
        ({"beta1": 1.0}, "beta1 is 1.0"),
    ],
)
def test_bad_settings_are_named(settings, message):
    with pytest.raises(ValueError, match=message):
        Optimizer(**settings)
