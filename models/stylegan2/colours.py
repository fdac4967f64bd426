"""Colours of pixels: the few channels that are shown of the many that images are computed in."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from qdgs_jax.models.backend import target_backend
from qdgs_jax.models.side_by_side import side_by_side
from qdgs_jax.models.stylegan2.activations import Pixels


def planes(x: Pixels, kernel: jax.Array) -> jax.Array:
    """Few channels of every pixel: Float[B, P, H, W], float32.

    It has a reverse derivative of its own and therefore no forward one (`jax.jvp`).

    Args:
        x: pixels of C channels.
        kernel: Float[C, P], multiplied in the type of `x`.
    """
    project = functools.partial(_project_folded, x.shifted) if x.folded else _project
    return project(x.values, kernel.astype(x.values.dtype)).astype(jnp.float32)


@jax.custom_vjp
def _project(values: jax.Array, kernel: jax.Array) -> jax.Array:
    """Products Float[B, P, H, W] of pixels Float[B, H, W, C] with Float[C, P]."""
    if target_backend() == "gpu":
        # Few sums are taken while pixels are made; the barrier has all of them taken at once.
        products = (values.astype(jnp.float32) * each.astype(jnp.float32) for each in kernel.T)
        sums = [jnp.sum(each, axis=-1) for each in products]
        found = lax.optimization_barrier(sums)  # type: ignore[no-untyped-call]
        return jnp.stack(found, axis=1)
    return (values @ kernel).transpose(0, 3, 1, 2)


def _project_forward(
    values: jax.Array, kernel: jax.Array
) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    return _project(values, kernel), (values, kernel)


def _project_backward(
    kept: tuple[jax.Array, jax.Array], to_y: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Pull back by a convolution, for what follows it to become part of it."""
    values, kernel = kept

    def one(kernel: jax.Array, to_y: jax.Array) -> jax.Array:
        if target_backend() == "gpu":
            pairs = zip(jnp.unstack(to_y, axis=1), kernel.T, strict=True)
            products = [y[..., None].astype(jnp.float32) * each for y, each in pairs]
            return functools.reduce(jnp.add, products).astype(kernel.dtype)
        return jnp.einsum("bphw,cp->bhwc", to_y, kernel)

    def several(kernel: jax.Array, to_y: jax.Array) -> jax.Array:
        return _correlated_beside(kernel.T[None, None], to_y, 1, 0)

    to_values = side_by_side(one, several)(kernel, to_y)
    return to_values, jnp.einsum("bphw,bhwc->cp", to_y, values).astype(kernel.dtype)


_project.defvjp(_project_forward, _project_backward)


def _correlated_beside(kernel: jax.Array, to_y: jax.Array, stride: int, pad: int) -> jax.Array:
    """Derivatives Float[B, n, P, H, W] with a kernel Float[h, w, P, C]: Float[B, n, H', W', C]."""
    return lax.conv_general_dilated(
        jnp.moveaxis(to_y, 1, 2),
        kernel[None],
        (1, stride, stride),
        ((0, 0), (pad, pad), (pad, pad)),
        dimension_numbers=("NCDHW", "DHWIO", "NDHWC"),
    )


def _places(squares: int, shifted: bool) -> np.ndarray:
    """Which pixel of an axis is the first or second one of which square: Float[pixels, squares, 2].

    Putting three channels in their places is a product on machines that are bad at everything else.
    """
    both = np.eye(2 * squares, dtype=np.float32).reshape(2 * squares, squares, 2)
    return both[1:-1] if shifted else both


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _project_folded(shifted: bool, values: jax.Array, kernel: jax.Array) -> jax.Array:
    """Products Float[B, P, 2 H, 2 W] of folded pixels Float[B, H, W, 4 C] with Float[C, P]."""
    return _put_in_places(shifted, values, kernel)


def _put_in_places(shifted: bool, values: jax.Array, kernel: jax.Array) -> jax.Array:
    """`_project_folded`, which puts results in their places instead of pixels."""
    batch, height, width, _ = values.shape
    channels, count = kernel.shape
    split = _project(values, _for_each(kernel, "qcrp").reshape(4 * channels, 4 * count))
    split = split.reshape(batch, 2, 2, count, height, width)
    rows, columns = (_places(squares, shifted).astype(split.dtype) for squares in (height, width))
    # Each number times one and all others times nothing: exact in bfloat16, too.
    precision = lax.Precision.DEFAULT if split.dtype == jnp.bfloat16 else lax.Precision.HIGHEST
    return jnp.einsum("yhs,bstphw,xwt->bpyx", rows, split, columns, precision=precision)


def _for_each(kernel: jax.Array, axes: str) -> jax.Array:
    """A kernel Float[C, P] for each pixel of a square of four, and zeros between them.

    Args:
        kernel: it.
        axes: the order of the result's: pixels q with channels c, pixels r with colours p.
    """
    return jnp.einsum(f"qr,cp->{axes}", jnp.eye(4, dtype=kernel.dtype), kernel)


def _project_folded_forward(
    shifted: bool, values: jax.Array, kernel: jax.Array
) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    return _project_folded(shifted, values, kernel), (values, kernel)


def _project_folded_backward(
    shifted: bool, kept: tuple[jax.Array, jax.Array], to_y: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Pull back by a convolution with strides of two, which folds while it multiplies."""
    values, kernel = kept
    channels, count = kernel.shape
    pad = int(shifted)

    def one(back: jax.Array, to_y: jax.Array) -> jax.Array:
        return several(back, to_y[:, None])[:, 0]

    def several(back: jax.Array, to_y: jax.Array) -> jax.Array:
        return _correlated_beside(back, to_y, 2, pad)

    back = _for_each(kernel, "rpqc").reshape(2, 2, count, 4 * channels)
    to_values = side_by_side(one, several)(back, to_y.astype(back.dtype))
    _, by_kernel = jax.vjp(functools.partial(_put_in_places, shifted, values), kernel)
    return to_values, *by_kernel(to_y)


_project_folded.defvjp(_project_folded_forward, _project_folded_backward)
