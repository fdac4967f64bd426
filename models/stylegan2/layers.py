"""Layers of StyleGAN2: equalised dense layers, modulated convolutions, RGB heads.

Modulation scales the activations, before the convolution by the style and after it by the
demodulation factor, instead of making one kernel per sample (Karras et al. 2020,
arXiv:1912.04958, equations 1 to 3). Both forms are equal; this one leaves a single ordinary
convolution over the whole batch, and its derivative with respect to the style is a sum over pixels
instead of a gradient per sample's kernel. Weights are stored as the original programs store them,
before the run-time gain of equalised learning rates, so that a port only transposes. NHWC, kernels
HWIO.

In bfloat16 convolutions take and give bfloat16, and so do layers; what stands between is computed
in float32. Compilers fuse it with its neighbours, so that it costs nothing and rounds once.
"""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
from flax import nnx
from jax import lax
from jax.typing import DTypeLike

from qdgs_jax.models.stylegan2.resample import convolve, convolve_up, smooth_up
from qdgs_jax.models.variables import Buffer

SLOPE = 0.2  # of the leaky rectifier below zero
ACTIVATION_GAIN = math.sqrt(2)  # keeps the variance of a rectified normal variable


def leaky(x: jax.Array, gain: float = ACTIVATION_GAIN, clamp: float | None = None) -> jax.Array:
    """Leaky rectifier of slope 0.2, times `gain`, clamped to ±clamp if one is given."""
    y = jnp.where(x >= 0, x * gain, x * (SLOPE * gain))
    return clip(y, clamp)


def clip(x: jax.Array, clamp: float | None) -> jax.Array:
    """Values clamped to ±clamp; `lax.clamp` keeps a mask for its derivative, min and max floats."""
    if clamp is None:
        return x
    limit = jnp.asarray(clamp, x.dtype)
    return lax.clamp(-limit, x, limit)


class Dense(nnx.Module):
    """Equalised dense layer: x W (lr / sqrt(I)) + b lr. Float[..., I] -> Float[..., O].

    Attributes:
        kernel: Float[I, O], of standard deviation 1 / lr.
        bias: Float[O].
    """

    def __init__(
        self,
        c_in: int,
        c_out: int,
        *,
        lr_multiplier: float = 1.0,
        bias_init: float = 0.0,
        rngs: nnx.Rngs,
    ) -> None:
        self.kernel = nnx.Param(jax.random.normal(rngs.params(), (c_in, c_out)) / lr_multiplier)
        self.bias = nnx.Param(jnp.full((c_out,), bias_init))
        self.kernel_gain = lr_multiplier / math.sqrt(c_in)
        self.bias_gain = lr_multiplier

    def __call__(self, x: jax.Array) -> jax.Array:
        """Apply to Float[..., I]."""
        return x @ (self.kernel[...] * self.kernel_gain) + self.bias[...] * self.bias_gain


