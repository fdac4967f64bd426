"""The shape classifier against XLA's own convolutions and pooling."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from qdgs_jax.models.shape_classifier import (
    POOLED,
    ShapeClassifier,
    ShapeClassifierConfig,
    conv3x3,
    max_pool,
)

BLOCKS = [1, 2]


def reference_conv(x: jax.Array, kernel: jax.Array) -> jax.Array:
    return jax.lax.conv_general_dilated(
        x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"), precision="highest"
    )


def reference_pool(x: jax.Array) -> jax.Array:
    window = (1, 2, 2, 1)
    return jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, window, window, "VALID")


def draw(seed: int, *shape: int) -> jax.Array:
    return jax.random.normal(jax.random.key(seed), shape)


@pytest.mark.parametrize("block", BLOCKS)
def test_convolution_and_pooling_and_their_gradients(block: int) -> None:
    x, kernel, weights = draw(0, 2, 8, 12, 3), draw(1, 3, 3, 3, 5), draw(2, 2, 4, 6, 5)

    def ours(x: jax.Array, kernel: jax.Array) -> jax.Array:
        return (weights * max_pool(conv3x3(x, kernel, block), POOLED[block])).sum()

    def theirs(x: jax.Array, kernel: jax.Array) -> jax.Array:
        return (weights * reference_pool(reference_conv(x, kernel))).sum()

    for one, other in zip(
        jax.tree.leaves(jax.jit(jax.value_and_grad(ours, (0, 1)))(x, kernel)),
        jax.tree.leaves(jax.jit(jax.value_and_grad(theirs, (0, 1)))(x, kernel)),
        strict=True,
    ):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("block", BLOCKS)
def test_of_equal_maxima_one_gets_the_gradient(block: int) -> None:
    shape = (1, 3, 2, 3, 2, 5) if block == 1 else (1, 3, 3, 2, 2, 5)
    slope = jax.jit(jax.grad(lambda y: max_pool(y, POOLED[block]).sum()))
    flat = slope(jnp.zeros(shape))
    assert flat.sum() == 3 * 3 * 5
    assert set(np.unique(flat)) == {0.0, 1.0}


@pytest.fixture(scope="module")
def model() -> ShapeClassifier:
    cfg = ShapeClassifierConfig(image_size=16)
    return nnx.jit(lambda: ShapeClassifier(cfg, rngs=nnx.Rngs(0)))()


def test_the_network_is_the_papers(model: ShapeClassifier) -> None:
    shapes = jax.tree.map(jnp.shape, nnx.to_pure_dict(nnx.state(model)))
    assert shapes == {
        "conv1": {"kernel": (3, 3, 3, 16), "bias": (16,)},
        "conv2": {"kernel": (3, 3, 16, 32), "bias": (32,)},
        "conv3": {"kernel": (3, 3, 32, 64), "bias": (64,)},
        "fc1": {"kernel": (2 * 2 * 64, 128), "bias": (128,)},
        "fc2": {"kernel": (128, 1), "bias": (1,)},
    }


def test_the_network_computes_what_its_layers_say(model: ShapeClassifier) -> None:
    images = jax.random.uniform(jax.random.key(3), (3, 16, 16, 3))
    x = images - 0.5
    for layer in (model.conv1, model.conv2, model.conv3):
        layer.bias[...] = 0.1 * draw(4, *layer.bias.shape)
        x = reference_pool(nnx.relu(reference_conv(x, layer.kernel[...]) + layer.bias[...]))
    x = nnx.relu(x.reshape(3, -1) @ model.fc1.kernel[...] + model.fc1.bias[...])
    expected = (x @ model.fc2.kernel[...] + model.fc2.bias[...])[:, 0]
    np.testing.assert_allclose(jax.jit(model)(images), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"image_size": 20}, "image_size is 20"),
        ({"image_size": 0}, "image_size is 0"),
        ({"channels": (16, 32)}, r"channels \(16, 32\)"),
        ({"hidden": 0}, "hidden 0"),
    ],
)
def test_impossible_sizes_are_refused(settings: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ShapeClassifierConfig(**settings)  # type: ignore[arg-type]
