"""An upsampling layer of StyleGAN2 as one operation, on machines that fold pixels.

Its result is folded while it is computed, since whatever acts on pixels alone then joins the
convolution, and its derivative is not, since it then takes fewer products and is never moved.
"""

from __future__ import annotations

import functools

import jax

from qdgs_jax.models.stylegan2.activations import Layer, Pixels, fold
from qdgs_jax.models.stylegan2.resample import convolve_up, pull_up

Pulled = tuple[jax.Array, jax.Array, Layer]


@functools.partial(jax.custom_vjp, nondiff_argnums=(3, 4))
def convolve_up_and_activate(
    x: jax.Array, kernel: jax.Array, layer: Layer, gain: float, clamp: float | None
) -> tuple[jax.Array, ...]:
    """`convolve_up`, then `Layer.activate`: Float[B, 2H, 2W, O] for each of the layer's styles.

    It keeps the convolution's result alone for its derivative, and has no forward one (`jax.jvp`).

    Args:
        x: pixels Float[B, H, W, I].
        kernel: Float[3, 3, I, O], as `convolve_up` takes it.
        layer: what follows, unfolded.
        gain: of the rectifier.
        clamp: its limit, or None.
    """
    return _forward(x, kernel, layer, gain, clamp)[0]


def _forward(
    x: jax.Array, kernel: jax.Array, layer: Layer, gain: float, clamp: float | None
) -> tuple[tuple[jax.Array, ...], tuple[jax.Array, jax.Array, Layer, Pixels]]:
    y = convolve_up(Pixels(x), kernel, "subpixel")
    results = layer.laid_out_as(y).activate(y.values, gain, clamp)
    found = tuple(y.replace(values=values).unfold() for values in results)
    return found, (x, kernel, layer, y)


def _backward(
    gain: float,
    clamp: float | None,
    kept: tuple[jax.Array, jax.Array, Layer, Pixels],
    to_results: tuple[jax.Array, ...],
) -> Pulled:
    x, kernel, layer, y = kept
    to_layer, to_y = layer.pull(y.unfold(), to_results, gain, clamp)
    by_kernel = jax.vjp(lambda kernel: convolve_up(Pixels(x), kernel, "subpixel").values, kernel)[1]
    return pull_up(to_y, kernel), by_kernel(fold(to_y))[0], to_layer


convolve_up_and_activate.defvjp(_forward, _backward)
