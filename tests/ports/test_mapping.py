"""Shapes of models are found, and models filled, without making weights."""

import time

import jax
import numpy as np
import pytest
from flax import nnx

from qdgs_jax.models.clip import CLIP, CLIPConfig, TowerConfig
from qdgs_jax.models.iresnet import IResNet, IResNetConfig
from qdgs_jax.models.stylegan2 import Generator, StyleGAN2Config
from qdgs_jax.models.vae import VAE, VAEConfig
from qdgs_jax.ports.mapping import SHAPES_ONLY, fill_model, parameter_shapes

TOWER = TowerConfig(8, 2, 2, 16)
MODELS = {
    "stylegan2": (Generator, StyleGAN2Config(8, (4, 3), z_dim=5, c_dim=2, architecture="resnet")),
    "clip": (CLIP, CLIPConfig(TOWER, TOWER, 8, 4, 9, 5, 6)),
    "adaface": (IResNet, IResNetConfig(18, se=True, input_size=16)),
    "vae": (VAE, VAEConfig(3, 16, (2, 3, 4))),
}


@pytest.mark.parametrize("kind", MODELS)
def test_shapes_need_no_random_numbers(kind):
    model, cfg = MODELS[kind]
    made = nnx.to_pure_dict(nnx.state(nnx.eval_shape(lambda: model(cfg, rngs=nnx.Rngs(0)))))
    wanted = [leaf.shape for leaf in jax.tree.leaves(made)]
    assert list(parameter_shapes(lambda: model(cfg, rngs=SHAPES_ONLY)).values()) == wanted


def test_shapes_of_deep_models_are_found_at_once():
    cfg = CLIPConfig(TowerConfig(8, 100, 2, 16), TOWER, 8, 4, 9, 5, 6)
    begin = time.process_time()
    assert len(parameter_shapes(lambda: CLIP(cfg, rngs=SHAPES_ONLY))) == 12 * 102 + 14
    assert time.process_time() - begin < 10  # half a minute with the keys of nnx.Rngs


def test_a_model_is_traced_once_to_be_filled():
    builds = []

    def build():
        builds.append(None)
        return VAE(MODELS["vae"][1], rngs=SHAPES_ONLY)

    drawn = nnx.jit(lambda: VAE(MODELS["vae"][1], rngs=nnx.Rngs(1)))()
    params = nnx.to_pure_dict(nnx.state(drawn))
    filled = fill_model(build, params)
    assert len(builds) == 1
    np.testing.assert_array_equal(
        filled.decoder.fc1.kernel[...], params["decoder"]["fc1"]["kernel"]
    )
