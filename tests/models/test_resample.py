"""Convolutions and their derivatives, beside JAX's own."""

from __future__ import annotations

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from qdgs_jax.models.stylegan2.resample import convolve

_DIMENSIONS = ("NHWC", "HWIO", "NHWC")


def plain(x: jax.Array, kernel: jax.Array, padding: object) -> jax.Array:
    return lax.conv_general_dilated(x, kernel, (1, 1), padding, dimension_numbers=_DIMENSIONS)


@pytest.mark.parametrize("side", [(1, 1), (3, 3), (2, 1)])
@pytest.mark.parametrize("padding", ["SAME", "VALID", ((1, 1), (1, 0))])
def test_a_convolution_and_its_derivatives_are_those_of_jax(side, padding):
    x, kernel, y = (
        jax.random.normal(jax.random.key(number), shape)
        for number, shape in enumerate([(2, 5, 6, 3), (*side, 3, 4), (1,)])
    )
    found, pull_back = jax.vjp(lambda x, k: convolve(x, k, padding), x, kernel)
    wanted, pull_back_wanted = jax.vjp(lambda x, k: plain(x, k, padding), x, kernel)
    np.testing.assert_allclose(found, wanted, atol=1e-5)
    y = jax.random.normal(jax.random.key(3), found.shape)
    for ours, theirs in zip(pull_back(y), pull_back_wanted(y), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-5)


def test_in_a_loop_kernels_keep_the_order_that_fast_code_exists_for():
    def search(x, kernel):
        slope = jax.grad(lambda x: jnp.sum(convolve(x, kernel) ** 2))
        return lax.fori_loop(0, 3, lambda _, x: x - 1e-3 * slope(x), x)

    text = jax.jit(search).lower(jnp.ones((2, 8, 8, 4)), jnp.ones((3, 3, 4, 4))).compile().as_text()
    orders = re.findall(r"convolution\(.*dim_labels=(\w+->\w+)", text)
    assert len(orders) >= 2
    assert set(orders) == {"b01f_01io->b01f"}
