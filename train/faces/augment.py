"""Augmentation of faces on the device: flip, crop with zero fill, low resolution, colour.

What is done is that of AdaFace (Kim et al. 2022, arXiv:2204.00964, section 4.1), each with a
probability of its own and in this order: a crop keeps its place and the rest of the picture turns
black; low resolution shrinks a picture and enlarges it again, each by one of two interpolations
(the original draws among five of OpenCV's); brightness, contrast and saturation change in a random
order. Numbers are drawn for a whole batch at once and belong to its rows, so that they are the same
however the batch is spread over devices. Pictures are Float[S, S, 3] in [0, 255], red first.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp

from qdgs_jax import keys
from qdgs_jax.train.faces.recipe import AugmentationTable

AREA = (0.2, 1.0)  # share of the picture that a crop keeps
LOG_RATIO = (math.log(3 / 4), math.log(4 / 3))  # of a crop's width to its height
SIDE = (0.2, 1.0)  # of a picture of low resolution
FACTOR = (0.5, 1.5)  # of brightness, contrast and saturation
GREY = (0.299, 0.587, 0.114)


class Changes(NamedTuple):
    """What is done to each picture of a batch.

    Attributes:
        flip: Bool[B].
        crop: Bool[B]; box Int[B, 4] has the first row and column that stay, and how many.
        low_resolution: Bool[B]; side Int[B] is what the picture is shrunk to, soft Bool[B, 2] says
            whether on the way down and up areas and lines are taken instead of the nearest pixel.
        colour: Bool[B]; factors Float[B, 3] of brightness, contrast and saturation, and order
            Int[B, 3], which of them comes first, second and third.
    """

    flip: jax.Array
    crop: jax.Array
    box: jax.Array
    low_resolution: jax.Array
    side: jax.Array
    soft: jax.Array
    colour: jax.Array
    factors: jax.Array
    order: jax.Array


def draw_changes(key: jax.Array, count: int, size: int, table: AugmentationTable) -> Changes:
    """Draw what is done to `count` pictures of `size` pixels a side."""

    def uniform(name: str, low: float = 0.0, high: float = 1.0, width: int = 0) -> jax.Array:
        shape = (count, width) if width else (count,)
        return jax.random.uniform(keys.stream(key, name), shape, minval=low, maxval=high)

    area, ratio = size**2 * uniform("area", *AREA), jnp.exp(uniform("ratio", *LOG_RATIO))
    sides = jnp.sqrt(jnp.stack([area / ratio, area * ratio], axis=1))
    sides = jnp.clip(jnp.round(sides), 1, size).astype(jnp.int32)
    # A uniform number never reaches 1 and its product is cut: the last place is size - side.
    starts = (uniform("place", width=2) * (size + 1 - sides)).astype(jnp.int32)
    side = jnp.clip((size * uniform("side", *SIDE)).astype(jnp.int32), 1, size)
    return Changes(
        flip=uniform("flip") < table.flip,
        crop=uniform("crop") < table.crop,
        box=jnp.concatenate([jnp.minimum(starts, size - sides), sides], axis=1),
        low_resolution=uniform("low_resolution") < table.low_resolution,
        side=side,
        soft=uniform("soft", width=2) < 0.5,
        colour=uniform("colour") < table.colour,
        factors=uniform("factors", *FACTOR, width=3),
        order=jnp.argsort(uniform("order", width=3), axis=1),
    )


def augment(images: jax.Array, key: jax.Array, table: AugmentationTable) -> jax.Array:
    """Augment pictures UInt8[B, S, S, 3]: Float[B, S, S, 3] in [0, 255].

    What no picture is to have (probability 0) costs nothing.
    """
    changes = draw_changes(key, len(images), images.shape[1], table)

    def one(image: jax.Array, change: Changes) -> jax.Array:
        image = jnp.where(change.flip, image[:, ::-1], image)
        if table.crop:
            image = jnp.where(change.crop, keep_box(image, change.box), image)
        if table.low_resolution:
            coarse = lower_resolution(image, change.side, change.soft)
            image = jnp.where(change.low_resolution, coarse, image)
        if table.colour:
            jittered = change_colours(image, change.factors, change.order)
            image = jnp.where(change.colour, jittered, image)
        return image

    return jax.vmap(one)(images.astype(jnp.float32), changes)


def keep_box(image: jax.Array, box: jax.Array) -> jax.Array:
    """A picture that is black outside of box Int[4]: first row, first column, height, width."""
    inside = [
        (jnp.arange(side) >= start) & (jnp.arange(side) < start + length)
        for side, start, length in zip(image.shape[:2], box[:2], box[2:], strict=True)
    ]
    return jnp.where((inside[0][:, None] & inside[1])[..., None], image, 0.0)


def lower_resolution(image: jax.Array, side: jax.Array, soft: jax.Array) -> jax.Array:
    """Shrink a picture to Int[] pixels a side and enlarge it again.

    Both are one matrix along each axis, whose shape does not depend on the number of pixels.
    """
    size = image.shape[0]
    small, large = jnp.arange(size)[:, None], jnp.arange(size)
    scale = size / side
    overlap = jnp.minimum((small + 1) * scale, large + 1) - jnp.maximum(small * scale, large)
    areas = jnp.clip(overlap, 0.0) / scale
    # In integers: rounding must not take another pixel.
    nearest_down = (small * size // side == large).astype(jnp.float32)
    down = jnp.where(small < side, jnp.where(soft[0], areas, nearest_down), 0.0)

    place = jnp.clip((large[:, None] + 0.5) / scale - 0.5, 0.0, side - 1.0)
    lines = jnp.clip(1.0 - jnp.abs(place - large), 0.0)
    nearest_up = (large[:, None] * side // size == large).astype(jnp.float32)
    both = jnp.where(soft[1], lines, nearest_up) @ down
    return jnp.einsum("ij,jkc,lk->ilc", both, image, both)


def change_colours(image: jax.Array, factors: jax.Array, order: jax.Array) -> jax.Array:
    """Change brightness, contrast and saturation by factors Float[3], in an order Int[3].

    Each blends the picture with another one: black, the mean of its greys, its greys; values beyond
    [0, 255] are cut after each.
    """
    for place in range(len(GREY)):
        which = order[place]
        grey = (image * jnp.asarray(GREY)).sum(axis=-1, keepdims=True)
        other = jnp.where(which == 0, 0.0, jnp.where(which == 1, grey.mean(), grey))
        factor = factors[which]
        image = jnp.clip(factor * image + (1.0 - factor) * other, 0.0, 255.0)
    return image
