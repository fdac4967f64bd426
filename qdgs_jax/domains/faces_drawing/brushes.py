"""Brushes: distances to shapes, soft edges, ramps and palettes, for one picture at a time.

A shape is a distance in face units, negative inside; `edge` turns it into anti-aliased coverage.
Colours are Float[3]; a canvas is Float[3, H, W], planes first, so that the innermost loop is long.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

# Monk's ten tones, from https://skintone.google, as sRGB.
MONK = np.array(
    [
        [246, 237, 228],
        [243, 231, 219],
        [247, 234, 208],
        [234, 218, 186],
        [215, 189, 150],
        [160, 126, 86],
        [130, 92, 67],
        [96, 65, 52],
        [58, 49, 42],
        [41, 36, 32],
    ],
    np.float32,
) / np.float32(255)
HAIR_COLOURS = np.array(
    [
        [0.09, 0.08, 0.09],
        [0.20, 0.13, 0.10],
        [0.36, 0.23, 0.14],
        [0.50, 0.25, 0.13],
        [0.72, 0.54, 0.31],
        [0.88, 0.76, 0.50],
    ],
    np.float32,
)
GREY_HAIR = np.array([0.70, 0.70, 0.71], np.float32)
IRIS_COLOURS = np.array(
    [[0.17, 0.10, 0.07], [0.36, 0.21, 0.11], [0.37, 0.42, 0.22], [0.28, 0.48, 0.66]], np.float32
)


def edge(distance: jax.Array, pixel: jax.Array) -> jax.Array:
    """Coverage in [0, 1] of what lies inside, anti-aliased over a pixel's width."""
    return jnp.clip(0.5 - distance / pixel, 0.0, 1.0)


def ramp(values: jax.Array, low: jax.Array | float, high: jax.Array | float) -> jax.Array:
    """Smooth step from 0 at `low` to 1 at `high`, which may lie below `low`."""
    t = jnp.clip((values - low) / (high - low), 0.0, 1.0)
    return t * t * (3.0 - 2.0 * t)


def bump(values: jax.Array, width: jax.Array | float) -> jax.Array:
    """A smooth hill of height 1 at 0 that ends at ± width."""
    t = jnp.clip(1.0 - (values / width) ** 2, 0.0, 1.0)
    return t * t


def spot(
    x: jax.Array, y: jax.Array, width: jax.Array | float, height: jax.Array | float
) -> jax.Array:
    """A smooth round hill of height 1 at the origin that ends at an ellipse."""
    t = jnp.clip(1.0 - (x / width) ** 2 - (y / height) ** 2, 0.0, 1.0)
    return t * t


def ellipse(
    x: jax.Array, y: jax.Array, width: jax.Array | float, height: jax.Array | float
) -> jax.Array:
    """Distance to an ellipse of half axes `width` and `height`, exact to first order."""
    u, v = x / width, y / height
    k = jnp.sqrt(u * u + v * v) + 1e-6
    slope = jnp.sqrt((u / width) ** 2 + (v / height) ** 2) + 1e-6
    return k * (k - 1.0) / slope


def paint(
    canvas: jax.Array, colour: jax.Array, alpha: jax.Array, opacity: jax.Array | float = 1.0
) -> jax.Array:
    """Lay a colour Float[3], or a plane per channel Float[3, H, W], over a canvas."""
    planes = colour[:, None, None] if colour.ndim == 1 else colour
    return canvas + (alpha * opacity) * (planes - canvas)


def mix(first: jax.Array, second: jax.Array, share: jax.Array | float) -> jax.Array:
    """`first` with a share of `second`."""
    return first + share * (second - first)


def along(palette: np.ndarray, position: jax.Array) -> jax.Array:
    """Colour at a position in [0, 1] of a palette Float[K, 3], interpolated: Float[3]."""
    weights = jnp.clip(
        1.0 - jnp.abs(position * (len(palette) - 1) - jnp.arange(len(palette))), 0.0, 1.0
    )
    return weights @ jnp.asarray(palette)
