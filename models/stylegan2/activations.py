"""Activations of StyleGAN2's layers: how their pixels are laid out, and what follows a convolution.

Matrix units multiply 128 channels at a time, and putting pixels between other pixels moves memory.
Where the target is such a machine, an upsampling convolution therefore leaves the four new pixels
that stand where one stood in the channels of that one ("folded"), and whatever acts on pixels alone
(demodulation, noise, bias, rectifier, the next layer's style) is done there. The next convolution
unfolds its input, or, where it has few channels, works on folded pixels with a folded kernel.
"""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import numpy as np
from flax.struct import PyTreeNode, field
from jax import lax

from qdgs_jax.models.backend import target_backend

SLOPE = 0.2  # of the leaky rectifier below zero
ACTIVATION_GAIN = math.sqrt(2)  # keeps the variance of a rectified normal variable


class Pixels(PyTreeNode):  # type: ignore[no-untyped-call]
    """Images with many channels, folded or not.

    Attributes:
        values: Float[B, H, W, C]; folded Float[B, H / 2, W / 2, 4 C], the channels of pixels
            (0, 0), (0, 1), (1, 0) and (1, 1) of each square of four one after the other. Shifted,
            squares begin one pixel further up and left, and there is one more each way, whose
            pixels outside the image are of no use.
        folded: whether pixels are folded.
        shifted: whether squares are shifted.
    """

    values: jax.Array
    folded: bool = field(pytree_node=False, default=False)  # type: ignore[no-untyped-call]
    shifted: bool = field(pytree_node=False, default=False)  # type: ignore[no-untyped-call]

    @property
    def channels(self) -> int:
        """Number of channels of a pixel."""
        return self.values.shape[-1] // (4 if self.folded else 1)

    def per_channel(self, factors: jax.Array) -> jax.Array:
        """Numbers per channel Float[..., C], as often as `values` has each channel."""
        return jnp.tile(factors, 4) if self.folded else factors

    def per_pixel(self, image: jax.Array) -> jax.Array:
        """An image Float[b, H, W, 1] in the order of `values`, with one or all channels."""
        if not self.folded:
            return image
        if self.shifted:
            image = jnp.pad(image, ((0, 0), (1, 1), (1, 1), (0, 0)))
        return jnp.repeat(fold(image), self.channels, axis=-1)

    def scaled(self, style: jax.Array) -> Pixels:
        """Channels times a style Float[B, C], multiplied in float32, in the type of `values`."""
        values = self.values.astype(jnp.float32) * self.per_channel(style)[:, None, None, :]
        return self.replace(values=values.astype(self.values.dtype))

    def unfold(self) -> jax.Array:
        """The pixels in their places, Float[B, H, W, C]."""
        if not self.folded:
            return self.values
        batch, height, width, channels = self.values.shape
        # The barriers have pixels moved in their own type, not in the float32 that they come from.
        values = lax.optimization_barrier(self.values)  # type: ignore[no-untyped-call]
        split = values.reshape(batch, height, width, 2, 2, channels // 4)
        joined = split.transpose(0, 1, 3, 2, 4, 5)
        image = joined.reshape(batch, 2 * height, 2 * width, channels // 4)
        return image[:, 1:-1, 1:-1] if self.shifted else image


def fold(image: jax.Array) -> jax.Array:
    """Fold squares of four pixels: Float[B, 2 H, 2 W, C] to Float[B, H, W, 4 C]."""
    batch, height, width, channels = image.shape
    split = image.reshape(batch, height // 2, 2, width // 2, 2, channels)
    return split.transpose(0, 1, 3, 2, 4, 5).reshape(batch, height // 2, width // 2, 4 * channels)


def planes(x: Pixels, kernel: jax.Array) -> jax.Array:
    """Few channels of every pixel: Float[B, P, H, W], float32.

    Args:
        x: pixels of C channels.
        kernel: Float[C, P], multiplied in the type of `x`.
    """
    values = x.values
    channels, count = kernel.shape
    if x.folded:
        kernel = jnp.einsum("qr,cp->qcrp", jnp.eye(4), kernel).reshape(4 * channels, 4 * count)
    found = (values @ kernel.astype(values.dtype)).transpose(0, 3, 1, 2).astype(jnp.float32)
    if not x.folded:
        return found
    batch, _, height, width = found.shape
    split = found.reshape(batch, 2, 2, count, height, width)
    rows, columns = _places(height, x.shifted), _places(width, x.shifted)
    return jnp.einsum("yhs,bstphw,xwt->bpyx", rows, split, columns, precision=lax.Precision.HIGHEST)


def _places(squares: int, shifted: bool) -> np.ndarray:
    """Which pixel of an axis is the first or second one of which square: Float[pixels, squares, 2].

    Putting three channels in their places is a product on machines that are bad at everything else.
    """
    both = np.eye(2 * squares, dtype=np.float32).reshape(2 * squares, squares, 2)
    return both[1:-1] if shifted else both


def clip(x: jax.Array, clamp: float | None) -> jax.Array:
    """Values clamped to ±clamp; `lax.clamp` keeps a mask for its derivative, min and max floats."""
    if clamp is None:
        return x
    limit = jnp.asarray(clamp, x.dtype)
    return lax.clamp(-limit, x, limit)


def leaky(x: jax.Array, gain: float = ACTIVATION_GAIN, clamp: float | None = None) -> jax.Array:
    """Leaky rectifier of slope 0.2, times `gain`, clamped to ±clamp if one is given."""
    y = jnp.where(x >= 0, x * gain, x * (SLOPE * gain))
    return clip(y, clamp)


def activate(
    x: jax.Array,
    scale: jax.Array,
    noise: jax.Array,
    bias: jax.Array,
    gain: float = ACTIVATION_GAIN,
    clamp: float | None = None,
) -> jax.Array:
    """`leaky(x scale + noise + bias)`, computed in float32, in the type of x.

    On accelerators it has no forward derivative (`jax.jvp`).

    Args:
        x: Float[B, H, W, C].
        scale: Float[B, C], nowhere 0.
        noise: of four axes that broadcast to those of x.
        bias: Float[C].
        gain: of the rectifier.
        clamp: its limit, or None.
    """
    # On CPUs, whose time goes elsewhere, keeping less makes a Jacobian a sixth slower.
    form = _activate if target_backend() == "cpu" else activate_keeping_result
    return form(x, scale, noise, bias, gain, clamp)


def _activate(
    x: jax.Array,
    scale: jax.Array,
    noise: jax.Array,
    bias: jax.Array,
    gain: float,
    clamp: float | None,
) -> jax.Array:
    y = x.astype(jnp.float32) * scale[:, None, None, :] + noise + bias
    return leaky(y, gain, clamp).astype(x.dtype)


# `activate`, of which the result alone is kept for the derivative: its sign tells the slope, and x
# follows from it. So a layer keeps one array instead of three and a mask.
activate_keeping_result = jax.custom_vjp(_activate, nondiff_argnums=(4, 5))

_Kept = tuple[jax.Array, jax.Array, jax.Array, jax.Array]


def _activate_forward(
    x: jax.Array,
    scale: jax.Array,
    noise: jax.Array,
    bias: jax.Array,
    gain: float,
    clamp: float | None,
) -> tuple[jax.Array, _Kept]:
    y = _activate(x, scale, noise, bias, gain, clamp)
    return y, (y, scale, noise, bias)


def _activate_backward(
    gain: float, clamp: float | None, kept: _Kept, to_y: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array]:
    y, scale, noise, bias = kept
    values, to_values = y.astype(jnp.float32), to_y.astype(jnp.float32)
    if clamp is not None:
        within = jnp.abs(values) < jnp.asarray(clamp, y.dtype).astype(jnp.float32)
        to_values = jnp.where(within, to_values, 0.0)
    to_sum = to_values * jnp.where(values >= 0, gain, SLOPE * gain)
    to_x = (to_sum * scale[:, None, None, :]).astype(y.dtype)
    # The rectifier is as good as linear: its argument times `to_sum` is its result times `to_y`.
    to_scale = jnp.sum(to_values * values - to_sum * (noise + bias), axis=(1, 2)) / scale
    copied = tuple(axis for axis in range(4) if noise.shape[axis] == 1)
    return to_x, to_scale, jnp.sum(to_sum, axis=copied, keepdims=True), jnp.sum(to_sum, (0, 1, 2))


activate_keeping_result.defvjp(_activate_forward, _activate_backward)
