"""The residual discriminator of StyleGAN2 (Karras et al. 2020, arXiv:1912.04958), small."""

from __future__ import annotations

import itertools

import jax
import jax.numpy as jnp
from flax import nnx

from qdgs_jax.models.stylegan2.layers import Dense, leaky
from qdgs_jax.models.stylegan2.resample import convolve


class Conv(nnx.Module):
    """Equalised convolution: Float[B, H, W, I] to Float[B, H, W, O]."""

    def __init__(self, side: int, c_in: int, c_out: int, *, rngs: nnx.Rngs) -> None:
        self.kernel = nnx.Param(jax.random.normal(rngs.params(), (side, side, c_in, c_out)))
        self.bias = nnx.Param(jnp.zeros((c_out,)))
        self.gain = (side * side * c_in) ** -0.5

    def __call__(self, x: jax.Array) -> jax.Array:
        """Convolve and add the bias."""
        return convolve(x, self.kernel[...] * self.gain) + self.bias[...]


def halve(x: jax.Array) -> jax.Array:
    """Means of squares of 2 x 2 pixels."""
    batch, height, width, channels = x.shape
    return x.reshape(batch, height // 2, 2, width // 2, 2, channels).mean(axis=(2, 4))


class Discriminator(nnx.Module):
    """Images Float[B, R, R, 3] in [-1, 1] to logits Float[B], positive for drawings.

    Args:
        channels: widths from full resolution down to 4 x 4.
        rngs: initial weights.
    """

    def __init__(self, channels: tuple[int, ...], *, rngs: nnx.Rngs) -> None:
        self.levels = len(channels) - 1
        self.enter = Conv(1, 3, channels[0], rngs=rngs)
        for level, (c_in, c_out) in enumerate(itertools.pairwise(channels)):
            setattr(self, f"conv{level}a", Conv(3, c_in, c_in, rngs=rngs))
            setattr(self, f"conv{level}b", Conv(3, c_in, c_out, rngs=rngs))
            setattr(self, f"skip{level}", Conv(1, c_in, c_out, rngs=rngs))
        self.last = Conv(3, channels[-1] + 1, channels[-1], rngs=rngs)
        self.hidden = Dense(16 * channels[-1], channels[-1], rngs=rngs)
        self.out = Dense(channels[-1], 1, rngs=rngs)

    def __call__(self, images: jax.Array) -> jax.Array:
        """Judge images."""
        x = leaky(self.enter(images))
        for level in range(self.levels):
            y = leaky(getattr(self, f"conv{level}a")(x))
            y = leaky(halve(getattr(self, f"conv{level}b")(y)))
            x = (y + getattr(self, f"skip{level}")(halve(x))) * 0.5**0.5
        # How far images of the batch differ shows a generator that draws always the same.
        groups = x.reshape(-1, min(4, len(x)), *x.shape[1:])
        spread = jnp.sqrt(jnp.var(groups, axis=1) + 1e-8).mean(axis=(1, 2, 3))
        plane = jnp.repeat(spread, groups.shape[1])[:, None, None, None]
        x = jnp.concatenate([x, jnp.broadcast_to(plane, (*x.shape[:3], 1))], axis=-1)
        x = leaky(self.last(x))
        return self.out(leaky(self.hidden(x.reshape(len(x), -1))))[:, 0]
