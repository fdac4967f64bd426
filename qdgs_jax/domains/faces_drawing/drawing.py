"""A picture of a face, from back to front."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp

from qdgs_jax.domains.faces_drawing.attributes import FaceAttributes
from qdgs_jax.domains.faces_drawing.build import Plan, View, make_plan, make_view
from qdgs_jax.domains.faces_drawing.features import (
    draw_brows,
    draw_eyes,
    draw_glasses,
    draw_mouth,
    draw_nose,
)
from qdgs_jax.domains.faces_drawing.hair import (
    draw_beard,
    draw_hair_behind,
    draw_hair_in_front,
    make_hair,
)
from qdgs_jax.domains.faces_drawing.head import draw_complexion, draw_head, draw_neck, make_head


# Rows and columns, in sixteenths of the picture, that hold the features of every face within the
# pose that `FaceAttributes` allows. Features are the costly part, and there are few pixels of them.
_EYES = (slice(4, 10), slice(1, 15))
_MOUTH = (slice(7, 14), slice(3, 13))

_Layer = Callable[[jax.Array, FaceAttributes, Plan, View], jax.Array]


def _draw_inside(
    canvas: jax.Array,
    window: tuple[slice, slice],
    layers: Sequence[_Layer],
    face: FaceAttributes,
    plan: Plan,
    view: View,
) -> jax.Array:
    """Draw layers into a window of the canvas."""
    size = canvas.shape[-1]
    rows, columns = (slice(part.start * size // 16, part.stop * size // 16) for part in window)
    cut = jax.tree.map(lambda plane: plane[rows, columns] if plane.ndim else plane, view)
    inside = canvas[:, rows, columns]
    for layer in layers:
        inside = layer(inside, face, plan, cut)
    return canvas.at[:, rows, columns].set(inside)


def draw_one(face: FaceAttributes, size: int) -> jax.Array:
    """One picture Float[size, size, 3] of attributes without a leading axis."""
    plan = make_plan(face)
    view = make_view(face, plan, size)
    head = make_head(face, plan, view)
    hair = make_hair(face, plan, view)
    down = (jnp.arange(size)[:, None] + 0.5) / size
    top, bottom = face.background
    canvas = top[:, None, None] + (bottom - top)[:, None, None] * down
    canvas = jnp.broadcast_to(canvas, (3, size, size))
    canvas = draw_hair_behind(canvas, view, hair, face)
    canvas = draw_neck(canvas, face, plan, view)
    canvas = draw_head(canvas, face, plan, view, head)
    canvas = draw_complexion(canvas, face, plan, view, head)
    canvas = draw_beard(canvas, face, plan, view, head)
    for window, layers in ((_MOUTH, (draw_nose, draw_mouth)), (_EYES, (draw_eyes, draw_brows))):
        canvas = _draw_inside(canvas, window, layers, face, plan, view)
    canvas = draw_hair_in_front(canvas, face, plan, view, hair)
    canvas = _draw_inside(canvas, _EYES, (draw_glasses,), face, plan, view)
    warmth = face.light_warmth * jnp.asarray([0.05, 0.0, -0.06])
    return 2.0 * jnp.clip(canvas * (1.0 + warmth)[:, None, None], 0.0, 1.0) - 1.0


@functools.partial(jax.jit, static_argnames=("size", "chunk"))
def draw(attributes: FaceAttributes, size: int = 64, chunk: int = 16) -> jax.Array:
    """Draw faces in FFHQ's alignment.

    Args:
        attributes: of N faces.
        size: width and height in pixels.
        chunk: faces drawn side by side: the planes of more would not stay in a core's cache.

    Returns:
        Float[N, size, size, 3] in [-1, 1], as StyleGAN2 gives and takes images; halve and add 0.5
        for what takes [0, 1].
    """
    planes = jax.lax.map(functools.partial(draw_one, size=size), attributes, batch_size=chunk)
    return jnp.moveaxis(planes, 1, -1)
