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

import functools
import math

import jax
import jax.numpy as jnp
from flax import nnx
from flax.struct import PyTreeNode
from jax import lax
from jax.typing import DTypeLike

from qdgs_jax.models.backend import LANES, target_backend
from qdgs_jax.models.convolution import turned_round
from qdgs_jax.models.stylegan2.activations import (
    ACTIVATION_GAIN,
    Layer,
    Pixels,
    Styles,
    activate,
    clip,
    fold_for_all,
)
from qdgs_jax.models.stylegan2.colours import planes
from qdgs_jax.models.stylegan2.kernels import (
    Kernel,
    folded_kernel,
    merged_kernel,
    phases_kernel,
)
from qdgs_jax.models.stylegan2.resample import (
    convolve,
    convolve_folded,
    convolve_up,
    resolved,
    smooth_up,
)
from qdgs_jax.models.stylegan2.up_layer import convolve_up_and_activate, up_layer_kernel
from qdgs_jax.models.variables import Buffer


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
        self.bias = nnx.Param(jnp.full((c_out,), bias_init, jnp.float32))
        self.kernel_gain: float | None = lr_multiplier / math.sqrt(c_in)
        self.bias_gain = lr_multiplier

    def __call__(self, x: jax.Array) -> jax.Array:
        """Apply to Float[..., I]."""
        return x @ self._scaled() + self.bias[...] * self.bias_gain

    def prepare(self) -> None:
        """Multiply the kernel with its gain for good."""
        self.kernel = nnx.Param(self._scaled())
        self.kernel_gain = None

    def _scaled(self) -> jax.Array:
        kernel: jax.Array = self.kernel[...]
        return kernel if self.kernel_gain is None else kernel * self.kernel_gain


class Prepared(PyTreeNode):  # type: ignore[no-untyped-call]
    """What a `StyledConv` makes of its weights alone.

    Attributes:
        kernel: in the form that the layer's convolution takes.
        energy: Float[I, O], the sum of its squared taps.
        noise: the stored noise, scaled, as a TPU lays it out for folded pixels.
    """

    kernel: jax.Array | Kernel
    energy: jax.Array
    noise: jax.Array | None = None


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
        self.prepared: Buffer | None = nnx.data(None)

    @property
    def at_once(self) -> bool:
        """Whether convolution and activation are one operation, `convolve_up_and_activate`."""
        unfolds = target_backend() == "gpu" or self.kernel.shape[3] >= LANES
        return self.up and resolved(self.upsampling) == "subpixel" and unfolds

    def prepare(self, folded: bool) -> bool:
        """Make of the kernel what is multiplied, once for all calls for the backend at hand.

        Args:
            folded: whether pixels come folded.

        Returns:
            Whether they go folded.
        """
        self.affine.prepare()
        prepared = self._prepared(folded, back=True)
        subpixel = self.up and resolved(self.upsampling) == "subpixel"
        goes_folded = (subpixel and not self.at_once) or (folded and not self.up)
        if self.use_noise and target_backend() == "tpu" and (self.at_once or goes_folded):
            noise = self._noise(1, "const", None)
            laid_out = fold_for_all(noise, self.kernel.shape[3], shifted=not self.up)
            prepared = prepared.replace(noise=laid_out)
        self.prepared = Buffer(prepared)
        return goes_folded

    def _prepared(self, folded: bool, back: bool = False) -> Prepared:
        """What is made of the kernel; what derivatives alone need, if `back`."""
        kernel = self.kernel[...]
        # Equation 3 on the outputs: the norm of the scaled kernel, in float32 whatever the dtype.
        # Tap by tap: as a sum over axes it takes XLA's CPU backend thirty times as long.
        taps = jnp.square(kernel).reshape(-1, *kernel.shape[2:])
        energy = functools.reduce(jnp.add, jnp.unstack(taps))
        method = resolved(self.upsampling)
        if self.at_once:
            return Prepared(up_layer_kernel(kernel, self.dtype), energy)
        if self.up and method == "phases":
            return Prepared(phases_kernel(kernel, self.dtype), energy)
        if self.up and method != "subpixel":
            return Prepared(kernel, energy)
        if self.up:
            forward = merged_kernel(kernel, self.dtype)
        elif folded:
            forward = folded_kernel(kernel, self.dtype)
        else:
            forward = kernel.astype(self.dtype)
        return Prepared(Kernel(forward, turned_round(forward) if back else None), energy)

    def __call__(
        self,
        x: Pixels,
        style: jax.Array,
        noise: str,
        key: jax.Array | None,
        onward: Styles,
        gain: float = 1.0,
    ) -> tuple[Pixels, ...]:
        """Convolve pixels Float[B, H, W, I], times their style, to Float[B, R, R, O].

        The result comes once for each style of `onward`, Float[B, O], times that.
        """
        prepared: Prepared = (
            self._prepared(x.folded) if self.prepared is None else self.prepared.get_value()
        )
        kernel, laid_out = prepared.kernel, prepared.noise if noise == "const" else None
        layer = Layer(
            scale=lax.rsqrt(jnp.square(style) @ prepared.energy + 1e-8),
            noise=self._noise(len(style), noise, key),
            bias=self.bias[...],
            styles=onward,
        )
        clamp = None if self.conv_clamp is None else self.conv_clamp * gain
        gain = gain * ACTIVATION_GAIN
        if self.at_once:
            found = convolve_up_and_activate(x.unfold(), kernel, layer, gain, clamp, laid_out)
            return tuple(map(Pixels, found))
        if self.up:
            y = convolve_up(Pixels(x.unfold()), kernel, self.upsampling)
        elif x.folded:
            y = convolve_folded(x, kernel)
        else:
            y = Pixels(convolve(x.values, kernel))
        found = activate(y.values, layer.laid_out_as(y, laid_out), gain, clamp)
        return tuple(y.replace(values=values) for values in found)

    def _noise(self, batch: int, noise: str, key: jax.Array | None) -> jax.Array:
        """Scaled noise Float[B or 1, R, R, 1]."""
        if not self.use_noise or noise == "none":
            return jnp.zeros((1, self.resolution, self.resolution, 1))
        shape = (self.resolution, self.resolution, 1)
        if noise == "const":
            return (self.noise_const[...] * self.noise_strength[...]).reshape(1, *shape)
        if key is None:
            raise ValueError("noise='random' needs a key: pass key=jax.random.key(seed).")
        return jax.random.normal(key, (batch, *shape)) * self.noise_strength[...]


class ToRGB(nnx.Module):
    """Modulated 1x1 convolution to an image, without demodulation: Float[B, C, R, R] float32.

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

    def style(self, w: jax.Array) -> jax.Array:
        """Factors of channels Float[B, I] of codes Float[B, W]."""
        return self.affine(w) * self.gain

    def __call__(self, x: Pixels) -> jax.Array:
        """Project pixels Float[B, R, R, I], times their style."""
        y = planes(x, self.kernel[0, 0]) + self.bias[...][:, None, None]
        return clip(y, self.conv_clamp)


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
        return smooth_up(convolve(x.astype(self.dtype), kernel), (1, 2))
