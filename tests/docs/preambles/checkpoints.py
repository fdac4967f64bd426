"""Small models of every kind, in the folders that the page names."""

import dataclasses
from pathlib import Path

import jax
import numpy as np
from flax import nnx

from qdgs_jax.models.clip import CLIP, CLIPConfig, TowerConfig
from qdgs_jax.models.iresnet import IResNet, IResNetConfig
from qdgs_jax.models.latents import Latents, LatentsConfig
from qdgs_jax.models.stylegan2 import Generator, StyleGAN2Config
from qdgs_jax.models.vae import VAE, VAEConfig
from qdgs_jax.ports import save_model

rng = np.random.default_rng(0)


def drawn(shape):
    """Weights of sums that stay about 1, without the programs that a network's own take."""
    return rng.random(shape) / np.prod(shape[:-1])


def write(kind, cfg, model):
    shapes = nnx.to_pure_dict(nnx.state(nnx.eval_shape(lambda: model(cfg, rngs=nnx.Rngs(0)))))
    params = jax.tree.map(lambda leaf: drawn(leaf.shape).astype(leaf.dtype), shapes)
    folders = {"stylegan2": "ffhq-256", "clip": "vit-b-32", "adaface": "ir50", "vae": "vae"}
    folder = folders.get(kind, "augmentations")
    save_model(Path("weights") / folder, {"kind": kind, **dataclasses.asdict(cfg)}, params)


tower = TowerConfig(width=16, layers=1, heads=2, mlp_width=32)
write("clip", CLIPConfig(tower, tower, 32, 16, 64, 8, 16), CLIP)
write("stylegan2", StyleGAN2Config(16, (8, 8, 8), z_dim=8, w_dim=8, mapping_layers=2), Generator)
write("adaface", IResNetConfig(18, input_size=16, embed_dim=8), IResNet)
write("vae", VAEConfig(image_size=16, channels=(4, 4, 4)), VAE)
write("latents", LatentsConfig(9, 16), Latents)
