"""Activations of StyleGAN2's layers: how their pixels are laid out, and what follows a convolution.

Matrix units multiply 128 channels at a time, and putting pixels between other pixels moves memory.
Where the target is such a machine, an upsampling convolution therefore leaves the four new pixels
that stand where one stood in the channels of that one ("folded"), and whatever acts on pixels alone
(demodulation, noise, bias, rectifier, the next layer's style) is done there. Of few channels the
next convolution works on folded pixels too, with a folded kernel; many are unfolded before it, by
the layer that folded them (`up_layer`).
"""

from __future__ import annotations

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax.struct import PyTreeNode, field
from jax import lax

from qdgs_jax.models.backend import target_backend
from qdgs_jax.models.side_by_side import side_by_side

SLOPE = 0.2  # of the leaky rectifier below zero
ACTIVATION_GAIN = math.sqrt(2)  # keeps the variance of a rectified normal variable

Styles = tuple[jax.Array | None, ...]


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
        return fold_for_all(image, self.channels, self.shifted) if self.folded else image

    def scaled(self, style: jax.Array) -> Pixels:
        """Channels times a style Float[B, C], multiplied in float32, in the type of `values`."""
        values = self.values.astype(jnp.float32) * self.per_channel(style)[:, None, None, :]
        return self.replace(values=values.astype(self.values.dtype))

    def unfold(self) -> jax.Array:
        """The pixels in their places, Float[B, H, W, C]."""
        if not self.folded:
            return self.values
        batch, height, width, channels = self.values.shape
        values = self.values
        if target_backend() != "gpu":
            # Pixels are to be moved in their own type, not in the float32 that they come from. On
            # a GPU moving them becomes part of what made them.
            values = lax.optimization_barrier(values)  # type: ignore[no-untyped-call]
        split = values.reshape(batch, height, width, 2, 2, channels // 4)
        joined = split.transpose(0, 1, 3, 2, 4, 5)
        image = joined.reshape(batch, 2 * height, 2 * width, channels // 4)
        return image[:, 1:-1, 1:-1] if self.shifted else image


def fold(image: jax.Array) -> jax.Array:
    """Fold squares of four pixels: Float[B, 2 H, 2 W, C] to Float[B, H, W, 4 C]."""
    batch, height, width, channels = image.shape
    split = image.reshape(batch, height // 2, 2, width // 2, 2, channels)
    return split.transpose(0, 1, 3, 2, 4, 5).reshape(batch, height // 2, width // 2, 4 * channels)


def fold_for_all(image: jax.Array, channels: int, shifted: bool) -> jax.Array:
    """Fold an image with one channel for pixels with many: Float[B, H, W, 4 C].

    Args:
        image: Float[B, 2 H, 2 W, 1], or with two rows and columns less where squares are shifted.
        channels: C of the pixels.
        shifted: whether their squares are shifted.
    """
    if shifted:
        image = jnp.pad(image, ((0, 0), (1, 1), (1, 1), (0, 0)))
    if target_backend() == "gpu":
        return jnp.repeat(fold(image), channels, axis=-1)
    # A product, for a TPU is bad at putting numbers beside each other.
    repeats = np.eye(4, dtype=np.float32).repeat(channels, axis=1)
    return jnp.matmul(fold(image), repeats, precision=lax.Precision.HIGHEST)


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


class Layer(PyTreeNode):  # type: ignore[no-untyped-call]
    """What follows a convolution.

    Attributes:
        scale: Float[B, C].
        noise: of four axes that broadcast to those of the pixels.
        bias: Float[C].
        styles: factors Float[B, C] of the layers that take the result; None for it as it is.
    """

    scale: jax.Array
    noise: jax.Array
    bias: jax.Array
    styles: Styles

    def laid_out_as(self, pixels: Pixels, noise: jax.Array | None = None) -> Layer:
        """The same for pixels that may be folded.

        Args:
            pixels: whose layout it takes.
            noise: as `pixels.per_pixel` lays out its own, if that is at hand.
        """
        return Layer(
            scale=pixels.per_channel(self.scale),
            noise=pixels.per_pixel(self.noise) if noise is None else noise,
            bias=pixels.per_channel(self.bias),
            styles=tuple(
                None if each is None else pixels.per_channel(each) for each in self.styles
            ),
        )

    def rectified(self, x: jax.Array, gain: float, clamp: float | None) -> jax.Array:
        """The result for Float[B, H, W, C] before it is multiplied with styles, in float32."""
        scaled = x.astype(jnp.float32) * self.scale[:, None, None, :]
        return leaky(scaled + (self.noise + self.bias), gain, clamp)

    def activate(self, x: jax.Array, gain: float, clamp: float | None) -> tuple[jax.Array, ...]:
        """Results for pixels Float[B, H, W, C], in their type."""
        y = self.rectified(x, gain, clamp)
        return tuple(
            (y if style is None else y * style[:, None, None, :]).astype(x.dtype)
            for style in self.styles
        )

    def pull(
        self, x: jax.Array, to_ys: tuple[jax.Array, ...], gain: float, clamp: float | None
    ) -> tuple[Layer, jax.Array]:
        """Derivatives by the results of `activate` to those by the layer and by x.

        Mapped by `jax.vmap` over `to_ys`, they are pulled back beside each other (`side_by_side`).

        Args:
            x: pixels Float[B, H, W, C], of which `activate` made the results.
            to_ys: Float[B, H, W, C] for each style.
            gain: of the rectifier.
            clamp: its limit, or None.
        """

        def one(kept: tuple[Layer, jax.Array], to_ys: tuple[jax.Array, ...]) -> Any:
            return _pull(*kept, to_ys, gain, clamp)

        if target_backend() == "gpu":
            # Slopes are computed on the way back, from x, rather than kept from the way there.
            x = lax.optimization_barrier(x)  # type: ignore[no-untyped-call]
        layer, to_x = side_by_side(one, one)((self, x), to_ys)
        return layer.replace(bias=layer.bias.reshape(self.bias.shape)), to_x


def activate(
    x: jax.Array, layer: Layer, gain: float = ACTIVATION_GAIN, clamp: float | None = None
) -> tuple[jax.Array, ...]:
    """`leaky(x scale + noise + bias)` times each style, computed in float32, in the type of x.

    On accelerators it has no forward derivative (`jax.jvp`).

    Args:
        x: Float[B, H, W, C].
        layer: what follows, laid out as `x`.
        gain: of the rectifier.
        clamp: its limit, or None.
    """
    # On CPUs, whose time goes elsewhere, keeping less makes a Jacobian a sixth slower.
    form = Layer.activate if target_backend() == "cpu" else activate_keeping_input
    return form(layer, x, gain, clamp)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def activate_keeping_input(
    layer: Layer, x: jax.Array, gain: float, clamp: float | None
) -> tuple[jax.Array, ...]:
    """`Layer.activate`, which keeps x alone for its derivative."""
    return layer.activate(x, gain, clamp)


def _activate_forward(
    layer: Layer, x: jax.Array, gain: float, clamp: float | None
) -> tuple[tuple[jax.Array, ...], tuple[Layer, jax.Array]]:
    return activate_keeping_input(layer, x, gain, clamp), (layer, x)


def _activate_backward(
    gain: float, clamp: float | None, kept: tuple[Layer, jax.Array], to_ys: tuple[jax.Array, ...]
) -> tuple[Layer, jax.Array]:
    layer, x = kept
    return layer.pull(x, to_ys, gain, clamp)


def _pull(
    layer: Layer, x: jax.Array, to_ys: tuple[jax.Array, ...], gain: float, clamp: float | None
) -> tuple[Layer, jax.Array]:
    """Derivatives Float[B, H, W, C] by each result to those by what it follows from.

    Several, Float[B, n, H, W, C], come as several, with n as their second axis; the bias has all
    four others. What they share is computed first, once.
    """
    several = to_ys[0].ndim == 5

    def shared(factor: jax.Array) -> jax.Array:
        return factor[:, None] if several else factor

    def over_pixels(x: jax.Array) -> jax.Array:
        if target_backend() != "gpu":
            return jnp.sum(x, axis=(-3, -2))
        # Row by row first: a GPU then sums while it makes what it sums, in its own type.
        rows = lax.optimization_barrier(jnp.sum(x, axis=-2))  # type: ignore[no-untyped-call]
        return jnp.sum(rows, axis=-2)

    def total(x: jax.Array, *axes: int) -> jax.Array:
        return jnp.sum(x, [axis + 1 if several and axis else axis for axis in axes], keepdims=True)

    values = layer.rectified(x, gain, clamp)
    slopes = _slopes(values, gain, clamp)
    if target_backend() == "gpu" and sum(style is not None for style in layer.styles) > 1:
        # Which two sums need, and XLA therefore stores: in the type of the pixels.
        values = lax.optimization_barrier(values.astype(x.dtype)).astype(jnp.float32)  # type: ignore[no-untyped-call]
    to_sum = jnp.zeros((), jnp.float32)
    to_styles: list[jax.Array | None] = []
    for style, to_y in zip(layer.styles, to_ys, strict=True):
        to_y = to_y.astype(jnp.float32)
        factor = slopes if style is None else slopes * style[:, None, None, :]
        to_sum = to_sum + to_y * shared(factor)
        product = None if style is None else over_pixels(to_y * shared(values))
        to_styles.append(product)
    copied = [axis for axis in range(4) if layer.noise.shape[axis] == 1 != x.shape[axis]]
    found = Layer(
        scale=over_pixels(to_sum * shared(x.astype(jnp.float32))),
        noise=total(to_sum, *copied),
        bias=total(to_sum, 0, 1, 2),
        styles=tuple(to_styles),
    )
    # With JAX_ENABLE_X64 noise in double precision may stand beside weights in single precision.
    found = jax.tree.map(lambda to_each, each: to_each.astype(each.dtype), found, layer)
    return found, (to_sum * shared(layer.scale[:, None, None, :])).astype(x.dtype)


def _slopes(values: jax.Array, gain: float, clamp: float | None) -> jax.Array:
    """Slopes of `leaky` where it gives these values."""
    positive = values >= 0
    unclamped = True if clamp is None else jnp.abs(values) < clamp
    if target_backend() == "gpu":
        # Where several sums need them they are one byte each, instead of a mask for each limit.
        kinds = jnp.where(unclamped, 1 + positive.astype(jnp.int8), jnp.zeros((), jnp.int8))
        kinds = lax.optimization_barrier(kinds)  # type: ignore[no-untyped-call]
        positive, unclamped = kinds == 2, kinds != 0
    return jnp.where(unclamped, jnp.where(positive, gain, SLOPE * gain), 0.0)


activate_keeping_input.defvjp(_activate_forward, _activate_backward)
