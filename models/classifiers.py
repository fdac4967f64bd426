"""The shape classifier of QDGS (Chang et al. 2024, arXiv:2312.14369, section 5.1).

Three 3x3 convolutions, each followed by ReLU and 2x2 max pooling, then 128 hidden units and one
logit. Many of these small networks are trained side by side, so a convolution is written as one
matrix product over windows: under `vmap` it becomes a batched matrix product, where `lax.conv`
would become a grouped convolution, which is slow on every backend and slowest on XLA's for CPUs.
"""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
from flax import nnx


@dataclasses.dataclass(frozen=True)
class ShapeClassifierConfig:
    """Sizes of the classifier; the defaults but for `image_size` are the paper's.

    Attributes:
        image_size: height and width of the images, a multiple of 8.
        channels: widths of the three convolutions.
        hidden: width of the hidden layer.
    """

    image_size: int = 32
    channels: tuple[int, int, int] = (16, 32, 64)
    hidden: int = 128

    def __post_init__(self) -> None:
        if self.image_size % 8 or self.image_size < 8:
            raise ValueError(f"image_size is {self.image_size}: give a multiple of 8, e.g. 32.")
        if len(self.channels) != 3 or min(*self.channels, self.hidden) < 1:
            raise ValueError(
                f"channels {self.channels} and hidden {self.hidden}: give three widths and one, "
                "all positive, e.g. (16, 32, 64) and 128."
            )


class ConvPool(nnx.Module):
    """3x3 convolution, ReLU, 2x2 max pooling: Float[B, H, W, I] -> Float[B, H/2, W/2, O].

    `block` (p, q) is how the convolution is computed and changes nothing but speed: windows of
    (2 + p) x (2 + q) pixels hold the inputs of p x q neighbouring outputs, which come out of the
    matrix product as channels. Larger blocks copy fewer pixels and make a wider product, but
    multiply by more zeros; few channels want large blocks.
    """

    def __init__(self, c_in: int, c_out: int, block: tuple[int, int], *, rngs: nnx.Rngs):
        self.block = block
        self.kernel = nnx.Param(nnx.initializers.he_normal()(rngs.params(), (3, 3, c_in, c_out)))
        self.bias = nnx.Param(jnp.zeros(c_out))

    def __call__(self, x: jax.Array) -> jax.Array:
        """Apply the layer."""
        # ReLU and the bias commute with max: after pooling they cost a quarter.
        return nnx.relu(max_pool(conv3x3(x, self.kernel[...], self.block)) + self.bias[...])


