"""Twofold upsampling of StyleGAN2: a 3x3 convolution, or an image, to twice the resolution.

StyleGAN2 (Karras et al. 2020, arXiv:1912.04958, appendix B) upsamples inside a layer: zeros are
put between the pixels, a 3x3 kernel is convolved over them, and the binomial filter [1, 3, 3, 1]
smooths the result. All of this is linear, so it can be ordered in several ways that give the same
numbers for very different work; `UPSAMPLERS` names them, and `convolve_up` takes the one that is
fastest on the backend at hand. Arrays are NHWC, kernels HWIO.

Positions along one axis: zeros inserted, input pixel i stands at 2i; the full convolution with
kernel k has 2H + 1 values u[2i + a] += x[i] k[a]; the filter f turns them into the 2H outputs
y[n] = f[0] u[n-1] + f[1] u[n] + f[2] u[n+1] + f[3] u[n+2], u being zero outside.

Kernels are given in float32; they are multiplied in the type of the pixels.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from qdgs_jax.models.backend import target_backend
from qdgs_jax.models.convolution import turned_round
from qdgs_jax.models.side_by_side import side_by_side
from qdgs_jax.models.stylegan2.activations import Pixels
from qdgs_jax.models.stylegan2.kernels import (
    FILTER,
    Kernel,
    Phases,
    folded_kernel,
    merged_kernel,
    phase_taps,
    phases_kernel,
)

_DIMENSIONS = ("NHWC", "HWIO", "NHWC")
_Padding = tuple[tuple[int, int], tuple[int, int]]


def convolve(
    x: jax.Array, kernel: jax.Array | Kernel, padding: str | _Padding = "SAME"
) -> jax.Array:
    """Cross-correlate Float[B, H, W, I] with Float[h, w, I, O]: Float[B, H', W', O].

    It has a reverse derivative of its own and therefore no forward one (`jax.jvp`).
    """
    back = kernel.back if isinstance(kernel, Kernel) else None
    if isinstance(kernel, Kernel):
        kernel = kernel.array
    height, width = kernel.shape[:2]
    if not isinstance(padding, str):
        pads = padding
    elif padding == "SAME":
        pads = ((height - 1) // 2, height // 2), ((width - 1) // 2, width // 2)
    else:
        pads = (0, 0), (0, 0)
    if height == width == 1 and pads == ((0, 0), (0, 0)):
        return x @ kernel[0, 0]
    return _correlate(x, kernel, back, pads)


@functools.partial(jax.custom_vjp, nondiff_argnums=(3,))
def _correlate(
    x: jax.Array, kernel: jax.Array, back: jax.Array | None, padding: _Padding
) -> jax.Array:
    return lax.conv_general_dilated(x, kernel, (1, 1), padding, dimension_numbers=_DIMENSIONS)


_Kept = tuple[jax.Array, jax.Array, jax.Array | None]


def _correlate_forward(
    x: jax.Array, kernel: jax.Array, back: jax.Array | None, padding: _Padding
) -> tuple[jax.Array, _Kept]:
    return _correlate(x, kernel, back, padding), (x, kernel, back)


def _correlate_backward(
    padding: _Padding, kept: _Kept, y: jax.Array
) -> tuple[jax.Array, jax.Array, None]:
    """Pull back by a convolution with the kernel turned round."""
    x, kernel, back = kept
    (top, bottom), (left, right) = padding
    height, width = kernel.shape[0] - 1, kernel.shape[1] - 1
    beyond = (height - top, height - bottom), (width - left, width - right)
    to_x = pulled(y, turned_round(kernel) if back is None else back, (1, 1), beyond)
    return to_x, by_kernel(x, kernel, y, padding), None


def by_kernel(x: jax.Array, kernel: jax.Array, y: jax.Array, padding: _Padding) -> jax.Array:
    """Derivatives by the kernel of a correlation of x, of those by its result."""
    (to_kernel,) = jax.linear_transpose(
        lambda kernel: lax.conv_general_dilated(
            x, kernel, (1, 1), padding, dimension_numbers=_DIMENSIONS
        ),
        kernel,
    )(y)
    return to_kernel


def pulled(
    y: jax.Array, kernel: jax.Array, strides: tuple[int, int], padding: _Padding
) -> jax.Array:
    """Correlate a derivative Float[B, H, W, O] with Float[h, w, O, I]."""

    def one(kernel: jax.Array, y: jax.Array) -> jax.Array:
        return lax.conv_general_dilated(y, kernel, strides, padding, dimension_numbers=_DIMENSIONS)

    def several(kernel: jax.Array, y: jax.Array) -> jax.Array:
        return lax.conv_general_dilated(
            y,
            kernel[None],
            (1, *strides),
            ((0, 0), *padding),
            dimension_numbers=("NDHWC", "DHWIO", "NDHWC"),
        )

    found = side_by_side(one, several)(kernel, y)
    if target_backend() == "tpu":
        return found
    # The barrier keeps XLA from storing bfloat16 results as the float32 that they become later.
    return lax.optimization_barrier(found)  # type: ignore[no-untyped-call]


_correlate.defvjp(_correlate_forward, _correlate_backward)


def convolve_up(x: Pixels, kernel: jax.Array | Kernel, method: str = "auto") -> Pixels:
    """Upsample by two, convolve with a 3x3 kernel and smooth: pixels Float[B, 2H, 2W, O].

    Args:
        x: pixels Float[B, H, W, I].
        kernel: Float[3, 3, I, O], applied as a true convolution (as the transposed convolution of
            the original code does), not as a cross-correlation; or the form that "phases" or
            "subpixel" makes of it.
        method: a key of `UPSAMPLERS`, or "auto" for the fastest on the backend that this is traced
            for. All give the same result up to rounding; "subpixel" leaves its pixels folded.
            "phases", the fastest on a CPU, and "subpixel" have reverse derivatives of their own and
            therefore no forward ones (`jax.jvp`).
    """
    return UPSAMPLERS[resolved(method)](x.unfold(), kernel)


def resolved(method: str) -> str:
    """A way to upsample; for "auto" the fastest on the backend that this is traced for."""
    return FASTEST.get(target_backend(), "subpixel") if method == "auto" else method


def convolve_folded(x: Pixels, kernel: jax.Array | Kernel) -> Pixels:
    """Convolve folded pixels with a 3x3 kernel, as `convolve` does: Float[B, H, W, O], shifted.

    Squares of the result begin one pixel before those of x, so that each depends on two by two of
    them: 16 products per pixel and pair of channels, of which 9 are not with zeros.

    Args:
        x: pixels Float[B, H, W, I], folded and not shifted.
        kernel: Float[3, 3, I, O], or folded.
    """
    if not isinstance(kernel, Kernel):
        kernel = Kernel(folded_kernel(kernel, x.values.dtype))
    return Pixels(convolve(x.values, kernel, ((1, 1), (1, 1))), folded=True, shifted=True)


def smooth_up(image: jax.Array, axes: tuple[int, int]) -> jax.Array:
    """Upsample two axes of length L by two with the binomial filter.

    The zeros between pixels are never made: even and odd outputs are (x[i-1] + 3 x[i]) / 4 and
    (3 x[i] + x[i+1]) / 4. As products with a banded matrix they suit every machine.
    """
    # The filter is exact in bfloat16. Three products take 16 bits of the image on a TPU, six all.
    wanted = jax.config.jax_default_matmul_precision  # type: ignore[attr-defined]
    three = target_backend() == "tpu" and wanted != "highest"
    precision = lax.Precision.HIGH if three else lax.Precision.HIGHEST
    for axis in axes:
        size = image.shape[axis]
        band = np.zeros((2 * size + 2, size), np.float32)
        for start in range(size):
            band[2 * start : 2 * start + 4, start] = FILTER
        taps = jnp.asarray(band[1:-1], image.dtype)
        product = jnp.tensordot(taps, image, (1, axis), precision=precision)
        image = jnp.moveaxis(product, 0, axis)
    return image


def _window(x: jax.Array, axis: int, start: int, size: int) -> jax.Array:
    return lax.slice_in_dim(x, start, start + size, axis=axis)


def _interleave(even: jax.Array, odd: jax.Array, axis: int) -> jax.Array:
    shape = list(even.shape)
    shape[axis] *= 2
    return jnp.stack((even, odd), axis + 1).reshape(shape)


def _smooth(u: jax.Array, padding: int) -> jax.Array:
    """Filter along both axes; an axis of length L becomes L + 2 * padding - 3."""
    for axis in (1, 2):
        size = u.shape[axis] + 2 * padding - 3
        padded = jnp.pad(u, [(padding, padding) if a == axis else (0, 0) for a in range(4)])
        u = sum(
            (tap * _window(padded, axis, start, size) for start, tap in enumerate(FILTER)),
            start=jnp.zeros((), u.dtype),
        )
    return u


def _transposed(x: jax.Array, kernel: jax.Array) -> Pixels:
    """Convolve transposed, then filter at full resolution: 9 products per input pixel."""
    u = lax.conv_general_dilated(
        x,
        kernel[::-1, ::-1].astype(x.dtype),
        (1, 1),
        ((2, 2), (2, 2)),
        lhs_dilation=(2, 2),
        dimension_numbers=_DIMENSIONS,
    )
    return Pixels(_smooth(u, 1))


def _smooth_phases(even: jax.Array, odd: jax.Array, axis: int) -> tuple[jax.Array, jax.Array]:
    """Filter u given as its even values (H + 1) and its odd ones with zeros around them (H + 2)."""
    size = even.shape[axis] - 1
    even_0, even_1 = (_window(even, axis, start, size) for start in range(2))
    odd_0, odd_1, odd_2 = (_window(odd, axis, start, size) for start in range(3))
    f = FILTER
    return (
        f[0] * odd_0 + f[1] * even_0 + f[2] * odd_1 + f[3] * even_1,
        f[0] * even_0 + f[1] * odd_1 + f[2] * even_1 + f[3] * odd_2,
    )


@jax.custom_vjp
def _convolve_phases(x: jax.Array, taps: Phases, back: jax.Array) -> Phases:
    """Convolve transposed by two.

    Padding by one gives the filter that follows its zeros for free: even phases have H + 1 values,
    odd ones H + 2.
    """
    return [[convolve(x, each, ((1, 1), (1, 1))) for each in row] for row in taps]


def _convolve_phases_forward(
    x: jax.Array, taps: Phases, back: jax.Array
) -> tuple[Phases, tuple[jax.Array, jax.Array]]:
    return _convolve_phases(x, taps, back), (x, back)


def _convolve_phases_backward(
    kept: tuple[jax.Array, jax.Array], phases: Phases
) -> tuple[jax.Array, Phases, None]:
    """Pull back by one matrix product for all nine taps.

    The four transposed convolutions that differentiation would make run at a third of the rate on
    a CPU, because their sides are odd.
    """
    x, back = kept
    _, height, width, c_in = x.shape
    taps = [(row, column) for row in range(3) for column in range(3)]
    fed = [  # the outputs that each tap fed
        phases[row % 2][column % 2][:, (row > 0) :, (column > 0) :][:, :height, :width]
        for row, column in taps
    ]
    outputs = jnp.concatenate(fed, axis=-1).reshape(-1, len(back))
    to_x = outputs @ back
    to_kernel = (outputs.T @ x.reshape(-1, c_in)).reshape(3, 3, -1, c_in)
    return to_x.reshape(x.shape), phase_taps(to_kernel.swapaxes(2, 3)), None


_convolve_phases.defvjp(_convolve_phases_forward, _convolve_phases_backward)


def _phases(x: jax.Array, kernel: jax.Array | Kernel) -> Pixels:
    """Split the transposed convolution into four dense ones, one per phase: also 9 products."""
    if not isinstance(kernel, Kernel):
        kernel = phases_kernel(kernel, x.dtype)
    rows = _convolve_phases(x, kernel.forward, kernel.back)
    by_column = [_smooth_phases(rows[0][c], rows[1][c], axis=1) for c in range(2)]
    # Without the barrier the filter along rows is recomputed for each of its uses.
    by_column = lax.optimization_barrier(by_column)  # type: ignore[no-untyped-call]
    upper, lower = (
        _interleave(*_smooth_phases(by_column[0][r], by_column[1][r], axis=2), axis=2)
        for r in range(2)
    )
    return Pixels(_interleave(upper, lower, axis=1))


def _subpixel(x: jax.Array, kernel: jax.Array | Kernel) -> Pixels:
    """Merge kernel and filter into one 3x3 convolution to 4 O channels: 36 products, one pass."""
    if not isinstance(kernel, Kernel):
        kernel = Kernel(merged_kernel(kernel, x.dtype))
    return Pixels(convolve(x, kernel), folded=True)


def _resize(x: jax.Array, kernel: jax.Array) -> Pixels:
    """Smooth first, then an ordinary 3x3 convolution at full resolution: 36 products."""
    zero = jnp.zeros_like(x)
    spread = _interleave(_interleave(x, zero, axis=2), _interleave(zero, zero, axis=2), axis=1)
    # The filter reaches beyond the border, and the kernel sees that: 2H + 2 values, no padding.
    turned = kernel[::-1, ::-1].astype(x.dtype)
    return Pixels(convolve(_smooth(spread[:, :-1, :-1], 3), turned, ((0, 0), (0, 0))))


UPSAMPLERS: Mapping[str, Callable[[jax.Array, Any], Pixels]] = {
    "phases": _phases,
    "transposed": _transposed,
    "subpixel": _subpixel,
    "resize": _resize,
}

FASTEST: Mapping[str, str] = {"cpu": "phases"}
