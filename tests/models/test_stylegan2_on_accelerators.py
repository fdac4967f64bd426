"""StyleGAN2 as accelerators draw it, whole: `test_activations` has its parts."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from qdgs_jax.models import side_by_side
from qdgs_jax.models.stylegan2 import Generator, StyleGAN2Config, activations, layers, resample

ARCHITECTURES = ("skip", "resnet", "orig")
CASES = [
    *itertools.product(["tpu"], ARCHITECTURES, [None, 1.5]),
    *zip(["gpu"] * 3, ARCHITECTURES, [1.5, None, 1.5], strict=True),
]


@pytest.mark.parametrize(("kind", "architecture", "clamp"), CASES)
def test_a_generator_draws_and_is_pulled_back_as_one_for_processors(
    kind, architecture, clamp, monkeypatch
):
    """Of its levels one has as many channels as fill a register, and the last one fewer."""
    cfg = StyleGAN2Config(
        16, (5, 8, 3), w_dim=6, mapping_layers=1, architecture=architecture, conv_clamp=clamp
    )
    generator = nnx.jit(lambda: Generator(cfg, rngs=nnx.Rngs(3)))()
    for each in (generator.synthesis.b8.conv0, generator.synthesis.b16.conv1):
        each.noise_strength[...] = jnp.asarray(0.3)
    graph, params = nnx.split(generator)
    ws = jax.random.normal(jax.random.key(0), (2, cfg.num_ws, 6))
    cotangents = jax.random.normal(jax.random.key(1), (3, 2, 16, 16, 3))

    def draw(params, ws):
        image, pull = jax.vjp(lambda p, w: nnx.merge(graph, p).synthesis(w), params, ws)
        (to_params, to_ws), several = pull(cotangents[0]), jax.vmap(pull)(cotangents)[1]
        return image, to_ws, several, to_params

    def draw_prepared(params, ws):
        synthesis = nnx.merge(graph, params).synthesis
        synthesis.prepare()
        image, pull = jax.vjp(synthesis, ws)
        return image, *pull(cotangents[0]), *jax.vmap(pull)(cotangents)

    wanted = jax.jit(draw)(params, ws)
    for module in (activations, layers, resample, side_by_side):
        monkeypatch.setattr(module, "target_backend", lambda: kind)
    monkeypatch.setattr(layers, "LANES", 8)
    found, prepared = jax.jit(lambda *given: (draw(*given), draw_prepared(*given)))(params, ws)
    for ours, theirs in zip(
        jax.tree.leaves((found, prepared)), jax.tree.leaves((wanted, wanted[:3])), strict=True
    ):
        scale = float(jnp.abs(theirs).max()) + 1e-3
        np.testing.assert_allclose(ours, theirs, atol=2e-5 * scale, rtol=1e-4)
