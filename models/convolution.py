"""Convolutions whose derivatives are fast on a CPU too, inside loops as well.

XLA's CPU backend has fast code for convolutions whose arrays lie as NHWC and HWIO say. Those that
differentiation makes, with channels or batch exchanged in the description of the convolution alone,
fall back to other code: inside a loop the derivative by the kernel is hundreds of times slower.
Here the input's derivative is a convolution with the kernel turned round as an array of its own,
and the kernel's a matrix product for each of its taps; few channels make products too thin to be
fast, so there all taps are one. Many channels of float32 take half of the products, by `winograd`.
Accelerators convolve and differentiate as they are used to.
"""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
from jax import lax

from qdgs_jax.models import winograd
from qdgs_jax.models.backend import target_backend

_DIMENSIONS = ("NHWC", "HWIO", "NHWC")
_FEW = 256  # channels, in and out together, up to which one product is faster than one for each tap
_COLOURS = 16  # input channels up to which all taps are copied beside each other
_MANY = 64  # channels, in and out, from which fewer products are worth the sums that they need
_PIXELS = 4  # for each channel, in all images, as the kernel's sums must be worth it too


def convolve(x: jax.Array, kernel: jax.Array, stride: int = 1) -> jax.Array:
    """Cross-correlate Float[B, H, W, I] with Float[k, k, I, O], padded by k // 2 zeros.

    Float[B, H', W', O], where H' is H / stride rounded up; k is odd. On a CPU it has a reverse
    derivative of its own and therefore no forward one (`jax.jvp`).
    """
    if target_backend() != "cpu":
        return _plain(x, kernel, stride)
    return _fewer(x, kernel) if _saves(x, kernel, stride) else _own(x, kernel, stride)


def _saves(x: jax.Array, kernel: jax.Array, stride: int) -> bool:
    (size, _, *channels), pixels = kernel.shape, x.size // x.shape[-1]
    suited = size == 3 and stride == 1 and x.dtype == kernel.dtype == jnp.float32
    return suited and min(channels) >= _MANY and pixels >= _PIXELS * max(channels)


def _plain(x: jax.Array, kernel: jax.Array, stride: int) -> jax.Array:
    pads = (kernel.shape[0] // 2,) * 2
    return lax.conv_general_dilated(
        x, kernel, (stride, stride), (pads, pads), dimension_numbers=_DIMENSIONS
    )


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def _own(x: jax.Array, kernel: jax.Array, stride: int) -> jax.Array:
    return _plain(x, kernel, stride)


def _forward(
    x: jax.Array, kernel: jax.Array, stride: int
) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    return _own(x, kernel, stride), (x, kernel)


def _backward(
    stride: int, kept: tuple[jax.Array, jax.Array], y: jax.Array
) -> tuple[jax.Array, jax.Array]:
    x, kernel = kept
    return _to_input(kernel, y, stride, x.shape[1:3]), _to_kernel(x, y, stride, kernel.shape)


_own.defvjp(_forward, _backward)


@jax.custom_vjp
def _fewer(x: jax.Array, kernel: jax.Array) -> jax.Array:
    return _fewer_forward(x, kernel)[0]


def _fewer_forward(
    x: jax.Array, kernel: jax.Array
) -> tuple[jax.Array, tuple[winograd.Sums, jax.Array]]:
    sums = winograd.input_sums(x)
    return winograd.convolve_sums(sums, kernel, x.shape[1]), (sums, kernel)


def _fewer_backward(
    kept: tuple[winograd.Sums, jax.Array], y: jax.Array
) -> tuple[jax.Array, jax.Array]:
    sums, kernel = kept
    derivatives = winograd.result_sums(y)
    to_input = winograd.to_input(kernel, derivatives, y.shape[1])
    return to_input, winograd.to_kernel(sums, derivatives)


_fewer.defvjp(_fewer_forward, _fewer_backward)


def turned_round(kernel: jax.Array) -> jax.Array:
    """A kernel Float[h, w, I, O] to pull derivatives back with, Float[h, w, O, I].

    The barrier makes it an array of its own. Differentiation would hand XLA the kernel with its
    channels exchanged in the description of the convolution alone. Inside a loop XLA's CPU backend
    then falls back to code that is four to seven times slower.
    """
    turned = kernel[::-1, ::-1].swapaxes(2, 3)
    return lax.optimization_barrier(turned)  # type: ignore[no-untyped-call]


def _to_input(kernel: jax.Array, y: jax.Array, stride: int, sides: tuple[int, ...]) -> jax.Array:
    """Spread Float[B, H', W', O] over the input, Float[B, H, W, I]."""
    turned = turned_round(kernel)
    before = kernel.shape[0] // 2
    pads = [
        (before, side - 1 - (found - 1) * stride + before)
        for side, found in zip(sides, y.shape[1:3], strict=True)
    ]
    return lax.conv_general_dilated(
        y, turned, (1, 1), pads, lhs_dilation=(stride, stride), dimension_numbers=_DIMENSIONS
    )


def _to_kernel(x: jax.Array, y: jax.Array, stride: int, shape: tuple[int, ...]) -> jax.Array:
    """Sum products of the inputs that each tap saw with Float[B, H', W', O]."""
    (size, _, c_in, c_out), (batch, height, width, _) = shape, y.shape
    pad = size // 2
    padded = jnp.pad(x, ((0, 0), (pad, pad), (pad, pad), (0, 0)))
    if stride == 1 < size and c_in > _COLOURS and c_in + c_out <= _FEW:
        return _to_narrow_kernel(padded, y, size)
    columns = y.reshape(-1, c_out)

    def seen(row: int, column: int) -> jax.Array:
        end = (row + (height - 1) * stride + 1, column + (width - 1) * stride + 1)
        return lax.slice(padded, (0, row, column, 0), (batch, *end, c_in), (1, stride, stride, 1))

    taps = [seen(row, column) for row in range(size) for column in range(size)]
    if c_in <= _COLOURS:
        beside = jnp.concatenate(taps, axis=-1).reshape(-1, size * size * c_in)
        return (beside.T @ columns).reshape(shape)
    return jnp.stack([tap.reshape(-1, c_in).T @ columns for tap in taps]).reshape(shape)


def _to_narrow_kernel(padded: jax.Array, y: jax.Array, size: int) -> jax.Array:
    """All taps as one product: columns of x move against y, and rows of y against x."""
    (_, height, _, c_in), (_, _, width, c_out) = padded.shape, y.shape
    seen = jnp.concatenate([padded[:, :, at : at + width] for at in range(size)], axis=-1)
    beyond = jnp.pad(y, ((0, 0), (size - 1, size - 1), (0, 0), (0, 0)))
    rows = [beyond[:, size - 1 - at : size - 1 - at + height] for at in range(size)]
    columns = jnp.concatenate(rows, axis=-1).reshape(-1, size * c_out)
    taps = seen.reshape(-1, size * c_in).T @ columns
    return taps.reshape(size, c_in, size, c_out).transpose(2, 0, 1, 3)
