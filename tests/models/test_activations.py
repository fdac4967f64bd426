"""Pixels folded into channels, and what follows a convolution, beside their plain forms."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from derivatives import pulled_back, several_pulled_back

from qdgs_jax.models.backend import lowering_for
from qdgs_jax.models.side_by_side import placed_after_batch
from qdgs_jax.models.stylegan2 import activations, colours, resample
from qdgs_jax.models.stylegan2.activations import (
    Layer,
    Pixels,
    activate,
    activate_keeping_input,
    fold,
    leaky,
)
from qdgs_jax.models.stylegan2.colours import planes
from qdgs_jax.models.stylegan2.kernels import Kernel
from qdgs_jax.models.stylegan2.resample import convolve, convolve_folded, convolve_up
from qdgs_jax.models.stylegan2.up_layer import convolve_up_and_activate, up_layer_kernel


def normal(number: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(number).standard_normal(shape, np.float32)


def shifted(image: jax.Array) -> Pixels:
    """Folded, with squares that begin one pixel earlier and hold numbers outside the image."""
    around = jnp.pad(image, ((0, 0), (1, 1), (1, 1), (0, 0)), constant_values=7.0)
    return Pixels(fold(around), folded=True, shifted=True)


def folded(image: jax.Array) -> Pixels:
    return Pixels(fold(image), folded=True)


@pytest.mark.parametrize("form", [Pixels, folded, shifted])
def test_every_form_holds_the_same_pixels(form):
    given = normal(0, 2, 4, 6, 3), normal(1, 2, 3), normal(2, 1, 4, 6, 1), normal(3, 3, 2)

    @jax.jit
    def used(image, style, noise, kernel):
        pixels = form(image)
        assert pixels.channels == 3
        added = pixels.replace(values=pixels.values + pixels.per_pixel(noise))
        return (
            pixels.unfold(),
            pixels.scaled(style).unfold(),
            added.unfold(),
            planes(pixels, kernel),
        )

    (image, style, noise, kernel), (same, scaled, added, projected) = given, used(*given)
    np.testing.assert_array_equal(same, image)
    np.testing.assert_allclose(scaled, image * style[:, None, None], rtol=1e-6)
    np.testing.assert_allclose(added, image + noise, rtol=1e-6)
    np.testing.assert_allclose(projected, np.moveaxis(image @ kernel, -1, 1), atol=1e-5)


@pytest.mark.parametrize("form", [folded, shifted])
def test_colours_are_put_in_their_places_exactly_in_bfloat16(form):
    """In one pass of a matrix unit: every number is multiplied with one and with zeros."""
    image, kernel = normal(0, 2, 4, 6, 3).astype(jnp.bfloat16), normal(1, 3, 2)
    given = image, kernel, normal(2, 2, 2, 4, 6).astype(jnp.bfloat16).astype(np.float32)

    def pulled(form):
        def used(image, kernel, cotangent):
            found, pull = jax.vjp(lambda image: planes(form(image), kernel), image)
            return found, *pull(cotangent)

        return jax.jit(used)

    def exact(image):  # which a CPU is in any case
        return "HIGHEST" in str(jax.make_jaxpr(pulled(form))(image, *given[1:]))

    assert exact(image.astype(np.float32)) and not exact(image)
    for found, plain in zip(pulled(form)(*given), pulled(Pixels)(*given), strict=True):
        np.testing.assert_array_equal(found, plain)


def test_a_convolution_of_folded_pixels_is_the_plain_one_and_so_are_its_derivatives():
    image, kernel, cotangent = normal(0, 2, 4, 6, 3), normal(1, 3, 3, 3, 5), normal(2, 2, 4, 6, 5)
    plain, theirs = pulled_back(convolve, cotangent, image, kernel)
    found, ours = pulled_back(
        lambda x, k: convolve_folded(folded(x), k).unfold(), cotangent, image, kernel
    )
    np.testing.assert_allclose(found, plain, atol=1e-5)
    for one, other in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-4)


STYLES = {
    "one": (normal(4, 2, 3),),
    "two": (normal(4, 2, 3), normal(5, 2, 3)),
    "none": (None,),
}
NOISES = [(1, 1, 1, 1), (1, 4, 4, 1), (2, 4, 4, 3)]
# Each way to come of two of the three, which have nothing to do with each other.
LAYERS = [
    (None if (at + place) % 2 else 0.7, noise, styles)
    for at, noise in enumerate(NOISES)
    for place, styles in enumerate(STYLES)
]


@pytest.mark.parametrize(("clamp", "noise", "styles"), LAYERS)
def test_activations_are_pulled_back_as_jax_does(clamp, noise, styles):
    given = (
        normal(0, 2, 4, 4, 3),
        np.exp(normal(1, 2, 3)),
        normal(2, *noise),
        np.asarray([5.0, -0.3, 0.0], np.float32),
        STYLES[styles],
    )

    def plain(x, scale, noise, bias, styles):
        y = leaky(x * scale[:, None, None] + noise + bias, 1.4, clamp)
        return tuple(y if style is None else y * style[:, None, None] for style in styles)

    @jax.jit
    def both(cotangents, *given):
        _, pull_back = jax.vjp(plain, *given)
        return (
            several_pulled_back(
                lambda x, *rest: activate_keeping_input(Layer(*rest), x, 1.4, clamp),
                cotangents,
                *given,
            ),
            (plain(*given), jax.vmap(pull_back)(cotangents)),
        )

    cotangents = tuple(normal(6 + at, 3, 2, 4, 4, 3) for at in range(len(given[-1])))
    (found, mapped, one_by_one), (wanted, right) = both(cotangents, *given)
    for ours, theirs in zip(found, wanted, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-6, atol=1e-6)
    assert_close(mapped, right)
    assert_close(one_by_one, right)


@pytest.mark.parametrize("doubled", range(5))
def test_derivatives_have_the_types_of_what_they_are_by(doubled):
    shapes = (2, 4, 4, 3), (2, 3), (1, 4, 4, 1), (3,), (2, 3)

    def layer(x, *rest):
        y = convolve(x, jnp.ones((3, 3, 3, 3), x.dtype))
        return activate_keeping_input(Layer(*rest[:3], (rest[3], None)), y, 1.4, None)

    def pulled(*given):
        y, pull_back = jax.vjp(layer, *given)
        return pull_back(y)

    with jax.enable_x64(True):
        given = [
            jax.ShapeDtypeStruct(shape, jnp.float64 if at == doubled else jnp.float32)
            for at, shape in enumerate(shapes)
        ]
        found = jax.eval_shape(pulled, *given)
    assert [each.dtype for each in found] == [each.dtype for each in given]


def test_an_upsampling_layer_is_its_parts_and_so_are_its_derivatives():
    """With a noise for all images and with one for each."""
    noises = normal(2, 1, 8, 12, 1), normal(3, 2, 8, 12, 1)
    given = normal(0, 2, 4, 6, 3), normal(1, 3, 3, 3, 5), noises, normal(4, 5)
    scale, style = np.exp(normal(5, 2, 5)), normal(6, 2, 5)

    def plain(x, kernel, noises, bias, scale, style):
        y = convolve_up(Pixels(x), kernel, "transposed").values * scale[:, None, None]
        found = [leaky(y + noise + bias, 1.4, 0.7) for noise in noises]
        return [(y, y * style[:, None, None]) for y in found]

    def layer(x, kernel, noises, bias, scale, style):
        kernels = kernel, up_layer_kernel(kernel, x.dtype)  # made of it inside, and before
        return [
            convolve_up_and_activate(x, kernel, Layer(scale, noise, bias, (None, style)), 1.4, 0.7)
            for kernel, noise in zip(kernels, noises, strict=True)
        ]

    cotangents = [tuple(normal(7 + at + 2 * of, 2, 8, 12, 5) for at in range(2)) for of in range(2)]
    ours, pulled = pulled_back(layer, cotangents, *given, scale, style)
    theirs, right = pulled_back(plain, cotangents, *given, scale, style)
    assert_close(ours, theirs)
    for one, other in zip(jax.tree.leaves(pulled), jax.tree.leaves(right), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-3)


def assert_close(found, wanted):
    """Equal up to rounding, in sums of numbers as large as the largest."""
    for ours, theirs in zip(jax.tree.leaves(found), jax.tree.leaves(wanted), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-6 * np.abs(theirs).max())


@pytest.fixture
def beside(monkeypatch):
    """Derivatives of several outputs are pulled back as they are on a TPU."""
    for module in (activations, colours, resample):
        monkeypatch.setattr(module, "side_by_side", placed_after_batch)


def spread(kernel: jax.Array) -> Kernel:
    """Of the shapes of `up_layer_kernel`, whose sums take long to compile."""
    return Kernel(jnp.tile(kernel, 4), jnp.tile(kernel.swapaxes(2, 3), (2, 2, 1, 1)))


CHAINS = {
    "activation": lambda x, k, w: activate_keeping_input(
        Layer(w, normal(8, 1, 4, 6, 1), w[0], (w, -w)), convolve(x, k), 1.4, 0.7
    ),
    "without a style": lambda x, k, w: activate_keeping_input(
        Layer(w, normal(8, 2, 4, 6, 5), w[1], (None,)), convolve(x, k), 1.4, None
    ),
    "folded": lambda x, k, w: convolve_folded(folded(x), k).values,
    "upsampling": lambda x, k, w: convolve_up_and_activate(
        x, spread(k), Layer(w, normal(8, 1, 8, 12, 1), w[0], (w, -w)), 1.4, 0.7
    ),
    "planes": lambda x, k, w: planes(Pixels(convolve(x, k)), w.T),
    "planes of folded pixels": lambda x, k, w: planes(convolve_folded(folded(x), k), w.T),
}


CHAIN = normal(0, 2, 4, 6, 3), normal(1, 3, 3, 3, 5), np.exp(normal(2, 2, 5))


@pytest.mark.parametrize("chain", CHAINS)
def test_several_outputs_are_pulled_back_beside_each_other_as_one_by_one(chain, beside):
    def alone(*given):
        y, pull_back = jax.vjp(CHAINS[chain], *given)
        return pull_back(y)

    @jax.jit
    def both_ways(given, pairs):
        y, pull_back = jax.vjp(CHAINS[chain], *given)
        cotangents = jax.tree.map(lambda y: jnp.asarray(normal(3, 4, *y.shape)), y)
        one_by_one = jax.lax.map(pull_back, cotangents), jax.lax.map(lambda p: alone(*p), pairs)
        return (jax.vmap(pull_back)(cotangents), jax.vmap(alone)(*pairs)), one_by_one

    # ... where what they share is not shared, too
    pairs = jax.tree.map(lambda a: np.stack([a, -a]), CHAIN)
    assert_close(*both_ways(CHAIN, pairs))


@pytest.mark.parametrize("chain", ["activation", "planes"])
def test_derivatives_of_one_output_and_of_several_can_be_differentiated(chain, beside, monkeypatch):
    def of_derivatives(*given):
        y, pull = jax.vjp(CHAINS[chain], *given)
        several = jax.vmap(pull)(jax.tree.map(lambda y: jnp.stack([y, jnp.ones_like(y)]), y))
        return sum(jnp.sum(jnp.sin(each)) for each in jax.tree.leaves((pull(y), several)))

    found = jax.jit(jax.grad(of_derivatives, argnums=(0, 1, 2)))(*CHAIN)
    for module in (activations, colours, resample):
        monkeypatch.setattr(module, "side_by_side", lambda one, several: one)
    wanted = jax.jit(jax.grad(lambda *given: of_derivatives(*given), argnums=(0, 1, 2)))(*CHAIN)
    for ours, theirs in zip(found, jax.device_get(wanted), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-4 * np.abs(theirs).max())


@pytest.mark.parametrize(("kind", "alone"), [("cpu", False), ("gpu", True), ("tpu", True)])
def test_on_accelerators_a_layer_keeps_its_argument_alone(kind, alone):
    x, scale, bias = normal(0, 2, 8, 8, 4), jnp.ones((2, 4)), jnp.zeros(4)
    none = jnp.zeros((1, 1, 1, 1))
    with lowering_for(kind):
        pull_back = jax.eval_shape(
            lambda *given: jax.vjp(
                lambda x, scale: activate(x, Layer(scale, none, bias, (scale, scale))), *given
            )[1],
            x,
            scale,
        )
    large = [leaf for leaf in jax.tree.leaves(pull_back) if leaf.size >= x.size]
    assert (len(large) == 1) == alone
