"""The shape classifier of QDGS (Chang et al. 2024, arXiv:2312.14369, section 5.1).

Three 3x3 convolutions, each followed by ReLU and 2x2 max pooling, then 128 hidden units and one
logit, or one per class where there are more than two. Many of these small networks are trained side
by side, so a convolution is written as one matrix product over windows: under `vmap` it becomes a
batched matrix product, where `lax.conv` would become a grouped convolution, which is slow on every
backend and slowest on XLA's for CPUs.
"""

from __future__ import annotations

import dataclasses
import functools

import jax
import jax.numpy as jnp
from flax import nnx

POOLED = {1: (2, 4), 2: (3, 4)}  # block -> axes of `conv3x3`'s output that a pooling joins


@dataclasses.dataclass(frozen=True)
class ShapeClassifierConfig:
    """Sizes of the classifier; the defaults but for `image_size` are the paper's.

    Attributes:
        image_size: height and width of the images, a multiple of 8.
        channels: widths of the three convolutions.
        hidden: width of the hidden layer.
        num_classes: classes that are told apart, at least 2.
    """

    image_size: int = 32
    channels: tuple[int, int, int] = (16, 32, 64)
    hidden: int = 128
    num_classes: int = 2

    def __post_init__(self) -> None:
        if self.num_classes < 2:
            raise ValueError(f"num_classes is {self.num_classes}: give at least 2.")
        if self.image_size % 8 or self.image_size < 8:
            raise ValueError(f"image_size is {self.image_size}: give a multiple of 8, e.g. 32.")
        if len(self.channels) != 3 or min(*self.channels, self.hidden) < 1:
            raise ValueError(
                f"channels {self.channels} and hidden {self.hidden}: give three widths and one, "
                "all positive, e.g. (16, 32, 64) and 128."
            )


class ConvPool(nnx.Module):
    """3x3 convolution, ReLU, 2x2 max pooling: Float[B, H, W, I] -> Float[B, H/2, W/2, O].

    `block` is how the convolution is computed and changes nothing but speed, see `conv3x3`.
    """

    def __init__(self, c_in: int, c_out: int, block: int, *, rngs: nnx.Rngs):
        self.block = block
        self.kernel = nnx.Param(nnx.initializers.he_normal()(rngs.params(), (3, 3, c_in, c_out)))
        self.bias = nnx.Param(jnp.zeros(c_out))

    def __call__(self, x: jax.Array) -> jax.Array:
        """Apply the layer."""
        # ReLU and the bias commute with max: after pooling they cost a quarter.
        y = max_pool(conv3x3(x, self.kernel[...], self.block), POOLED[self.block])
        return nnx.relu(y + self.bias[...])


class ShapeClassifier(nnx.Module):
    """Images Float[B, H, W, 3] in [0, 1] to logits.

    Of two classes Float[B], a positive logit is class 1; of K > 2 classes Float[B, K].
    """

    def __init__(self, cfg: ShapeClassifierConfig, *, rngs: nnx.Rngs):
        c1, c2, c3 = cfg.channels
        features = c3 * (cfg.image_size // 8) ** 2
        init = nnx.initializers.he_normal()
        self.cfg = cfg
        self.conv1 = ConvPool(3, c1, 2, rngs=rngs)
        self.conv2 = ConvPool(c1, c2, 1, rngs=rngs)
        self.conv3 = ConvPool(c2, c3, 1, rngs=rngs)
        self.fc1 = nnx.Linear(features, cfg.hidden, kernel_init=init, rngs=rngs)
        self.fc2 = nnx.Linear(cfg.hidden, 1 if cfg.num_classes == 2 else cfg.num_classes, rngs=rngs)

    def __call__(self, images: jax.Array) -> jax.Array:
        """Classify images."""
        x = self.conv3(self.conv2(self.conv1(images - 0.5)))
        x = nnx.relu(self.fc1(x.reshape(x.shape[0], -1)))
        logits = self.fc2(x)
        return logits[:, 0] if self.cfg.num_classes == 2 else logits


def conv3x3(x: jax.Array, kernel: jax.Array, block: int = 1) -> jax.Array:
    """3x3 convolution of stride 1 with zero padding.

    A window of (2 + p) x (2 + p) pixels holds the inputs of a block of p x p outputs, which come
    out of one matrix product as channels. Blocks of 2 copy fewer pixels than blocks of 1 and make a
    wider product, but multiply by more zeros: they pay where there are few channels.

    Args:
        x: Float[B, H, W, I], H and W even.
        kernel: Float[3, 3, I, O].
        block: p, 1 or 2.

    Returns:
        Output pixel (2 i + a, 2 j + b) at [:, i, a, j, b] of Float[B, H/2, 2, W/2, 2, O] for blocks
        of 1, and at [:, i, j, a, b] of Float[B, H/2, W/2, 2, 2, O] for blocks of 2: see `POOLED`.
    """
    batch, height, width, _ = x.shape
    c_out = kernel.shape[-1]
    x = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    # Columns first, rows second: two copies of long runs instead of one of short ones.
    x = jnp.concatenate([x[:, :, j : j + width : block] for j in range(2 + block)], axis=-1)
    windows = jnp.concatenate([x[:, i : i + height : block] for i in range(2 + block)], axis=-1)
    seen = [  # the kernel as each output of a block sees it in the window
        jnp.pad(kernel, ((a, block - 1 - a), (b, block - 1 - b), (0, 0), (0, 0)))
        for a in range(block)
        for b in range(block)
    ]
    matrix = jnp.stack(seen, axis=3).reshape(windows.shape[-1], -1)
    y = windows.reshape(-1, windows.shape[-1]) @ matrix
    half = (height // 2, width // 2)
    pixels = (half[0], 2, half[1], 2) if block == 1 else (*half, 2, 2)
    return y.reshape(batch, *pixels, c_out)


@functools.partial(jax.custom_vjp, nondiff_argnums=(1,))
def max_pool(y: jax.Array, axes: tuple[int, int]) -> jax.Array:
    """Maximum over two axes of size 2 of Float[..., O].

    The gradient goes to the first of equal maxima (flat backgrounds are full of ties). Which of the
    four won is all that the backward pass keeps.
    """
    return _max_pool_forward(y, axes)[0]


def _max_pool_forward(y: jax.Array, axes: tuple[int, int]) -> tuple[jax.Array, jax.Array]:
    rows = [jax.lax.index_in_dim(y, i, axes[0], keepdims=False) for i in (0, 1)]
    (a, b), (c, d) = (
        [jax.lax.index_in_dim(row, j, axes[1] - 1, keepdims=False) for j in (0, 1)] for row in rows
    )
    upper, lower = jnp.maximum(a, b), jnp.maximum(c, d)
    winner = jnp.where(lower > upper, jnp.where(d > c, 3, 2), jnp.where(b > a, 1, 0))
    return jnp.maximum(upper, lower), winner.astype(jnp.int8)


def _max_pool_backward(
    axes: tuple[int, int], winner: jax.Array, gradient: jax.Array
) -> tuple[jax.Array]:
    a, b, c, d = (jnp.where(winner == k, gradient, 0) for k in range(4))
    rows = [jnp.stack(row, axis=axes[1] - 1) for row in ((a, b), (c, d))]
    return (jnp.stack(rows, axis=axes[0]),)


max_pool.defvjp(_max_pool_forward, _max_pool_backward)
