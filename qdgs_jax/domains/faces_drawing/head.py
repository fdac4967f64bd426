"""The head: outline, neck, ears, light on the skin, what years leave on it."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from qdgs_jax.domains.faces_drawing.attributes import FaceAttributes
from qdgs_jax.domains.faces_drawing.brushes import bump, edge, ellipse, paint, ramp, spot
from qdgs_jax.domains.faces_drawing.build import Plan, View, geometry

_MIDDLE = 0.05  # y of the head's widest place


class Head(NamedTuple):
    """The head's outline and the light on it, each Float[H, W].

    Attributes:
        radius: 1 on the outline, 0 in the middle.
        distance: to the outline in face units, negative inside.
        shade: how dark the skin is, from about -0.5 (bright) to 1.
    """

    radius: jax.Array
    distance: jax.Array
    shade: jax.Array


def make_head(face: FaceAttributes, plan: Plan, view: View) -> Head:
    """Outline of the head: half an ellipse above, an oval to square jaw below."""
    below = view.y > _MIDDLE
    height = jnp.where(below, plan.chin - _MIDDLE, _MIDDLE - plan.crown)
    down = (view.y - _MIDDLE) / height
    narrowed = 1.0 - plan.taper * ramp(view.y, 0.15, plan.chin)
    across = view.head_x / (plan.half_width * narrowed)
    a, b = across * across, down * down
    oval, square = jnp.sqrt(a + b), jnp.sqrt(jnp.sqrt(a * a + b * b))
    radius = oval + jnp.where(below, plan.squareness, 0.1) * (square - oval) + 1e-4
    far = jnp.sqrt(view.head_x**2 + (view.y - _MIDDLE) ** 2)
    return Head(radius, far * (1.0 - 1.0 / radius), _shade(face, plan, view, across, down))


def _shade(
    face: FaceAttributes, plan: Plan, view: View, across: jax.Array, down: jax.Array
) -> jax.Array:
    """Darkness by Lambert's law on a rounded head with a nose, sockets of eyes and cheeks."""
    g = geometry(face)
    nose_y = nose_bottom(face, plan)
    nose_x = nose_middle(face, view, nose_y)
    width = 0.24 + 0.03 * g["nose_width"]
    ridge = bump(nose_x, width) * ramp(view.y, -0.15, 0.35) * ramp(view.y, nose_y + 0.10, nose_y)
    nx = 0.75 * across + 1.5 * ridge * nose_x / width
    ny = 0.45 * down
    side = jnp.abs(view.x)
    cheek = spot(side - 0.60, view.y - 0.48, 0.42, 0.34)
    nx = nx + 0.55 * cheek * jnp.sign(view.x) * (side - 0.60) / 0.42
    ny = ny + 0.8 * cheek * (view.y - 0.48) / 0.34
    nz = jnp.sqrt(jnp.maximum(1.0 - 0.56 * across**2 - 0.2 * down**2, 0.08))
    lx, ly, lz = 0.75 * face.light[0], -0.5 * face.light[1] - 0.15, 1.0
    facing = (nx * lx + ny * ly + nz * lz) / jnp.sqrt(lx * lx + ly * ly + lz * lz)
    facing = facing / jnp.sqrt(nx * nx + ny * ny + nz * nz)
    socket = spot(side - plan.eye_x, view.y + 0.08, 0.40, 0.26)
    return (0.25 + 0.75 * face.light_strength) * (0.83 - facing) + 0.07 * socket


def nose_bottom(face: FaceAttributes, plan: Plan) -> jax.Array:
    """Y of the nose's lower end, Float[]."""
    g = geometry(face)
    return 0.60 * plan.mouth_y + 0.05 * g["nose_length"] + 0.02 * plan.aged


def nose_middle(face: FaceAttributes, view: View, nose_y: jax.Array) -> jax.Array:
    """X relative to the nose, whose tip turns furthest, Float[H, W]."""
    return view.x - 0.30 * jnp.sin(face.yaw) * ramp(view.y, 0.0, nose_y)


def skin_planes(plan: Plan, shade: jax.Array) -> jax.Array:
    """Skin under light, Float[3, H, W]; shadows are warmer than what they fall on."""
    darker = jnp.asarray([0.48, 0.72, 0.82])[:, None, None] * jnp.maximum(shade, 0.0)
    # Light adds the same to every skin; dark skin shows it as sheen.
    sheen = jnp.asarray([0.42, 0.36, 0.31])[:, None, None] * jnp.maximum(-shade, 0.0)
    return plan.skin[:, None, None] * (1.0 - darker) + sheen


