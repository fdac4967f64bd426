"""Useful operations: each product once, loops as often as they turn."""

import jax
import jax.numpy as jnp
import pytest
from domain_settings import settings

from qdgs_jax.domains.weights import ASSETS
from qdgs_jax.targets.abstract import abstract_domain
from qdgs_jax.targets.flops import counted, evaluation_flop

MATRIX = jax.ShapeDtypeStruct((16, 16), jnp.float32)
PRODUCT = 2 * 16**3


def test_a_scan_counts_all_its_turns():
    def turns(x):
        def outer(x, _):
            return jax.lax.fori_loop(0, 3, lambda _, x: x @ x, x) @ x, None

        return jax.lax.scan(outer, x, length=5)[0]

    assert counted(lambda x: x @ x, MATRIX) == PRODUCT
    assert counted(turns, MATRIX) == pytest.approx(5 * 4 * PRODUCT, rel=0.01)
    assert counted(jax.jit(turns), MATRIX) == pytest.approx(5 * 4 * PRODUCT, rel=0.01)


def test_batches_and_recomputation_are_no_use():
    text = (ASSETS / "shapes.toml").read_text()
    once, with_jacobian = evaluation_flop(abstract_domain(settings(text)))
    assert with_jacobian > 2 * once > 0
    batched = abstract_domain(settings(text, evaluation={"batch": 1}))
    assert evaluation_flop(batched) == (once, with_jacobian)
