"""CLIP: the forms that TPUs run give what the plain ones give."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from derivatives import several_pulled_back
from flax import nnx

from qdgs_jax.models import attention, clip
from qdgs_jax.models.clip import CLIPConfig, TowerConfig, VisionTower
from qdgs_jax.models.variables import PreparedModel

HEADS, NARROW, LENGTH = 4, 64, 7


def _attention(parts: list[jax.Array], mask: jax.Array | None) -> jax.Array:
    """Attention by its definition, head by head."""
    heads = []
    for start in range(0, HEADS * NARROW, NARROW):
        query, key, value = (part[..., start : start + NARROW] for part in parts)
        scores = query @ key.swapaxes(1, 2) / np.sqrt(NARROW)
        if mask is not None:
            scores = jnp.where(mask[:, 0], scores, attention.UNSEEN)
        heads.append(jax.nn.softmax(scores) @ value)
    return jnp.concatenate(heads, axis=-1)


def _masks() -> dict[str, np.ndarray | None]:
    causal = np.tril(np.ones((LENGTH, LENGTH), bool))[None, None]
    padded = np.arange(LENGTH)[None, None, None] < np.asarray([3, 7])[:, None, None, None]
    blind = causal.copy()
    blind[..., 2, :] = False  # the third query sees nothing
    masks = {"none": None, "causal": causal, "causal and padded": causal & padded, "blind": blind}
    return {**masks, "padded": padded, "padded alike": padded[:1]}


MASKS = _masks()
PARTS = [
    np.random.default_rng(seed).standard_normal((2, LENGTH, HEADS * NARROW), np.float32)
    for seed in range(4)
]
COTANGENTS = np.stack([PARTS[3], -2 * PARTS[0], PARTS[1]])


@functools.cache
def _right(mask: str) -> tuple[Any, Any]:
    """Values and derivatives of the definition."""

    def right(*parts: jax.Array) -> jax.Array:
        return _attention(list(parts), MASKS[mask])

    expected, theirs, _ = several_pulled_back(right, COTANGENTS, *PARTS[:3])
    return expected, theirs


@pytest.mark.parametrize("mask", MASKS)
@pytest.mark.parametrize("kind", ["cpu", "gpu", "tpu"])
def test_attention_and_its_derivative_are_those_of_the_definition(kind, mask, monkeypatch):
    monkeypatch.setattr(attention, "target_backend", lambda: kind)
    expected, theirs = _right(mask)

    def found(*parts: jax.Array) -> jax.Array:
        return attention.attend(*parts, HEADS, MASKS[mask])

    values, mapped, one_by_one = several_pulled_back(found, COTANGENTS, *PARTS[:3])
    np.testing.assert_allclose(values, expected, atol=2e-6)
    for ours in (mapped, one_by_one):
        for one, other in zip(ours, theirs, strict=True):
            np.testing.assert_allclose(one, other, atol=3e-5)


def test_a_tpu_keeps_heads_side_by_side(monkeypatch):
    """No array of a program for TPUs has a head's few channels as its last axis."""
    part = jax.ShapeDtypeStruct((2, LENGTH, HEADS * NARROW), jnp.float32)
    last = {}
    for kind in ("cpu", "tpu"):
        monkeypatch.setattr(attention, "target_backend", lambda kind=kind: kind)
        program = str(
            jax.make_jaxpr(lambda *parts: attention.attend(*parts, HEADS, None))(*[part] * 3)
        )
        last[kind] = f",{NARROW}]" in program
    assert last == {"cpu": True, "tpu": False}


@pytest.fixture(scope="module")
def tower():
    """A tower of two blocks, and what it makes of images and of derivatives."""
    sizes = TowerConfig(width=128, layers=2, heads=2, mlp_width=64)
    cfg = CLIPConfig(sizes, sizes, 8, 4, 20, 10, 6)
    graph, state = nnx.split(nnx.eval_shape(lambda: VisionTower(cfg, rngs=nnx.Rngs(0))))
    rng = np.random.default_rng(0)

    def drawn(leaf: jax.ShapeDtypeStruct) -> np.ndarray:
        numbers = rng.standard_normal(leaf.shape, np.float32)
        return numbers / leaf.shape[0] ** 0.5 if leaf.ndim > 1 else 1 + 0.1 * numbers

    state = jax.tree.map(drawn, state)
    images, cotangents = (
        rng.standard_normal(shape, np.float32) for shape in ((2, 8, 8, 3), (3, 2, 6))
    )

    @jax.jit
    def pulled_back(state, images, cotangents):
        values, pull_back = jax.vjp(nnx.merge(graph, state), images)
        return values, jax.vmap(pull_back)(cotangents)[0]

    return graph, state, images, cotangents, pulled_back(state, images, cotangents)


@pytest.mark.parametrize("kind", ["cpu", "gpu", "tpu"])
def test_a_prepared_tower_embeds_and_is_pulled_back_alike(kind, tower, monkeypatch):
    graph, state, images, cotangents, (expected, theirs) = tower
    for module in (attention, clip):
        monkeypatch.setattr(module, "target_backend", lambda: kind)
    monkeypatch.setattr(clip, "MANY", 2)

    def embed(images):
        tower = nnx.merge(graph, state)
        tower.prepare()
        assert (tower.stacked is not None) == (kind == "tpu")
        return PreparedModel.of(tower).merge()(images)

    values, mapped, one_by_one = several_pulled_back(embed, cotangents, images)
    np.testing.assert_allclose(values, expected, atol=2e-6)
    for (ours,) in (mapped, one_by_one):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=2e-6)


def test_kernels_are_kept_in_the_type_that_they_are_multiplied_in():
    sizes = TowerConfig(width=8, layers=1, heads=2, mlp_width=8)
    cfg = CLIPConfig(sizes, sizes, 8, 4, 20, 10, 6)

    def prepared() -> VisionTower:
        tower = VisionTower(cfg, dtype=jnp.bfloat16, rngs=nnx.Rngs(0))
        tower.prepare()
        return tower

    tower = nnx.eval_shape(prepared)
    assert tower.blocks[0].fc1.kernel.dtype == tower.patch.kernel.dtype == jnp.bfloat16
    assert tower.projection.kernel.dtype == tower.blocks[0].ln_1.scale.dtype == jnp.float32
