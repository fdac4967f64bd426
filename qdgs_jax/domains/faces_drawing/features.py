"""Eyes, brows, nose, mouth, glasses."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from qdgs_jax.domains.faces_drawing.attributes import FaceAttributes
from qdgs_jax.domains.faces_drawing.brushes import bump, edge, mix, paint, ramp, spot
from qdgs_jax.domains.faces_drawing.build import Plan, View, geometry
from qdgs_jax.domains.faces_drawing.head import nose_bottom, nose_middle

_INK = (0.10, 0.07, 0.07)


def draw_eyes(canvas: jax.Array, face: FaceAttributes, plan: Plan, view: View) -> jax.Array:
    """Both eyes at once, in coordinates mirrored at the middle of the face."""
    g = geometry(face)
    x = jnp.abs(view.x) - plan.eye_x
    y = view.y + (0.10 * g["eye_tilt"] + 0.03 * plan.feminine) * x
    width = 0.235 * (1.0 + 0.09 * g["eye_size"])
    upper = 0.125 * (1.0 + 0.16 * g["eye_size"] + 0.18 * plan.feminine - 0.12 * plan.masculine)
    upper = upper * (1.0 - 0.12 * plan.aged)
    lower = 0.085 * (1.0 + 0.10 * g["eye_size"] - 0.35 * face.smile)
    q = 1.0 - (x / width) ** 2
    white = edge(jnp.maximum(-upper * q - y, y - lower * q), view.pixel)

    shadow = jnp.asarray([0.45, 0.28, 0.42]) * (0.35 + 0.65 * plan.skin.mean())
    canvas = paint(
        canvas, shadow, spot(x, y + 0.15, 0.34, 0.22), 0.65 * face.make_up * plan.feminine
    )
    lid = 0.07 + 0.02 * g["eyelid"]
    crease = bump(y + lid + upper * q, 0.035) * bump(x, 1.2 * width) * (0.35 + 0.25 * plan.aged)
    canvas = paint(canvas, plan.skin * jnp.asarray([0.50, 0.42, 0.40]), crease)
    ball = 0.93 - 0.22 * ramp(y, -0.02, -0.13)  # the lid's shadow
    ball = ball * jnp.asarray([1.0, 0.985, 0.97])[:, None, None]
    canvas = paint(canvas, ball, white)

    look = x - 0.055 * face.gaze * jnp.sign(view.x)
    centre = y + 0.025
    far = jnp.sqrt(look**2 + centre**2)
    iris = plan.iris[:, None, None] * (0.75 + 0.5 * ramp(centre, -0.06, 0.10))
    canvas = paint(canvas, iris, white * edge(far - 0.128, view.pixel))
    canvas = paint(canvas, jnp.asarray(_INK) * 0.5, white * edge(far - 0.062, view.pixel))
    glint = spot(
        look * jnp.sign(view.x) - 0.05 * jnp.sign(face.light[0]), centre + 0.05, 0.06, 0.06
    )
    canvas = paint(canvas, jnp.ones(3), white * glint, 0.85)

    lash = 0.020 + 0.026 * plan.feminine * (0.5 + 0.5 * face.make_up)
    wing = 1.0 + 0.16 * plan.feminine * ramp(x, 0.0, width)
    line = jnp.abs(y + upper * (1.0 - (x / (wing * width)) ** 2)) - lash
    line = edge(jnp.maximum(line, jnp.abs(x) - 1.02 * wing * width), view.pixel)
    canvas = paint(canvas, jnp.asarray(_INK), line, 0.62 + 0.33 * plan.feminine)
    under = bump(y - lower * q, 0.03) * bump(x, 1.1 * width)
    return paint(canvas, plan.skin * 0.45, under, 0.30 + 0.25 * face.make_up * plan.feminine)


def draw_brows(canvas: jax.Array, face: FaceAttributes, plan: Plan, view: View) -> jax.Array:
    """Brows: arcs that thin out towards the temples."""
    g = geometry(face)
    t = (jnp.abs(view.x) - plan.eye_x - 0.01) / 0.33
    middle = -0.34 - 0.04 * g["brow_height"] + 0.04 * plan.masculine - 0.03 * plan.feminine
    arch = 0.06 + 0.025 * g["brow_arch"] + 0.035 * plan.feminine - 0.02 * plan.masculine
    curve = middle + arch * jnp.where(t > 0.15, 1.0, 0.55) * (t - 0.15) ** 2
    thick = 0.036 + 0.012 * g["brow_thickness"] + 0.024 * plan.masculine - 0.008 * plan.feminine
    thick = thick * (1.0 - 0.35 * jnp.clip(t, -1.0, 1.0))
    brow = edge(jnp.maximum(jnp.abs(view.y - curve) - thick, (jnp.abs(t) - 1.0) * 0.33), view.pixel)
    colour = mix(0.80 * plan.hair, jnp.asarray(_INK), 0.30 * (1.0 - 0.5 * plan.aged))
    return paint(canvas, colour, brow, 0.85)


def draw_nose(canvas: jax.Array, face: FaceAttributes, plan: Plan, view: View) -> jax.Array:
    """Wings, nostrils, shadow below and light on the tip; the ridge is in the head's shade."""
    g = geometry(face)
    bottom = nose_bottom(face, plan)
    x = nose_middle(face, view, bottom)
    side, y = jnp.abs(x), view.y - bottom
    width = 0.205 + 0.035 * g["nose_width"] + 0.02 * plan.masculine - 0.01 * plan.feminine
    dark = plan.skin * jnp.asarray([0.50, 0.40, 0.38])
    canvas = paint(canvas, dark, spot(x, y - 0.07, 1.15 * width, 0.10), 0.40)
    wing = bump(side - width + 0.4 * y * y, 0.045) * bump(y + 0.02, 0.11)
    canvas = paint(canvas, dark, wing, 0.55)
    nostril = spot(side - 0.50 * width, y, 0.085, 0.055)
    canvas = paint(canvas, 0.6 * dark, nostril, 0.75)
    tip = spot(x - 0.03 * face.light[0], y + 0.13, 0.11, 0.10)
    light = mix(plan.skin, jnp.ones(3), 0.45)
    return paint(canvas, light, tip, 0.20 + 0.30 * face.light_strength)


