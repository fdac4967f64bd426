"""EvoJAX's solvers, which keep what they know in attributes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from qdgs_jax.algorithms import SOLVERS
from qdgs_jax.emitters import EvoJaxEmitter


@pytest.mark.parametrize("solver", SOLVERS)
def test_a_solver_first_met_inside_a_program_serves_the_next_one(solver):
    """Solvers are made once for equal emitters: nothing of the first program may stay in them."""
    latents, scores = jnp.ones((3, 7)), jnp.arange(3.0)

    def start(key: jax.Array) -> list[jax.Array]:
        emitter = EvoJaxEmitter(solver, 6, 7, sigma=0.31)  # as no other test makes it
        return jax.tree.leaves(emitter.init(key, None, latents, scores, jnp.zeros((3, 2)), {}))

    key = jax.random.PRNGKey(4)
    inside, again = (jax.jit(lambda key: start(key))(key) for _ in range(2))
    for one, other, outside in zip(inside, again, start(key), strict=True):
        np.testing.assert_array_equal(one, other)
        np.testing.assert_allclose(one, outside, rtol=1e-5)