class ShapeClassifier(nnx.Module):
    """Images Float[B, H, W, 3] in [0, 1] to logits Float[B]; a positive logit is class 1."""

    def __init__(self, cfg: ShapeClassifierConfig, *, rngs: nnx.Rngs):
        c1, c2, c3 = cfg.channels
        features = c3 * (cfg.image_size // 8) ** 2
        init = nnx.initializers.he_normal()
        self.cfg = cfg
        self.conv1 = ConvPool(3, c1, (2, 2), rngs=rngs)
        self.conv2 = ConvPool(c1, c2, (1, 2), rngs=rngs)
        self.conv3 = ConvPool(c2, c3, (1, 1), rngs=rngs)
        self.fc1 = nnx.Linear(features, cfg.hidden, kernel_init=init, rngs=rngs)
        self.fc2 = nnx.Linear(cfg.hidden, 1, rngs=rngs)

    def __call__(self, images: jax.Array) -> jax.Array:
        """Classify images."""
        x = self.conv3(self.conv2(self.conv1(images - 0.5)))
        x = nnx.relu(self.fc1(x.reshape(x.shape[0], -1)))
        return self.fc2(x)[:, 0]


def conv3x3(x: jax.Array, kernel: jax.Array, block: tuple[int, int] = (1, 1)) -> jax.Array:
    """3x3 convolution of stride 1 with zero padding, in blocks of p x q outputs.

    Args:
        x: Float[B, H, W, I], H a multiple of p and W of q.
        kernel: Float[3, 3, I, O].
        block: (p, q), each 1 or 2.

    Returns:
        Float[B, H/p, W/q, p, q, O]: output pixel (p i + a, q j + b) is at [:, i, j, a, b].
    """
    batch, height, width, _ = x.shape
    c_out = kernel.shape[-1]
    p, q = block
    shifted = [  # the kernel as each output of a block sees it in the block's window
        jnp.pad(kernel, ((a, p - 1 - a), (b, q - 1 - b), (0, 0), (0, 0)))
        for a in range(p)
        for b in range(q)
    ]
    matrix = jnp.stack(shifted, axis=3).reshape(-1, p * q * c_out)
    windows = _windows(x, block).reshape(-1, matrix.shape[0])
    return (windows @ matrix).reshape(batch, height // p, width // q, p, q, c_out)


def _windows(x: jax.Array, block: tuple[int, int]) -> jax.Array:
    """Windows of a block's inputs, Float[B, H/p, W/q, (2 + p) (2 + q) I]."""
    p, q = block
    _, height, width, _ = x.shape
    x = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    # Columns first, rows second: two copies of long runs instead of one of short ones.
    x = jnp.concatenate([x[:, :, j : j + width : q] for j in range(2 + q)], axis=-1)
    return jnp.concatenate([x[:, i : i + height : p] for i in range(2 + p)], axis=-1)


@jax.custom_vjp
def max_pool(y: jax.Array) -> jax.Array:
    """Maximum over 2x2 pixels of blocks Float[B, H/p, W/q, p, q, O], as Float[B, H/2, W/2, O].

    The gradient goes to the first of equal maxima (flat backgrounds are full of ties). Which of the
    four won is all that the backward pass keeps.
    """
    a, b, c, d = _quarters(y)
    return jnp.maximum(jnp.maximum(a, b), jnp.maximum(c, d))


def _quarters(y: jax.Array) -> list[jax.Array]:
    """The four pixels of each pool, row by row, Float[B, H/2, W/2, O] each."""
    batch, rows, columns, p, q, channels = y.shape
    y = y.reshape(batch, rows * p // 2, 2 // p, columns * q // 2, 2 // q, p, q, channels)
    return [y[:, :, a % (2 // p), :, b % (2 // q), a % p, b % q] for a in (0, 1) for b in (0, 1)]


def _from_quarters(quarters: list[jax.Array], block: tuple[int, int]) -> jax.Array:
    """Inverse of `_quarters`."""
    p, q = block
    a, b, c, d = quarters
    batch, rows, columns, channels = a.shape
    pairs = [jnp.stack(pair, axis=3) for pair in ((a, b), (c, d))]  # [B, H/2, W/2, 2, O]
    if p == 1:
        y = jnp.stack(pairs, axis=2)  # [B, H/2, 2, W/2, 2, O]
    else:
        y = jnp.stack(pairs, axis=3)  # [B, H/2, W/2, 2, 2, O]
        if q == 1:
            y = y.swapaxes(3, 4)
    return y.reshape(batch, rows * 2 // p, columns * 2 // q, p, q, channels)


def _max_pool_forward(y: jax.Array) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    a, b, c, d = _quarters(y)
    upper, lower = jnp.maximum(a, b), jnp.maximum(c, d)
    winner = jnp.where(lower > upper, jnp.where(d > c, 3, 2), jnp.where(b > a, 1, 0))
    block = jnp.empty((0, *y.shape[3:5]))  # carries the block's shape to the backward pass
    return jnp.maximum(upper, lower), (winner.astype(jnp.int8), block)


def _max_pool_backward(
    residuals: tuple[jax.Array, jax.Array], gradient: jax.Array
) -> tuple[jax.Array]:
    winner, block = residuals
    quarters = [jnp.where(winner == k, gradient, 0) for k in range(4)]
    return (_from_quarters(quarters, (block.shape[1], block.shape[2])),)


max_pool.defvjp(_max_pool_forward, _max_pool_backward)