class StyledConv(nnx.Module):
    """Modulated and demodulated 3x3 convolution, noise, bias and leaky rectifier.

    Attributes:
        kernel: Float[3, 3, I, O].
        bias: Float[O].
        affine: `Dense` from a code Float[W] to the style Float[I].
        noise_const: Float[R, R], the stored noise image (absent without noise).
        noise_strength: Float[], its scale (absent without noise).
    """

    def __init__(
        self,
        c_in: int,
        c_out: int,
        w_dim: int,
        resolution: int,
        *,
        up: bool,
        use_noise: bool,
        conv_clamp: float | None,
        upsampling: str,
        dtype: DTypeLike,
        rngs: nnx.Rngs,
    ) -> None:
        self.kernel = nnx.Param(jax.random.normal(rngs.params(), (3, 3, c_in, c_out)))
        self.bias = nnx.Param(jnp.zeros((c_out,)))
        self.affine = Dense(w_dim, c_in, bias_init=1.0, rngs=rngs)
        self.use_noise = use_noise
        if use_noise:
            shape = (resolution, resolution)
            self.noise_const = Buffer(jax.random.normal(rngs.params(), shape))
            self.noise_strength = nnx.Param(jnp.zeros(()))
        self.resolution = resolution
        self.up = up
        self.conv_clamp = conv_clamp
        self.upsampling = upsampling
        self.dtype = jnp.dtype(dtype)

    def __call__(
        self, x: jax.Array, w: jax.Array, noise: str, key: jax.Array | None, gain: float = 1.0
    ) -> jax.Array:
        """Convolve Float[B or 1, H, W, I] under codes Float[B, W]: Float[B, R, R, O] in `dtype`."""
        style = self.affine(w)
        kernel = self.kernel[...]
        x = (x.astype(jnp.float32) * style[:, None, None, :]).astype(self.dtype)
        compute_kernel = kernel.astype(self.dtype)
        y = (
            convolve_up(x, compute_kernel, self.upsampling)
            if self.up
            else convolve(x, compute_kernel)
        )
        # Equation 3 on the outputs: the norm of the scaled kernel, in float32 whatever the dtype.
        energy = jnp.sum(jnp.square(kernel), axis=(0, 1))
        demodulation = lax.rsqrt(jnp.square(style) @ energy + 1e-8)
        y = y.astype(jnp.float32) * demodulation[:, None, None, :]
        image = self._noise(len(w), noise, key)
        if image is not None:
            y = y + image
        y = y + self.bias[...]
        clamp = None if self.conv_clamp is None else self.conv_clamp * gain
        return leaky(y, ACTIVATION_GAIN * gain, clamp).astype(self.dtype)

    def _noise(self, batch: int, noise: str, key: jax.Array | None) -> jax.Array | None:
        """Scaled noise Float[B or 1, R, R, 1], or None."""
        if not self.use_noise or noise == "none":
            return None
        shape = (self.resolution, self.resolution, 1)
        if noise == "const":
            return (self.noise_const[...] * self.noise_strength[...]).reshape(1, *shape)
        if key is None:
            raise ValueError("noise='random' needs a key: pass key=jax.random.key(seed).")
        return jax.random.normal(key, (batch, *shape)) * self.noise_strength[...]


class ToRGB(nnx.Module):
    """Modulated 1x1 convolution to an image, without demodulation: Float[B, R, R, C] float32.

    Attributes:
        kernel: Float[1, 1, I, C].
        bias: Float[C].
        affine: `Dense` from a code Float[W] to the style Float[I].
    """

    def __init__(
        self,
        c_in: int,
        colours: int,
        w_dim: int,
        *,
        conv_clamp: float | None,
        dtype: DTypeLike,
        rngs: nnx.Rngs,
    ) -> None:
        self.kernel = nnx.Param(jax.random.normal(rngs.params(), (1, 1, c_in, colours)))
        self.bias = nnx.Param(jnp.zeros((colours,)))
        self.affine = Dense(w_dim, c_in, bias_init=1.0, rngs=rngs)
        self.gain = 1 / math.sqrt(c_in)
        self.conv_clamp = conv_clamp
        self.dtype = jnp.dtype(dtype)

    def __call__(self, x: jax.Array, w: jax.Array) -> jax.Array:
        """Project Float[B, R, R, I] under codes Float[B, W]."""
        style = self.affine(w) * self.gain
        x = (x.astype(jnp.float32) * style[:, None, None, :]).astype(self.dtype)
        y = convolve(x, self.kernel[...].astype(self.dtype))
        return clip(y.astype(jnp.float32) + self.bias[...], self.conv_clamp)


class SkipConv(nnx.Module):
    """Residual path of the resnet architecture: 1x1 convolution, then smooth upsampling by two.

    Attributes:
        kernel: Float[1, 1, I, O].
    """

    def __init__(self, c_in: int, c_out: int, *, dtype: DTypeLike, rngs: nnx.Rngs) -> None:
        self.kernel = nnx.Param(jax.random.normal(rngs.params(), (1, 1, c_in, c_out)))
        self.gain = 1 / math.sqrt(c_in)
        self.dtype = jnp.dtype(dtype)

    def __call__(self, x: jax.Array, gain: float) -> jax.Array:
        """Project Float[B, H, W, I] to `gain` times Float[B, 2H, 2W, O]."""
        kernel = (self.kernel[...] * (self.gain * gain)).astype(self.dtype)
        return smooth_up(convolve(x.astype(self.dtype), kernel))
