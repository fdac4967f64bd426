"""Procedural shapes: the ground truth of the embedded weights, the classifier data and the tests.

Every shape is one formula, so that a batch is drawn by a handful of array operations inside `jit`:
the plane is folded into a wedge of `n` mirrored sectors, in which the outline is a straight line
from a tip (the circumradius) to a notch (`notch` times the circumradius). A regular polygon has its
notch at `cos(pi / n)`, a star below that; an aspect ratio makes the rhombus. Edges are
anti-aliased, a Gaussian blur is one more parameter of the scene. Images are NHWC in [0, 1].
"""

from __future__ import annotations

import functools
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from qdgs_jax import keys

SHAPES = ("triangle", "square", "diamond", "circle", "pentagon", "star")
COLOURS = ("red", "green", "blue", "yellow", "orange", "purple", "cyan", "pink", "black")
KINDS = ("clean", "blurred", "blended", "broken", "splatter")

_ROUND = 64  # sectors enough to pass for a smooth curve
_SECTORS = np.array([3, 4, 4, _ROUND, 5, 5], np.float32)
_NOTCH = np.array([*(math.cos(math.pi / n) for n in (3, 4, 4, _ROUND, 5)), 0.42], np.float32)
_ASPECT = np.array([1.0, 1.0, 0.55, 1.0, 1.0, 1.0], np.float32)
PALETTE = np.array(
    [
        [0.86, 0.10, 0.12],
        [0.10, 0.62, 0.20],
        [0.12, 0.28, 0.88],
        [0.96, 0.86, 0.12],
        [0.97, 0.52, 0.07],
        [0.50, 0.16, 0.66],
        [0.12, 0.82, 0.88],
        [0.98, 0.56, 0.76],
        [0.06, 0.06, 0.07],
    ],
    np.float32,
)


class Scene(NamedTuple):
    """What a batch of images shows; every field has leading axis B.

    Attributes:
        shape: Int[B] into `SHAPES`.
        colour: Int[B] into `COLOURS`.
        second: Int[B] into `COLOURS`, the other colour of blended shapes and splatters.
        blend: Float[B] in [0, 1], the share of the second colour.
        kind: Int[B] into `KINDS`.
        centre: Float[B, 2] in [-0.5, 0.5], as (x, y) with y down, in image widths.
        radius: Float[B], circumradius in image widths.
        angle: Float[B] in radians.
        blur: Float[B], standard deviation of a Gaussian blur in image widths; 0 is sharp.
    """

    shape: jax.Array
    colour: jax.Array
    second: jax.Array
    blend: jax.Array
    kind: jax.Array
    centre: jax.Array
    radius: jax.Array
    angle: jax.Array
    blur: jax.Array


class Roughness(NamedTuple):
    """How far outlines stray from their formula, as pictures of a generator do.

    Attributes:
        shift: Float[B, 2, size, size], displacement in x and y, in image widths.
        rounding: Float[B], radius that corners are rounded with, about, in image widths.
    """

    shift: jax.Array
    rounding: jax.Array


def coverage(scene: Scene, size: int, rough: Roughness | None = None) -> jax.Array:
    """Anti-aliased, blurred silhouettes, Float[B, size, size] in [0, 1]."""
    axis = (jnp.arange(size) + 0.5) / size - 0.5
    y, x = jnp.meshgrid(axis, axis, indexing="ij")
    x = x - scene.centre[:, 0, None, None]
    y = y - scene.centre[:, 1, None, None]
    if rough is not None:
        x, y = x + rough.shift[:, 0], y + rough.shift[:, 1]
    cos, sin = jnp.cos(scene.angle)[:, None, None], jnp.sin(scene.angle)[:, None, None]
    x, y = cos * x + sin * y, (cos * y - sin * x) / jnp.asarray(_ASPECT)[scene.shape][:, None, None]
    half = math.pi / jnp.asarray(_SECTORS)[scene.shape][:, None, None]
    angle = jnp.abs(jnp.mod(jnp.arctan2(y, x), 2 * half) - half)  # 0 at a notch, `half` at a tip
    distance = jnp.sqrt(x**2 + y**2)
    # The outline runs from the tip at (radius, half) to the notch at (notch * radius, 0).
    tip = scene.radius[:, None, None]
    notch = tip * jnp.asarray(_NOTCH)[scene.shape][:, None, None]
    edge_x, edge_y = tip * jnp.cos(half) - notch, tip * jnp.sin(half)
    px, py = distance * jnp.cos(angle) - notch, distance * jnp.sin(angle)
    outside = (px * edge_y - py * edge_x) / jnp.sqrt(edge_x**2 + edge_y**2)
    sharp = jnp.clip(0.5 - outside * size, 0.0, 1.0)
    if rough is not None:  # the half-way line of a blurred silhouette has round corners
        slope = jnp.maximum(1.0, 2.5 * size * rough.rounding)[:, None, None]
        sharp = jnp.clip(0.5 + slope * (_blur(sharp, rough.rounding) - 0.5), 0.0, 1.0)
    return _blur(sharp, scene.blur)


