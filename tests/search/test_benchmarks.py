"""Benchmark domains: values worked by hand, gradients against differences."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from qdgs_jax.benchmark_problems import (
    PROBLEMS,
    arm,
    load_benchmark,
    plateau,
    projection,
    rastrigin,
    sphere,
)


@pytest.mark.parametrize("objective", [sphere, rastrigin])
def test_objectives_span_0_to_100(objective):
    x = jnp.array([[2.048] * 6, [-5.12] * 6, [3.048] * 6])
    values = objective(x)
    np.testing.assert_allclose(values[:2], [100, 0], atol=1e-3)
    # One off everywhere: a squared distance of 1, and the ripple is back at its crest.
    worst = 7.168**2 + (0 if objective is sphere else 10 * (1 - np.cos(2 * np.pi * 7.168)))
    np.testing.assert_allclose(values[2], 100 * (1 - 1 / worst), rtol=1e-5)


def test_the_plateau_falls_outside_its_bounds():
    x = jnp.array([[5.12, -5.12], [0.0, 7.12], [-6.12, 6.12]])
    np.testing.assert_allclose(plateau(x), [100, 98, 99], rtol=1e-6)


def test_components_outside_are_folded_back():
    x = jnp.array([[1.0, 5.12, 10.24, -51.2]])
    np.testing.assert_allclose(projection(x), [[6.12, 0.5 - 0.1]], rtol=1e-6)


def test_the_arm_reaches_and_bends():
    angles = jnp.array([[0.0] * 4, [np.pi / 2, 0, 0, 0], [np.pi / 2] * 4])
    objectives, tips = arm(angles)
    np.testing.assert_allclose(tips, [[4, 0], [0, 4], [0, 0]], atol=1e-5)
    variance = (np.pi / 2) ** 2 * 3 / 16
    np.testing.assert_allclose(objectives, [100, 100 * (1 - variance), 100], rtol=1e-5)


@pytest.mark.parametrize("name", PROBLEMS)
def test_derived_gradients_are_those_of_differences(name):
    bench = load_benchmark(name, 4)
    x = jnp.array([[0.0, 6.0, -8.0, 3.0]])
    differentiate = jax.jit(bench.problem.evaluate_with_jacobian)
    evaluate = jax.jit(bench.problem.evaluate)
    _, jacobian = differentiate((), (), x, jax.random.key(0))

    def outputs(x):
        scores = evaluate((), (), x, None)
        return np.concatenate([np.asarray(scores.fitnesses), np.asarray(scores.descriptors)[0]])

    step = 1e-2
    for i in range(4):
        change = outputs(x.at[0, i].add(step)) - outputs(x.at[0, i].add(-step))
        np.testing.assert_allclose(jacobian[0, :, i], change / (2 * step), rtol=0.03, atol=0.02)


def test_archives_have_the_papers_ranges():
    assert load_benchmark("sphere", 100).ranges == ((-256.0, 256.0),) * 2
    assert load_benchmark("arm", 100).ranges == ((-100, 100),) * 2


@pytest.mark.parametrize(
    ("name", "dim", "message"),
    [("cube", 4, "'cube'.*sphere"), ("sphere", 3, "dim is 3.*even"), ("arm", 0, "dim is 0")],
)
def test_bad_settings_are_named(name, dim, message):
    with pytest.raises(ValueError, match=message):
        load_benchmark(name, dim)
