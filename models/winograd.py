"""Convolutions of 3 x 3 taps with half of the products: Winograd's F(4, 3) along the height.

Four rows of a result follow from six of the input (Winograd 1980; Lavin & Gray 2016,
arXiv:1509.09308): sums of the six, B^T, meet sums of the kernel's rows, G, in six convolutions
along the width, and sums of those, A^T, are the four rows: 18 products for 36. Along one axis alone
sums stay few and rows whole, and errors of rounding grow to two or three times those of nine
products for a pixel (root mean square). Both derivatives are the transposed steps, the kernel's
from the sums that were kept.

On a CPU a pass over memory costs little beside the products it saves. Convolutions along the width
are of one spatial axis, for which XLA's CPU backend has code that keeps all cores busy.
"""

from __future__ import annotations

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

_ROWS = 4  # of the result that are computed together, from two more of the input
_INPUT = np.array(  # B^T: sums of six rows
    [
        [4, 0, -5, 0, 1, 0],
        [0, -4, -4, 1, 1, 0],
        [0, 4, -4, -1, 1, 0],
        [0, -2, -1, 2, 1, 0],
        [0, 2, -1, -2, 1, 0],
        [0, 4, 0, -5, 0, 1],
    ]
)
_KERNEL = np.array(  # G: sums of the kernel's three rows
    [
        [1 / 4, 0, 0],
        [-1 / 6, -1 / 6, -1 / 6],
        [-1 / 6, 1 / 6, -1 / 6],
        [1 / 24, 1 / 12, 1 / 6],
        [1 / 24, -1 / 12, 1 / 6],
        [0, 0, 1],
    ]
)
_RESULT = np.array(  # A^T: four rows as sums of the six products
    [[1, 1, 1, 1, 1, 0], [0, 1, -1, 2, -2, 0], [0, 1, 1, 4, 4, 0], [0, 1, -1, 8, -8, 1]]
)
Sums = tuple[jax.Array, ...]  # six, Float[B, ceil(H / 4), W, C] each


def input_sums(x: jax.Array) -> Sums:
    """Six sums of rows of Float[B, H, W, C], of each group of six that four rows are made from."""
    grouped = _grouped(x)
    above = jnp.pad(grouped[:, :-1, -1], ((0, 0), (1, 0), (0, 0), (0, 0)))
    below = jnp.pad(grouped[:, 1:, 0], ((0, 0), (0, 1), (0, 0), (0, 0)))
    inner = [grouped[:, :, at] for at in range(_ROWS)]
    rows = [_stored(above), *inner, _stored(below)]
    return tuple(_sum(factors, rows) for factors in _INPUT)


def convolve_sums(sums: Sums, kernel: jax.Array, height: int) -> jax.Array:
    """Convolution Float[B, H, W, O] of what `input_sums` gave with Float[3, 3, I, O]."""
    products = [_along_width(x, k) for x, k in zip(sums, _kernel_sums(kernel), strict=True)]
    return _interleaved([_sum(factors, products) for factors in _RESULT])[:, :height]


def result_sums(y: jax.Array) -> Sums:
    """Derivatives by the six products, of Float[B, H, W, O] by the convolution."""
    grouped = _grouped(y)
    rows = [grouped[:, :, at] for at in range(_ROWS)]
    return tuple(_stored(_sum(factors, rows)) for factors in _RESULT.T)


def to_input(kernel: jax.Array, sums: Sums, height: int) -> jax.Array:
    """Derivative by the input, Float[B, H, W, I], from `result_sums`."""
    turned = [_stored(k[::-1].swapaxes(1, 2)) for k in _kernel_sums(kernel)]
    products = [_along_width(y, k) for y, k in zip(sums, turned, strict=True)]
    groups = sums[0].shape[1]
    over = int(height + 1 > _ROWS * groups)  # the last group's fifth row is one of the input's

    def row(at: int) -> jax.Array:
        own = _sum(_INPUT[:, at], products)
        own = jnp.pad(own, ((0, 0), (0, over), (0, 0), (0, 0)))
        if at > 1:
            return own
        before = _sum(_INPUT[:, _ROWS + at], products)
        return own + jnp.pad(before, ((0, 0), (1, 0), (0, 0), (0, 0)))[:, : groups + over]

    return _interleaved([row(at) for at in range(_ROWS)])[:, 1 : height + 1]


def to_kernel(sums: Sums, derivatives: Sums) -> jax.Array:
    """Derivative by the kernel, Float[3, 3, I, O], from `input_sums` and `result_sums`."""
    found = [_to_taps(x, y) for x, y in zip(sums, derivatives, strict=True)]
    return jnp.stack([_sum(factors, found) for factors in _KERNEL.T])


def _kernel_sums(kernel: jax.Array) -> list[jax.Array]:
    return [_stored(_sum(factors, [kernel[0], kernel[1], kernel[2]])) for factors in _KERNEL]


def _along_width(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """Convolve Float[B, H, W, I] with Float[3, I, O], each row for itself."""
    rows = x.reshape(-1, *x.shape[2:])
    y = lax.conv_general_dilated(rows, kernel, (1,), ((1, 1),), dimension_numbers=_ALONG)
    return y.reshape(*x.shape[:-1], kernel.shape[-1])


_ALONG = ("NWC", "WIO", "NWC")


def _to_taps(x: jax.Array, y: jax.Array) -> jax.Array:
    """Derivative by the kernel of `_along_width`, one product for the three taps."""
    c_in, width, c_out = x.shape[-1], *y.shape[2:]
    beyond = jnp.pad(y, ((0, 0), (0, 0), (1, 1), (0, 0)))
    moved = jnp.concatenate([beyond[:, :, at : at + width] for at in (2, 1, 0)], axis=-1)
    product = x.reshape(-1, c_in).T @ moved.reshape(-1, 3 * c_out)
    return product.reshape(c_in, 3, c_out).swapaxes(0, 1)


def _sum(factors: np.ndarray, parts: Sequence[jax.Array]) -> jax.Array:
    terms = [
        part if factor == 1 else part * np.asarray(factor, part.dtype)
        for factor, part in zip(factors, parts, strict=True)
        if factor
    ]
    return sum(terms[1:], terms[0])


def _grouped(x: jax.Array) -> jax.Array:
    """Float[B, H, W, C] as groups of four rows, Float[B, ceil(H / 4), 4, W, C]; zeros follow."""
    batch, height, *rest = x.shape
    groups = -(-height // _ROWS)
    padded = jnp.pad(x, ((0, 0), (0, _ROWS * groups - height), (0, 0), (0, 0)))
    return _stored(padded).reshape(batch, groups, _ROWS, *rest)


def _interleaved(rows: Sequence[jax.Array]) -> jax.Array:
    batch, groups, *rest = rows[0].shape
    return jnp.stack(rows, axis=2).reshape(batch, groups * len(rows), *rest)


def _stored(x: jax.Array) -> jax.Array:
    """Keep x as an array of memory: what reads it several times would else compute it as often."""
    stored: jax.Array = lax.optimization_barrier(x)  # type: ignore[no-untyped-call]
    return stored