def _blur(images: jax.Array, spread: jax.Array) -> jax.Array:
    """Blur images Float[B, S, S] by Gaussians of standard deviations Float[B], in image widths."""
    size = images.shape[1]
    axis = jnp.arange(size) / size
    spread = jnp.maximum(spread, 0.1 / size)[:, None, None]
    kernel = jax.nn.softmax(-0.5 * ((axis[:, None] - axis) / spread) ** 2, axis=-1)
    return jnp.einsum("byi,bij,bxj->byx", kernel, images, kernel)


def outline(scene: Scene, directions: int) -> jax.Array:
    """Distance from the centre to the outline, Float[B, directions] in image widths."""
    angle = jnp.arange(directions) * (2 * math.pi / directions) - scene.angle[:, None]
    x, y = jnp.cos(angle), jnp.sin(angle) / jnp.asarray(_ASPECT)[scene.shape][:, None]
    half = math.pi / jnp.asarray(_SECTORS)[scene.shape][:, None]
    folded = jnp.abs(jnp.mod(jnp.arctan2(y, x), 2 * half) - half)
    tip = scene.radius[:, None]
    notch = tip * jnp.asarray(_NOTCH)[scene.shape][:, None]
    edge_x, edge_y = tip * jnp.cos(half) - notch, tip * jnp.sin(half)
    reach = notch * edge_y / (jnp.cos(folded) * edge_y - jnp.sin(folded) * edge_x)
    return reach / jnp.sqrt(x**2 + y**2)


def smooth_noise(key: jax.Array, batch: int, grid: int, size: int) -> jax.Array:
    """Low-frequency noise of unit variance or less at the knots, Float[batch, size, size]."""
    knots = jax.random.normal(key, (batch, grid, grid))
    weights = jax.image.resize(jnp.eye(grid), (size, grid), "cubic")
    return jnp.einsum("yi,bij,xj->byx", weights, knots, weights)


def random_roughness(key: jax.Array, radius: jax.Array, size: int) -> Roughness:
    """Wobbling edges and round corners, from none to strong, for shapes of radius Float[B]."""
    wide_key, narrow_key, level_key = jax.random.split(key, 3)
    batch = radius.shape[0]
    levels = jax.random.uniform(level_key, (3, batch)) ** 2
    wide = smooth_noise(wide_key, 2 * batch, 5, size).reshape(batch, 2, size, size)
    narrow = smooth_noise(narrow_key, 2 * batch, 16, size).reshape(batch, 2, size, size)
    shift = 0.14 * levels[0, :, None, None, None] * wide
    shift = (shift + 0.08 * levels[1, :, None, None, None] * narrow) * radius[:, None, None, None]
    return Roughness(shift, 0.25 * levels[2] * radius)


@functools.partial(jax.jit, static_argnames=("size", "rough"))
def render(scene: Scene, key: jax.Array, size: int, rough: bool = False) -> jax.Array:
    """Draw a batch: Float[B, size, size, 3] in [0, 1] on white.

    Clean and blurred shapes have one colour; blended ones mix two in patches or evenly; broken ones
    miss pieces; splatters are scattered patches of two colours without an outline. Rough drawings
    have wobbling edges and round corners.
    """
    batch = scene.shape.shape[0]
    strays = random_roughness(jax.random.fold_in(key, 1), scene.radius, size) if rough else None
    shade_key, hole_key, mix_key, even_key, level_key = jax.random.split(key, 5)
    holes = smooth_noise(hole_key, batch, 9, size)
    patches = smooth_noise(mix_key, batch, 6, size)
    level = jax.random.uniform(level_key, (batch, 1, 1))
    kind = scene.kind[:, None, None]
    alpha = coverage(scene, size, strays)
    ragged = jax.nn.sigmoid(8.0 * (holes + 0.5 - 0.7 * level))
    reach = scene._replace(
        shape=jnp.full_like(scene.shape, SHAPES.index("circle")),
        radius=1.3 * scene.radius,
        blur=jnp.full_like(scene.blur, 0.06),
    )
    scattered = coverage(reach, size) * jax.nn.sigmoid(10.0 * (holes - 0.35 - 0.3 * level))
    alpha = jnp.where(kind == KINDS.index("broken"), alpha * ragged, alpha)
    alpha = jnp.where(kind == KINDS.index("splatter"), scattered, alpha)

    tints = jnp.asarray(PALETTE) + 0.05 * jax.random.normal(shade_key, (batch, 1, 3))
    rows = jnp.arange(batch)
    threshold = jnp.sqrt(2.0) * jax.scipy.special.erfinv(
        jnp.clip(2 * scene.blend - 1, -0.999, 0.999)
    )
    in_patches = jax.nn.sigmoid(9.0 * (threshold[:, None, None] * 0.8 + patches))
    even = jax.random.bernoulli(even_key, 0.5, (batch, 1, 1))
    mixed = (kind == KINDS.index("blended")) | (kind == KINDS.index("splatter"))
    share = jnp.where(mixed, jnp.where(even, scene.blend[:, None, None], in_patches), 0.0)[
        ..., None
    ]
    first = tints[rows, scene.colour][:, None, None]
    second = tints[rows, scene.second][:, None, None]
    ink = (1 - share) * first + share * second
    return jnp.clip(1.0 - alpha[..., None] * (1.0 - ink), 0.0, 1.0)


