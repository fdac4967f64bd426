"""Kernels of StyleGAN2's convolutions in the forms that they are multiplied in.

Weights are stored as the original programs store them. What is multiplied is made of them: in
another type, turned round to pull derivatives back, merged with the filter that follows it. None of
it depends on the images, so a search has it made once for all of its steps.
"""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
from flax.struct import PyTreeNode
from jax.typing import DTypeLike

FILTER = (0.25, 0.75, 0.75, 0.25)  # [1, 3, 3, 1] / 8 per axis, times 2 for the inserted zeros

Phases = list[list[jax.Array]]  # [row phase][column phase], even then odd


class Kernel(PyTreeNode):  # type: ignore[no-untyped-call]
    """A kernel Float[3, 3, I, O] as a convolution multiplies it.

    Attributes:
        forward: what images are multiplied with, of the form that the convolution takes.
        back: what derivatives are multiplied with, which is the same numbers in another order; None
            for the convolution to make it when it is needed. Derivatives by the kernel are those by
            `forward` alone.
    """

    forward: jax.Array | Phases
    back: jax.Array | None = None

    @property
    def array(self) -> jax.Array:
        """`forward` of a single convolution."""
        if isinstance(self.forward, list):
            raise AssertionError("a kernel in phases is that of four convolutions")
        return self.forward


def folded_kernel(kernel: jax.Array, dtype: DTypeLike) -> jax.Array:
    """A kernel for folded pixels whose results are shifted: Float[2, 2, 4 I, 4 O]."""
    c_in, c_out = kernel.shape[2:]
    split = _moved(kernel).reshape(2, 2, 2, 2, c_in, 4 * c_out)
    folded = split.transpose(0, 2, 1, 3, 4, 5).reshape(2, 2, 4 * c_in, 4 * c_out)
    return folded.astype(dtype)


def _moved(kernel: jax.Array) -> jax.Array:
    """A 3x3 kernel for each pixel of a square of four: Float[4, 4, I, 4 O]."""
    return jnp.concatenate(
        [
            jnp.pad(kernel, ((row, 1 - row), (column, 1 - column), (0, 0), (0, 0)))
            for row in range(2)
            for column in range(2)
        ],
        axis=-1,
    )


def phase_taps(kernel: jax.Array) -> Phases:
    """The taps Float[h, w, I, O] that make each phase of a transposed convolution by two.

    Even values of its result see taps 2 and 0, odd ones tap 1.
    """
    return [[rows[:, ::-2], rows[:, 1:2]] for rows in (kernel[::-2], kernel[1:2])]


def phases_kernel(kernel: jax.Array, dtype: DTypeLike) -> Kernel:
    """A kernel for the phases of a transposed convolution; one product pulls all of them back."""
    kernel = kernel.astype(dtype)
    back = kernel.swapaxes(2, 3).reshape(-1, kernel.shape[2])
    return Kernel(phase_taps(kernel), back)


def merged_kernel(kernel: jax.Array, dtype: DTypeLike) -> jax.Array:
    """Kernel and filter as one for pixels at half the resolution: Float[3, 3, I, 4 O].

    y[2i + p] = sum_t x[i + t - 1] K[2 (2 - t) + p], where K are the merged taps.
    """
    merged = _merged_taps(kernel)
    taps = [
        jnp.concatenate([merged[2 * t + p][2 * u + q] for p, q in np.ndindex(2, 2)], axis=-1)
        for t, u in np.ndindex(3, 3)
    ]
    return jnp.stack(taps[::-1]).reshape(3, 3, kernel.shape[2], -1).astype(dtype)


def pulling_kernel(kernel: jax.Array, dtype: DTypeLike) -> jax.Array:
    """Kernel and filter as one to pull derivatives back by strides of two: Float[6, 6, O, I]."""
    taps = jnp.stack([tap for row in _merged_taps(kernel) for tap in row])
    return taps.astype(dtype).swapaxes(1, 2).reshape(6, 6, *kernel.shape[:1:-1])


def _merged_taps(kernel: jax.Array) -> list[list[jax.Array]]:
    """Kernel and filter together: six by six taps Float[I, O] of a kernel Float[3, 3, I, O]."""
    rows = [_merged(kernel, 0, place) for place in range(6)]
    return [[_merged(row, 0, place) for place in range(6)] for row in rows]


def _merged(kernel: jax.Array, axis: int, place: int) -> jax.Array:
    """A tap of kernel and filter together, of six along an axis, which vanishes."""
    taps = [tap for tap in range(3) if 0 <= place - tap < 4]
    return functools.reduce(jnp.add, [FILTER[place - tap] * kernel.take(tap, axis) for tap in taps])
