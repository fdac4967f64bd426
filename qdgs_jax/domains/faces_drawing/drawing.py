"""A picture of a face, from back to front."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, TypeVar

import jax
import jax.numpy as jnp

from qdgs_jax.domains.faces_drawing.attributes import FaceAttributes
from qdgs_jax.domains.faces_drawing.build import make_plan, make_view
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

_T = TypeVar("_T")


# Rows and columns, in sixteenths of the picture, that hold the features of every face within the
# pose that `FaceAttributes` allows. Features are the costly part, and there are few pixels of them.
_EYES = (slice(4, 10), slice(1, 15))
_MOUTH = (slice(7, 14), slice(3, 13))


def _stage(function: Callable[..., _T], *arguments: Any) -> _T:
    """Apply a function of one face to each of several, in a loop of its own.

    Loops are what XLA does not fuse across. Left to itself it fuses the picture into one loop and
    computes every shared plane again for each channel and user, four times slower.
    """
    return jax.lax.map(lambda each: function(*each), arguments)


def _cut(window: tuple[slice, slice], tree: _T) -> _T:
    """A window of all planes Float[..., H, W]; what has no planes stays."""

    def cut(plane: jax.Array) -> jax.Array:
        size = plane.shape[-1] if plane.ndim > 1 else 0
        rows, columns = (slice(s.start * size // 16, s.stop * size // 16) for s in window)
        return plane[..., rows, columns] if size else plane

    return jax.tree.map(cut, tree)


def _paste(window: tuple[slice, slice], canvas: jax.Array, inside: jax.Array) -> jax.Array:
    """The canvas with a window of it replaced."""
    size = canvas.shape[-1]
    corner = [0] * (canvas.ndim - 2) + [part.start * size // 16 for part in window]
    return jax.lax.dynamic_update_slice(canvas, inside, corner)


def _backdrop(face: FaceAttributes, size: int) -> jax.Array:
    """Background Float[3, size, size]."""
    down = (jnp.arange(size)[:, None] + 0.5) / size
    top, bottom = face.background
    canvas = top[:, None, None] + (bottom - top)[:, None, None] * down
    return jnp.broadcast_to(canvas, (3, size, size))


def _finish(canvas: jax.Array, face: FaceAttributes) -> jax.Array:
    """The light's colour, and pixels from [0, 1] to [-1, 1]."""
    warmth = face.light_warmth * jnp.asarray([0.05, 0.0, -0.06])
    return 2.0 * jnp.clip(canvas * (1.0 + warmth)[:, None, None], 0.0, 1.0) - 1.0


def _draw_chunk(faces: FaceAttributes, size: int) -> jax.Array:
    """Pictures Float[B, 3, size, size], from back to front."""
    plan = jax.vmap(make_plan)(faces)
    view = _stage(functools.partial(make_view, size=size), faces, plan)
    head = _stage(make_head, faces, plan, view)
    hair = _stage(make_hair, faces, plan, view)
    canvas = _stage(functools.partial(_backdrop, size=size), faces)
    canvas = _stage(draw_hair_behind, canvas, view, hair, faces)
    canvas = _stage(draw_neck, canvas, faces, plan, view)
    canvas = _stage(draw_head, canvas, faces, plan, view, head)
    canvas = _stage(draw_complexion, canvas, faces, plan, view, head)
    canvas = _stage(draw_beard, canvas, faces, plan, view, head)
    for window, layers in ((_MOUTH, (draw_nose, draw_mouth)), (_EYES, (draw_eyes, draw_brows))):
        inside, near = _cut(window, canvas), _cut(window, view)
        for layer in layers:
            inside = _stage(layer, inside, faces, plan, near)
        canvas = _paste(window, canvas, inside)
    canvas = _stage(draw_hair_in_front, canvas, faces, plan, view, hair)
    inside = _stage(draw_glasses, _cut(_EYES, canvas), faces, plan, _cut(_EYES, view))
    return _stage(_finish, _paste(_EYES, canvas, inside), faces)


@functools.partial(jax.jit, static_argnames=("size", "chunk"))
def draw(attributes: FaceAttributes, size: int = 64, chunk: int = 4) -> jax.Array:
    """Draw faces in FFHQ's alignment.

    Args:
        attributes: of N faces.
        size: width and height in pixels, a multiple of 16.
        chunk: faces drawn together: the planes of more would not stay in a core's cache.

    Returns:
        Float[N, size, size, 3] in [-1, 1], as StyleGAN2 gives and takes images; halve and add 0.5
        for what takes [0, 1].
    """
    count = attributes.shift.shape[0]
    chunk = min(chunk, count)
    padded = jax.tree.map(
        lambda values: jnp.pad(
            values, [(0, -count % chunk)] + [(0, 0)] * (values.ndim - 1), mode="edge"
        ).reshape(-1, chunk, *values.shape[1:]),
        attributes,
    )
    planes = jax.lax.map(functools.partial(_draw_chunk, size=size), padded)
    return jnp.moveaxis(planes.reshape(-1, 3, size, size)[:count], 1, -1)