def random_pose(
    key: jax.Array, batch: int, radius: tuple[float, float], shift: float
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Uniform centre within `shift` of the middle, circumradius in `radius`, any rotation."""
    centre_key, radius_key, angle_key = jax.random.split(key, 3)
    centre = jax.random.uniform(centre_key, (batch, 2), minval=-shift, maxval=shift)
    size = jax.random.uniform(radius_key, (batch,), minval=radius[0], maxval=radius[1])
    angle = jax.random.uniform(angle_key, (batch,), maxval=2 * math.pi)
    return centre, size, angle


def red_blue_scene(key: jax.Array, shape: jax.Array, colour: jax.Array) -> Scene:
    """Clean triangles and squares in red and blue at random rotation, scale and position.

    Args:
        key: a key of its own.
        shape: Int[B], 0 triangle, 1 square.
        colour: Int[B], 0 red, 1 blue.
    """
    batch = shape.shape[0]
    centre, radius, angle = random_pose(key, batch, (0.20, 0.30), 0.06)
    # A square of equal circumradius has 1.5 times the triangle's area: compensate half of it.
    radius = radius * jnp.where(shape == 0, 1.1, 0.92)
    colours = jnp.where(colour == 0, COLOURS.index("red"), COLOURS.index("blue"))
    shapes = jnp.where(shape == 0, SHAPES.index("triangle"), SHAPES.index("square"))
    zeros = jnp.zeros(batch)
    return Scene(
        shapes, colours, colours, zeros, jnp.zeros(batch, jnp.int32), centre, radius, angle, zeros
    )


@functools.partial(jax.jit, static_argnames=("size",))
def _draw_red_blue(key: jax.Array, shape: jax.Array, colour: jax.Array, size: int) -> jax.Array:
    pose_key, ink_key = jax.random.split(key)
    images = render(red_blue_scene(pose_key, shape, colour), ink_key, size)
    return jnp.round(images * 255).astype(jnp.uint8)


def draw_red_blue(
    seed: int, shape: np.ndarray, colour: np.ndarray, image_size: int, chunk: int = 500
) -> np.ndarray:
    """Draw given shapes (0 triangle, 1 square) and colours (0 red, 1 blue).

    Returns:
        UInt8[N, image_size, image_size, 3]. Equal arguments give equal pixels. A seed is the root
        of a data set of its own: `biased_dataset` draws it, and a run's seed is never one.
    """
    key = keys.root(seed)
    parts = []
    for part, start in enumerate(range(0, len(shape), chunk)):
        pad = (0, max(0, start + chunk - len(shape)))
        shapes = np.pad(shape[start : start + chunk], pad)
        colours = np.pad(colour[start : start + chunk], pad)
        images = _draw_red_blue(
            jax.random.fold_in(key, part), jnp.asarray(shapes), jnp.asarray(colours), image_size
        )
        parts.append(np.asarray(images)[: len(shape) - start])
    return np.concatenate(parts)


def biased_dataset(
    seed: int, count: int, bias: float, image_size: int = 128
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Triangles and squares whose colour follows the shape with probability `bias`.

    Half of the images are triangles. A triangle is red and a square is blue in a share `bias` of
    each (Chang et al. 2024, section 5.1), rounded to whole images; the order is shuffled.

    Args:
        seed: draws the same data again.
        count: number of images N.
        bias: in [0, 1]; 0.5 is balanced.
        image_size: width and height in pixels.

    Returns:
        Images UInt8[N, H, W, 3], shape labels Int[N] (0 triangle, 1 square) and colour labels
        Int[N] (0 red, 1 blue).

    Raises:
        ValueError: if `bias` is outside [0, 1] or `count` is not positive.
    """
    if not 0.0 <= bias <= 1.0:
        raise ValueError(f"bias is {bias}: give a probability in [0, 1], e.g. 0.9.")
    if count < 1:
        raise ValueError(f"count is {count}: give a positive number of images.")
    rng = np.random.default_rng([seed, round(bias * 10_000)])
    shape = np.arange(count) % 2
    colour = shape.copy()
    for label in (0, 1):
        members = np.flatnonzero(shape == label)
        flipped = members[: len(members) - round(bias * len(members))]
        colour[flipped] = 1 - label
    order = rng.permutation(count)
    shape, colour = shape[order], colour[order]
    return draw_red_blue(int(rng.integers(2**31)), shape, colour, image_size), shape, colour


def balanced_dataset(
    seed: int, count: int, image_size: int = 128
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """`biased_dataset` without bias: the four shape x colour groups are equally frequent."""
    return biased_dataset(seed, count, 0.5, image_size)
