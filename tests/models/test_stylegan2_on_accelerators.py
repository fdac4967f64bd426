"""StyleGAN2 as accelerators draw it, whole: `test_activations` has its parts."""

import functools

import jax
import numpy as np
import pytest
from flax import nnx

from qdgs_jax.models import side_by_side
from qdgs_jax.models.stylegan2 import (
    Generator,
    StyleGAN2Config,
    activations,
    colours,
    layers,
    resample,
    up_layer,
)
from qdgs_jax.models.stylegan2.generator import NOISES

REGISTER = 8  # channels that fill one, here
# On a TPU levels of so many channels and of fewer differ, on a GPU all are alike, and `orig` is
# `skip` without some of its images. The clamp of `resnet` is another one in each layer.
CASES = [
    ("tpu", "skip", 1.5, (5, REGISTER, 3)),
    ("tpu", "resnet", 1.5, (5, REGISTER, 3)),
    ("tpu", "orig", None, (5, 3)),
    ("gpu", "skip", None, (5, 3)),
    ("gpu", "resnet", 1.5, (5, 3)),
]


def drawn(architecture, clamp, channels):
    """A synthesis network, its weights, codes and derivatives by its images."""
    cfg = StyleGAN2Config(
        2 * 2 ** len(channels),
        channels,
        w_dim=6,
        mapping_layers=1,
        architecture=architecture,
        conv_clamp=clamp,
    )
    graph, state = nnx.split(nnx.eval_shape(lambda: Generator(cfg, rngs=nnx.Rngs(0)).synthesis))
    rng = np.random.default_rng(3)

    def normal(*shape):
        return rng.standard_normal(shape, np.float32)

    params = jax.tree.map(lambda leaf: normal(*leaf.shape), state)
    ws = normal(2, cfg.num_ws, cfg.w_dim)
    return graph, params, ws, normal(3, 2, cfg.resolution, cfg.resolution, 3)


@functools.cache
def on_processors(*case):
    """Images, and derivatives by the weights and by the codes for each of several by the images."""
    graph, params, ws, cotangents = drawn(*case)

    @jax.jit
    def draw(params, ws, cotangents):
        image, pull = jax.vjp(lambda p, w: nnx.merge(graph, p)(w), params, ws)
        return image, *jax.vmap(pull)(cotangents)

    return jax.device_get(draw(params, ws, cotangents))


@pytest.mark.parametrize(("kind", "architecture", "clamp", "channels"), CASES)
def test_a_generator_draws_and_is_pulled_back_as_one_for_processors(
    kind, architecture, clamp, channels, monkeypatch
):
    image, to_params, to_ws = on_processors(architecture, clamp, channels)
    graph, params, ws, cotangents = drawn(architecture, clamp, channels)
    for module in (activations, colours, layers, resample, up_layer, side_by_side):
        monkeypatch.setattr(module, "target_backend", lambda: kind)
    monkeypatch.setattr(layers, "LANES", REGISTER)

    def draw(params, ws, cotangents):
        image, pull = jax.vjp(lambda p, w: nnx.merge(graph, p)(w), params, ws)
        return image, *pull(cotangents[0]), jax.vmap(pull)(cotangents)[1]

    def draw_prepared(params, ws, cotangents):
        synthesis = nnx.merge(graph, params)
        synthesis.prepare()
        image, pull = jax.vjp(synthesis, ws)
        return image, *pull(cotangents[0]), *jax.vmap(pull)(cotangents)

    both = jax.jit(lambda *given: (draw(*given), draw_prepared(*given)))
    found, prepared = jax.device_get(both(params, ws, cotangents))
    first = jax.tree.map(lambda leaf: leaf[0], to_params)
    assert_close(found, (image, first, to_ws[0], to_ws))
    assert_close(prepared, (image, to_ws[0], to_ws))


def assert_close(found, wanted):
    for ours, theirs in zip(jax.tree.leaves(found), jax.tree.leaves(wanted), strict=True):
        scale = np.abs(theirs).max() + 1e-3
        np.testing.assert_allclose(ours, theirs, atol=2e-5 * scale, rtol=1e-4)


@pytest.mark.parametrize("noise", NOISES)
@pytest.mark.parametrize(("up", "channels"), [(True, 5), (True, REGISTER), (False, 5)])
def test_a_prepared_layer_takes_the_noise_that_it_is_asked_for(up, channels, noise, monkeypatch):
    """Of a TPU's, which has its stored noise laid out; one that does not upsample comes folded."""
    for module in (activations, colours, layers, resample, side_by_side, up_layer):
        monkeypatch.setattr(module, "target_backend", lambda: "tpu")
    monkeypatch.setattr(layers, "LANES", REGISTER)
    options = {"use_noise": True, "conv_clamp": None, "upsampling": "auto", "dtype": np.float32}
    graph, state = nnx.split(
        nnx.eval_shape(
            lambda: layers.StyledConv(3, channels, 6, 8, up=up, rngs=nnx.Rngs(0), **options)
        )
    )
    rng = np.random.default_rng(0)
    state = jax.tree.map(lambda leaf: rng.standard_normal(leaf.shape, np.float32), state)
    x = rng.standard_normal((2, *((4, 4, 3) if up else (4, 4, 12))), np.float32)
    style = rng.standard_normal((2, 3), np.float32)

    @jax.jit
    def both(state, x, style):
        layer = nnx.merge(graph, state)
        pixels = activations.Pixels(x, folded=not up)
        given = pixels, style, noise, jax.random.key(1), (None,)
        (plain,) = layer(*given)
        layer.prepare(pixels.folded)
        assert layer.prepared.get_value().noise is not None
        (prepared,) = layer(*given)
        return plain.unfold(), prepared.unfold()

    plain, prepared = both(state, x, style)
    np.testing.assert_allclose(prepared, plain, atol=1e-5)
