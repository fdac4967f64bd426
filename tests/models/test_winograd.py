"""Convolutions with fewer products, and batch norms with fewer passes, against the plain ones."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from derivatives import pulled_back

from qdgs_jax.models import winograd
from qdgs_jax.models.backend import lowering_for
from qdgs_jax.models.batch_norm import normalised
from qdgs_jax.models.convolution import convolve

ROUNDING = 1e-5  # of the largest value, 80 times float32's


def drawn(batch, height, width, c_in, c_out):
    rng = np.random.default_rng(height)
    shapes = (batch, height, width, c_in), (3, 3, c_in, c_out), (batch, height, width, c_out)
    return [rng.normal(size=shape) for shape in shapes]


def by_definition(x, kernel, y):
    """A convolution, and both its derivatives of y, tap by tap."""
    height, width = x.shape[1:3]
    padded = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    result, to_padded, to_kernel = np.zeros_like(y), np.zeros_like(padded), np.zeros_like(kernel)
    for row, column in np.ndindex(3, 3):
        place = np.s_[:, row : row + height, column : column + width]
        result += padded[place] @ kernel[row, column]
        to_padded[place] += y @ kernel[row, column].T
        to_kernel[row, column] = np.tensordot(padded[place], y, ((0, 1, 2), (0, 1, 2)))
    return result, to_padded[:, 1:-1, 1:-1], to_kernel


def check_against_float64(function, x, kernel, y):
    """Values and both derivatives are those of the definition at twice the precision."""
    exact = by_definition(x, kernel, y)
    x, kernel, y = (array.astype(np.float32) for array in (x, kernel, y))
    found, derivatives = jax.device_get(pulled_back(function, y, x, kernel))
    for one, other in zip((found, *derivatives), exact, strict=True):
        assert one.shape == other.shape
        assert np.abs(one - other).max() <= ROUNDING * np.abs(other).max()


@pytest.mark.parametrize("height", [1, 2, 3, 4, 5, 6, 7, 8, 11, 14])
def test_steps_make_a_convolution_and_its_derivatives_at_any_height(height):
    @jax.custom_vjp
    def fewer(x, kernel):
        return winograd.convolve_sums(winograd.input_sums(x), kernel, height)

    def backward(kept, y):
        x, kernel = kept
        derivatives = winograd.result_sums(y)
        to_input = winograd.to_input(kernel, derivatives, height)
        return to_input, winograd.to_kernel(winograd.input_sums(x), derivatives)

    fewer.defvjp(lambda x, kernel: (fewer(x, kernel), (x, kernel)), backward)
    check_against_float64(fewer, *drawn(2, height, 5, 3, 4))


@pytest.mark.parametrize("channels", [(64, 64), (64, 96), (100, 70)])
@pytest.mark.parametrize("sides", [(14, 14), (7, 19)])
def test_convolutions_of_many_channels_are_those_of_differentiation(sides, channels):
    check_against_float64(convolve, *drawn(3, *sides, *channels))


def uses_fewer_products(x, kernel, stride=1):
    """Whether six convolutions along the width stand for one of two axes."""
    lines = str(jax.make_jaxpr(lambda x, k: convolve(x, k, stride))(x, kernel)).splitlines()
    counts = sum("conv_general_dilated[" in line for line in lines)
    assert counts in (1, 6)
    return counts == 6


def test_fewer_products_are_taken_on_a_cpu_where_they_pay():
    x, kernel = (np.zeros(shape, np.float32) for shape in ((2, 16, 16, 64), (3, 3, 64, 64)))
    assert uses_fewer_products(x, kernel)
    assert not uses_fewer_products(x, kernel, stride=2)
    assert not uses_fewer_products(x, kernel[:1, :1])
    assert not uses_fewer_products(x[:, :8, :8], kernel)  # sums of the kernel would take longer
    assert not uses_fewer_products(x[..., :63], kernel[:, :, :63])
    half = x.astype(jnp.bfloat16), kernel.astype(jnp.bfloat16)
    assert not uses_fewer_products(*half)
    with lowering_for("tpu"):
        assert not uses_fewer_products(x, kernel)


@pytest.mark.parametrize("shape", [(6, 5), (3, 4, 7, 5)])
def test_batch_norms_have_the_derivative_that_differentiation_gives(shape):
    rng = np.random.default_rng(0)
    x, y = rng.normal(2.0, 3.0, shape), rng.normal(size=shape)
    scale, bias = rng.normal(1.0, 0.2, shape[-1]), rng.normal(size=shape[-1])
    axes = tuple(range(len(shape) - 1))

    def step_by_step(x, scale, bias):
        centred = x - x.mean(axis=axes)
        return centred / jnp.sqrt(jnp.square(centred).mean(axis=axes) + 1e-5) * scale + bias

    def ours(x, scale, bias):
        return normalised(x, x.mean(axis=axes), x.var(axis=axes), scale, bias, 1e-5)

    with jax.enable_x64(True):
        exact = jax.tree.map(np.asarray, pulled_back(step_by_step, y, x, scale, bias))
    single = [array.astype(np.float32) for array in (y, x, scale, bias)]
    found = pulled_back(ours, *single)
    for one, other in zip(jax.tree.leaves(found), jax.tree.leaves(exact), strict=True):
        np.testing.assert_allclose(one, other, atol=ROUNDING * np.abs(other).max())
