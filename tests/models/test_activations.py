"""Pixels folded into channels, and what follows a convolution, beside their plain forms."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from derivatives import pulled_back

from qdgs_jax.models.backend import lowering_for
from qdgs_jax.models.stylegan2.activations import (
    Pixels,
    activate,
    activate_keeping_result,
    fold,
    leaky,
    planes,
)
from qdgs_jax.models.stylegan2.resample import convolve, convolve_folded, convolve_unfolded


def normal(number: int, *shape: int) -> jax.Array:
    return jax.random.normal(jax.random.key(number), shape)


def shifted(image: jax.Array) -> Pixels:
    """Folded, with squares that begin one pixel earlier and hold numbers outside the image."""
    around = jnp.pad(image, ((0, 0), (1, 1), (1, 1), (0, 0)), constant_values=7.0)
    return Pixels(fold(around), folded=True, shifted=True)


def folded(image: jax.Array) -> Pixels:
    return Pixels(fold(image), folded=True)


@pytest.mark.parametrize("form", [Pixels, folded, shifted])
def test_every_form_holds_the_same_pixels(form):
    image, style, noise = normal(0, 2, 4, 6, 3), normal(1, 2, 3), normal(2, 1, 4, 6, 1)
    pixels = form(image)
    assert pixels.channels == 3
    np.testing.assert_array_equal(pixels.unfold(), image)
    scaled = pixels.scaled(style).unfold()
    np.testing.assert_allclose(scaled, image * style[:, None, None], rtol=1e-6)
    added = pixels.replace(values=pixels.values + pixels.per_pixel(noise)).unfold()
    np.testing.assert_allclose(added, image + noise, rtol=1e-6)
    kernel = normal(3, 3, 2)
    wanted = jnp.moveaxis(image @ kernel, -1, 1)
    np.testing.assert_allclose(planes(pixels, kernel), wanted, atol=1e-5)


@pytest.mark.parametrize(
    "form",
    [
        lambda x, k: convolve_folded(folded(x), k).unfold(),
        lambda x, k: convolve_unfolded(fold(x), k),
    ],
)
def test_a_convolution_of_folded_pixels_is_the_plain_one_and_so_are_its_derivatives(form):
    image, kernel, cotangent = normal(0, 2, 4, 6, 3), normal(1, 3, 3, 3, 5), normal(2, 2, 4, 6, 5)
    plain, theirs = pulled_back(convolve, cotangent, image, kernel)
    found, ours = pulled_back(form, cotangent, image, kernel)
    np.testing.assert_allclose(found, plain, atol=1e-5)
    for one, other in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-4)


@pytest.mark.parametrize("clamp", [None, 0.7])
@pytest.mark.parametrize("noise", [(1, 1, 1, 1), (1, 4, 4, 1), (2, 4, 4, 3)])
def test_activations_are_pulled_back_as_jax_does(clamp, noise):
    def plain(x, scale, noise, bias):
        return leaky(x * scale[:, None, None] + noise + bias, 1.4, clamp)

    given = (
        normal(0, 2, 4, 4, 3),
        jnp.exp(normal(1, 2, 3)),
        normal(2, *noise),
        jnp.asarray([5.0, -0.3, 0.0]),
    )
    cotangent = normal(3, 2, 4, 4, 3)
    keeping = lambda *given: activate_keeping_result(*given, 1.4, clamp)  # noqa: E731
    found, ours = pulled_back(keeping, cotangent, *given)
    wanted, theirs = pulled_back(plain, cotangent, *given)
    np.testing.assert_allclose(found, wanted, rtol=1e-6)
    for one, other in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("kind", "alone"), [("cpu", False), ("gpu", True), ("tpu", True)])
def test_on_accelerators_a_layer_keeps_its_result_alone(kind, alone):
    x, scale, bias = normal(0, 2, 8, 8, 4), jnp.ones((2, 4)), jnp.zeros(4)
    none = jnp.zeros((1, 1, 1, 1))
    with lowering_for(kind):
        pull_back = jax.eval_shape(
            lambda *given: jax.vjp(lambda x, scale: activate(x, scale, none, bias), *given)[1],
            x,
            scale,
        )
    large = [leaf for leaf in jax.tree.leaves(pull_back) if leaf.size >= x.size]
    assert (len(large) == 1) == alone