def draw_mouth(canvas: jax.Array, face: FaceAttributes, plan: Plan, view: View) -> jax.Array:
    """Lips, the line between them, and teeth where a smile parts them."""
    g = geometry(face)
    x = view.x - 0.08 * jnp.sin(face.yaw)
    width = 0.35 * (1.0 + 0.10 * g["mouth_width"] + 0.20 * face.smile)
    t = x / width
    q = 1.0 - t * t
    line = plan.mouth_y + 0.035 * face.smile - (0.12 * face.smile + 0.012) * t * t
    full = 1.0 + 0.28 * g["lip_fullness"] + 0.15 * plan.feminine - 0.15 * plan.masculine
    full = full * (1.0 - 0.22 * plan.aged)
    upper = 0.085 * full * q - 0.022 * bump(t, 0.30)
    lower = 0.115 * full * q
    gap = 0.15 * ramp(face.smile, 0.45, 1.0) * q
    lips = edge(jnp.maximum(line - upper - view.y, view.y - line - gap - lower), view.pixel)
    shade = 1.0 - 0.16 * ramp(view.y, line + 0.02, line - 0.04)
    canvas = paint(canvas, plan.lips[:, None, None] * shade, lips)
    gleam = spot(x, view.y - line - gap - 0.5 * lower, 0.6 * width, 0.05)
    canvas = paint(canvas, mix(plan.lips, jnp.ones(3), 0.45), lips * gleam, 0.45)
    teeth = edge(jnp.maximum(line - view.y, view.y - line - gap), view.pixel) * ramp(gap, 0.0, 0.05)
    canvas = paint(canvas, jnp.asarray([0.95, 0.93, 0.90]), teeth)
    seam = edge(jnp.maximum(jnp.abs(view.y - line) - 0.016, jnp.abs(x) - 1.04 * width), view.pixel)
    dark = plan.lips * jnp.asarray([0.45, 0.30, 0.32])
    canvas = paint(canvas, dark, seam, 0.80)
    below = spot(x, view.y - line - gap - lower - 0.07, 0.24, 0.06)
    return paint(canvas, plan.skin * jnp.asarray([0.6, 0.5, 0.48]), below, 0.32)


def draw_glasses(canvas: jax.Array, face: FaceAttributes, plan: Plan, view: View) -> jax.Array:
    """Rims from round to square, a bridge and temples; lenses hardly tint."""
    x, y = jnp.abs(view.x) - plan.eye_x - 0.01, view.y - 0.03
    a, b = (x / 0.40) ** 2, (y / 0.33) ** 2
    round_, square = jnp.sqrt(a + b), jnp.sqrt(jnp.sqrt(a * a + b * b))
    radius = mix(round_, square, face.frame_shape)
    distance = (radius - 1.0) * 0.36
    worn = ramp(face.glasses, 0.3, 0.7)
    canvas = paint(canvas, jnp.asarray([0.90, 0.95, 1.0]), edge(distance, view.pixel), 0.10 * worn)
    rim = edge(jnp.abs(distance) - 0.034, view.pixel)
    bridge = jnp.maximum(jnp.abs(view.x) - plan.eye_x + 0.40, jnp.abs(y + 0.08) - 0.03)
    temple = jnp.maximum(jnp.abs(y + 0.10) - 0.028, 0.38 - x)
    temple = jnp.maximum(temple, jnp.abs(view.head_x) - plan.half_width)
    frame = jnp.maximum(rim, edge(jnp.minimum(bridge, temple), view.pixel))
    colour = mix(jnp.asarray([0.08, 0.07, 0.09]), jnp.asarray([0.34, 0.20, 0.12]), face.frame_shape)
    colour = jnp.where(plan.skin.mean() < 0.3, mix(colour, jnp.ones(3) * 0.75, 0.6), colour)
    return paint(canvas, colour, frame, worn)
