"""CLIP's blocks one by one, as on a CPU, and in a loop, as on accelerators."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from qdgs_jax.models import clip
from qdgs_jax.models.clip import CLIPConfig, TowerConfig, VisionTower

TOWER = TowerConfig(width=8, layers=3, heads=2, mlp_width=16)
CONFIG = CLIPConfig(
    TOWER, TOWER, image_size=8, patch_size=4, vocab_size=9, context_length=5, embed_dim=6
)


@pytest.mark.parametrize("remat", [False, True])
def test_blocks_in_a_loop_give_the_same_embeddings_and_derivatives(monkeypatch, remat):
    tower = VisionTower(CONFIG, remat=remat, rngs=nnx.Rngs(0))
    images = jax.random.normal(jax.random.key(1), (2, 8, 8, 3))

    def found() -> tuple[str, tuple[jax.Array, jax.Array]]:
        def embed(images: jax.Array) -> tuple[jax.Array, jax.Array]:
            embeds, pull_back = jax.vjp(lambda images: tower(images), images)
            return embeds, pull_back(jnp.ones_like(embeds))[0]

        return str(jax.make_jaxpr(embed)(images)), embed(images)

    one_by_one, wanted = found()
    monkeypatch.setattr(clip, "target_backend", lambda: "tpu")
    in_a_loop, ours = found()
    assert ("scan[" in one_by_one, "scan[" in in_a_loop) == (False, True)
    for array, expected in zip(ours, wanted, strict=True):
        np.testing.assert_allclose(array, expected, atol=1e-5)
