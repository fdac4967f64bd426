"""What a user's function may return, and how a wrong return is named."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from qdgs_jax.problem import FunctionProblem

LATENTS = jnp.asarray([[1.0, 2.0], [3.0, -1.0]])


def test_outputs_may_be_a_list_of_different_precisions():
    def function(x):
        return [jnp.sum(x**2, axis=-1).astype(jnp.bfloat16), x[:, :1] * x[:, 1:]]

    problem = FunctionProblem(function, 2, 1)
    evaluation, jacobian = problem.evaluate_with_jacobian((), (), LATENTS, jax.random.key(0))
    assert evaluation.fitnesses.tolist() == [5.0, 10.0]
    x, y = LATENTS.T
    wanted = jnp.stack([2 * LATENTS, jnp.stack([y, x], axis=-1)], axis=1)
    np.testing.assert_allclose(jacobian, wanted, rtol=1e-2)


@pytest.mark.parametrize(
    ("returned", "message"),
    [
        (LATENTS[:, 0], r"returned no tuple: return \(objectives, measures\)"),
        ((LATENTS[:, 0],), r"returned 1 values: return \(objectives, measures\)"),
        ((LATENTS[:, 0], LATENTS, LATENTS), r"returned 3 values: return \(objectives, measures\)"),
    ],
)
def test_a_function_that_does_not_return_both_is_named(returned, message):
    problem = FunctionProblem(lambda x: returned, 2, 2)
    with pytest.raises(ValueError, match=message):
        problem.evaluate((), (), LATENTS, jax.random.key(0))
    problem = FunctionProblem(lambda x: (x[:, 0], x), 2, 2, jacobian=lambda x: (x[:, 0], x))
    with pytest.raises(ValueError, match=r"returned 2 values: return .*, Jacobian"):
        problem.evaluate_with_jacobian((), (), LATENTS, jax.random.key(0))
