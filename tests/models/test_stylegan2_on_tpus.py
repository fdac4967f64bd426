"""StyleGAN2 as TPUs draw it, whole: `test_activations` has its parts."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from qdgs_jax.models import side_by_side
from qdgs_jax.models.stylegan2 import Generator, StyleGAN2Config, activations, layers, resample


@pytest.mark.parametrize("architecture", ["skip", "resnet", "orig"])
@pytest.mark.parametrize("clamp", [None, 1.5])
def test_a_generator_for_tpus_draws_and_is_pulled_back_as_one_for_processors(
    architecture, clamp, monkeypatch
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
        return image, to_params, to_ws, several

    wanted = jax.jit(draw)(params, ws)
    for module in (activations, resample, side_by_side):
        monkeypatch.setattr(module, "target_backend", lambda: "tpu")
    monkeypatch.setattr(layers, "LANES", 8)
    for ours, theirs in zip(
        *map(jax.tree.leaves, (jax.jit(lambda *given: draw(*given))(params, ws), wanted)),
        strict=True,
    ):
        scale = float(jnp.abs(theirs).max()) + 1e-3
        np.testing.assert_allclose(ours, theirs, atol=2e-5 * scale, rtol=1e-4)