def draw_neck(canvas: jax.Array, face: FaceAttributes, plan: Plan, view: View) -> jax.Array:
    """Neck in the chin's shadow, and clothes."""
    x = view.head_x + 0.25 * jnp.sin(face.yaw)
    side = jnp.abs(x)
    width = 0.56 + 0.13 * plan.masculine - 0.05 * plan.feminine
    spread = ramp(view.y, plan.chin + 0.05, plan.chin + 0.9)
    neck = jnp.maximum(side - width - 0.9 * spread, plan.mouth_y - view.y)
    shadow = ramp(view.y, plan.chin + 0.42, plan.chin - 0.05)
    slope = (0.3 + 0.6 * face.light_strength) * face.light[0]
    planes = skin_planes(plan, 0.16 + 0.26 * shadow - 0.3 * slope * x)
    canvas = paint(canvas, planes, edge(neck, view.pixel))
    shoulder = plan.chin + 0.30 + 0.10 * plan.feminine
    line = shoulder - 0.16 * ramp(side, 0.45, 0.8) + 0.16 * jnp.maximum(side - 0.8, 0.0) ** 2
    cloth = edge(jnp.maximum(line - view.y, side - 2.3), view.pixel)
    folds = 1.0 - 0.14 * ramp(view.y, shoulder, shoulder + 0.2) + 0.12 * slope * x
    return paint(canvas, face.clothes[:, None, None] * folds, cloth)


def draw_head(
    canvas: jax.Array, face: FaceAttributes, plan: Plan, view: View, head: Head
) -> jax.Array:
    """Ears and the head's skin."""
    g = geometry(face)
    turn = jnp.sin(face.yaw)
    ear_x = jnp.abs(view.head_x) - plan.half_width * 0.99
    ear_y = view.y - 0.20
    tall = 0.27 + 0.03 * g["ear_size"] + 0.03 * plan.aged
    ear = edge(ellipse(ear_x + 0.15 * ear_y, ear_y, 0.13, tall), view.pixel)
    inner = spot(ear_x - 0.02, ear_y, 0.10, 0.7 * tall)
    toward = jnp.sign(view.head_x) * turn
    ear = ear * ramp(toward, 0.32, 0.18)
    canvas = paint(canvas, skin_planes(plan, head.shade * 0.7 + 0.10 + 0.22 * inner), ear)
    return paint(canvas, skin_planes(plan, head.shade), edge(head.distance, view.pixel))


def draw_complexion(
    canvas: jax.Array, face: FaceAttributes, plan: Plan, view: View, head: Head
) -> jax.Array:
    """Flushed cheeks, and the lines and folds that come with the years."""
    side = jnp.abs(view.x)
    inside = edge(head.distance + view.pixel, view.pixel)
    flush = jnp.asarray([0.86, 0.34, 0.30]) * (0.3 + 0.7 * plan.skin.mean())
    cheek = spot(side - 0.62, view.y - 0.50, 0.40, 0.32) * inside
    canvas = paint(canvas, flush, cheek, 0.20 + 0.22 * face.make_up * plan.feminine)

    nose_y = nose_bottom(face, plan)
    t = (view.y - nose_y + 0.08) / (plan.mouth_y - nose_y + 0.16)
    fold = bump(side - 0.26 - 0.24 * t, 0.055) * bump(t - 0.5, 0.62)
    fold = fold * (0.75 * plan.aged + 0.20 * face.smile)
    hollow = spot(side - 0.74, view.y - 0.78, 0.22, 0.40) * 0.22 * plan.aged
    brow = view.y + 0.08 * view.x**2
    rows = bump(brow + 0.62, 0.040) + bump(brow + 0.78, 0.040) + 0.8 * bump(brow + 0.94, 0.036)
    rows = 0.62 * rows * bump(view.x, 0.85) * ramp(plan.aged, 0.25, 0.9)
    out = side - plan.eye_x - 0.28
    feet = bump(view.y + 0.02 + 0.30 * out, 0.030) + bump(view.y - 0.05 - 0.45 * out, 0.030)
    feet = 0.55 * feet * bump(out - 0.08, 0.13) * plan.aged
    bag = bump(view.y - 0.20 + 0.9 * (side - plan.eye_x) ** 2, 0.045)
    bag = bag * bump(side - plan.eye_x, 0.26) * 0.55 * plan.aged
    crease = plan.skin * jnp.asarray([0.52, 0.42, 0.38])
    # On the darkest skins what is darker cannot be seen: lines are drawn by their lit edges.
    crease = jnp.where(plan.skin.mean() < 0.2, plan.skin + jnp.asarray([0.16, 0.13, 0.11]), crease)
    lines = jnp.clip(fold + hollow + rows + feet + bag, 0.0, 1.0) * inside
    return paint(canvas, crease, lines, 0.80)
