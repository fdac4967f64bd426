"""Hair behind the head and in front of it, and beards."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from qdgs_jax.domains.faces_drawing.attributes import FaceAttributes
from qdgs_jax.domains.faces_drawing.brushes import bump, edge, ellipse, paint, ramp, spot
from qdgs_jax.domains.faces_drawing.build import Plan, View
from qdgs_jax.domains.faces_drawing.head import Head


class Hair(NamedTuple):
    """The mass of hair, Float[H, W] each, and its colours as planes.

    Attributes:
        distance: to the outline of all the hair, in face units, negative inside.
        planes: Float[3, H, W].
    """

    distance: jax.Array
    planes: jax.Array


def make_hair(face: FaceAttributes, plan: Plan, view: View) -> Hair:
    """A cap around the skull; below the temples it falls as far as its length allows."""
    volume = (0.05 + 0.26 * face.hair_volume) * (0.35 + 0.65 * ramp(face.hair_length, 0.0, 0.45))
    long = ramp(face.hair_length, 0.35, 0.7)
    # Short hair stands up, it does not stand out: at the ears it meets the head.
    width = plan.half_width + 0.03 + (0.35 + 0.65 * long) * volume
    top = 0.06 - plan.crown + volume
    cap = ellipse(view.head_x, view.y, width, top)
    end = -0.02 + 0.30 * ramp(face.hair_length, 0.0, 0.4) + 2.3 * ramp(face.hair_length, 0.4, 1.0)
    side = jnp.abs(view.head_x)
    swell = 0.14 * long * ramp(view.y, 0.1, 1.3) * (0.4 + face.hair_volume)
    tuck = 0.10 * (1.0 - long) * ramp(view.y, -0.2, 0.3)
    fall = jnp.maximum(side - width - swell + tuck, view.y - end + 0.25 * side * side)
    distance = jnp.where(view.y < 0.0, cap, fall)
    curls = face.hair_curl * (0.03 + 0.10 * face.hair_volume) * (0.4 + 0.6 * long)
    distance = distance + 1.4 * curls * view.wave

    lit = -0.75 * face.light[0] * view.head_x / width + 0.55 * (0.35 + 0.65 * face.light[1]) * (
        view.y / top
    )
    shade = (0.25 + 0.45 * face.light_strength) * lit + 0.18 * ramp(view.y, 0.0, 1.4)
    texture = 0.6 * (1.0 - face.hair_curl) * view.strands + 1.2 * face.hair_curl * view.wave
    shine = bump(jnp.sqrt(view.head_x**2 + (view.y + 0.1) ** 2) - 1.12, 0.30)
    shine = shine * (1.0 - 0.6 * face.hair_curl) * ramp(view.y, -0.1, -0.8)
    tone = 1.0 - shade + 0.16 * texture + 0.30 * shine
    lift = 0.035 + 0.05 * shine + 0.02 * texture  # black hair is never without shape
    planes = plan.hair[:, None, None] * jnp.maximum(tone, 0.25) + lift
    return Hair(distance, planes)


def draw_hair_behind(canvas: jax.Array, view: View, hair: Hair, face: FaceAttributes) -> jax.Array:
    """What lies behind head and neck, in shadow."""
    shadow = 1.0 - 0.30 * edge(jnp.abs(view.head_x) - 0.9, jnp.asarray(0.5))
    cover = ramp(face.hair_length, 0.02, 0.10)
    return paint(canvas, hair.planes * shadow, edge(hair.distance, view.pixel), cover)


def draw_hair_in_front(
    canvas: jax.Array, face: FaceAttributes, plan: Plan, view: View, hair: Hair
) -> jax.Array:
    """All hair but where the face looks out: an opening with hairline, fringe and parting."""
    long = ramp(face.hair_length, 0.4, 0.6)
    back = plan.recession
    rise = 1.16 + 0.9 * back - 0.50 * face.fringe * (1.0 - back)
    slant = view.x - 0.75 * face.parting
    # Hair sweeps from its parting to the other side.
    sweep = (
        0.30
        * face.fringe
        * (1.0 - face.hair_curl)
        * jnp.clip(-slant * jnp.sign(face.parting), -0.9, 0.9)
    )
    dip = 0.16 * back * bump(view.x, 0.55) * ramp(back, 0.0, 0.3)
    high = jnp.maximum(rise + sweep - dip, 0.25)
    wide = plan.half_width * (0.93 - 0.05 * long * ramp(view.y, 0.2, 1.0))
    opening = ellipse(view.head_x, view.y - 0.20, wide, high + 0.20)
    straight = jnp.abs(view.head_x) - wide - 0.10 * ramp(view.y, 0.9, 1.6) * (1.0 - long)
    opening = jnp.where(view.y < 0.20, opening, straight)
    opening = opening - 0.04 * face.hair_curl * view.wave
    cover = edge(jnp.maximum(hair.distance, -opening), view.pixel)
    # Cropped hair lets the skin shine through, and thins out where it recedes.
    dense = 0.55 + 0.45 * ramp(face.hair_length, 0.0, 0.12)
    shadow = bump(opening - 0.02, 0.10) * edge(-opening - 0.02, view.pixel)
    canvas = paint(canvas, plan.skin * 0.45, shadow * ramp(view.y, 0.4, -0.2), 0.25)
    return paint(canvas, hair.planes, cover, dense)


def draw_beard(
    canvas: jax.Array, face: FaceAttributes, plan: Plan, view: View, head: Head
) -> jax.Array:
    """From stubble to a full beard: jaw, chin and moustache around the lips."""
    side = jnp.abs(view.x)
    full = ramp(face.beard, 0.35, 0.9)
    jaw = ramp(head.radius, 0.62, 0.80) * ramp(view.y, 0.15, 0.75)
    chin = ramp(view.y, plan.mouth_y + 0.12, plan.mouth_y + 0.26) * ramp(side, 0.75, 0.45)
    lip = spot(side - 0.12, view.y - plan.mouth_y + 0.14 - 0.16 * side * side, 0.42, 0.14)
    corner = spot(side - 0.42, view.y - plan.mouth_y - 0.12, 0.16, 0.34)
    where = jnp.clip(jnp.maximum(jaw, chin) + 1.4 * lip + 1.2 * corner, 0.0, 1.0)
    outline = edge(head.distance - 0.10 * full * ramp(view.y, 0.5, 1.2), view.pixel)
    amount = plan.masculine * jnp.clip(
        0.1 * ramp(face.beard, 0.0, 0.1) + 0.95 * face.beard, 0, 0.95
    )
    tone = 1.0 - 0.45 * jnp.maximum(head.shade, 0.0) + 0.12 * view.wave
    return paint(canvas, plan.beard[:, None, None] * tone + 0.02, where * outline, amount)
