"""An upsampling layer of StyleGAN2 as one operation, on machines that fold pixels.

Its result is folded while it is computed, since whatever acts on pixels alone then joins the
convolution, and its derivative is not, since it then takes fewer products and is never moved.
"""

from __future__ import annotations

import functools

import jax
from jax.typing import DTypeLike

from qdgs_jax.models.backend import target_backend
from qdgs_jax.models.stylegan2.activations import Layer, Pixels, fold
from qdgs_jax.models.stylegan2.kernels import Kernel, merged_kernel, pulling_kernel
from qdgs_jax.models.stylegan2.resample import by_kernel, convolve, pulled

_Kept = tuple[jax.Array, jax.Array, jax.Array, Layer, Pixels]
_SAME = ((1, 1), (1, 1))


def up_layer_kernel(kernel: jax.Array, dtype: DTypeLike) -> Kernel:
    """A kernel Float[3, 3, I, O] as an upsampling layer multiplies it, in both directions."""
    return Kernel(merged_kernel(kernel, dtype), pulling_kernel(kernel, dtype))


def convolve_up_and_activate(
    x: jax.Array,
    kernel: jax.Array | Kernel,
    layer: Layer,
    gain: float,
    clamp: float | None,
    noise: jax.Array | None = None,
) -> tuple[jax.Array, ...]:
    """`convolve_up`, then `Layer.activate`: Float[B, 2H, 2W, O] for each of the layer's styles.

    It keeps the convolution's result alone for its derivative, and has no forward one (`jax.jvp`).

    Args:
        x: pixels Float[B, H, W, I].
        kernel: Float[3, 3, I, O], as `convolve_up` takes it, or what `up_layer_kernel` makes of it.
        layer: what follows, unfolded.
        gain: of the rectifier.
        clamp: its limit, or None.
        noise: the layer's, as folded pixels lay it out, if that is at hand.
    """
    if not isinstance(kernel, Kernel):
        kernel = up_layer_kernel(kernel, x.dtype)
    return _up_layer(x, kernel.array, kernel.back, layer, noise, gain, clamp)


@functools.partial(jax.custom_vjp, nondiff_argnums=(5, 6))
def _up_layer(
    x: jax.Array,
    kernel: jax.Array,
    back: jax.Array,
    layer: Layer,
    noise: jax.Array | None,
    gain: float,
    clamp: float | None,
) -> tuple[jax.Array, ...]:
    return _forward(x, kernel, back, layer, noise, gain, clamp)[0]


def _forward(
    x: jax.Array,
    kernel: jax.Array,
    back: jax.Array,
    layer: Layer,
    noise: jax.Array | None,
    gain: float,
    clamp: float | None,
) -> tuple[tuple[jax.Array, ...], _Kept]:
    y = Pixels(convolve(x, kernel, _SAME), folded=True)
    results = layer.laid_out_as(y, noise).activate(y.values, gain, clamp)
    found = tuple(y.replace(values=values).unfold() for values in results)
    if target_backend() == "gpu":  # where moving them is part of what is done above
        y = Pixels(y.unfold())
    return found, (x, kernel, back, layer, y)


def _backward(
    gain: float,
    clamp: float | None,
    kept: _Kept,
    to_results: tuple[jax.Array, ...],
) -> tuple[jax.Array, jax.Array, None, Layer, None]:
    """Pull back by one convolution with strides of two, of whose 36 products none is wasted."""
    x, kernel, back, layer, y = kept
    to_layer, to_y = layer.pull(y.unfold(), to_results, gain, clamp)
    to_x = pulled(to_y, back, (2, 2), ((2, 2), (2, 2)))
    return to_x, by_kernel(x, kernel, fold(to_y), _SAME), None, to_layer, None


_up_layer.defvjp(_forward, _backward)
