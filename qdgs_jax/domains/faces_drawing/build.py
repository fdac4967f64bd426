"""From attributes to a plan: the proportions and colours of one face, in face units.

A face unit is the distance between mean eyes; the origin lies midway between the eyes, y points
down. FFHQ crops a photo to the square of centre e + 0.1 (m - e) and half side max(2 d, 1.8 |m - e|)
with e the midpoint of the eyes, d their distance and m the middle of the mouth (Karras et al. 2019,
arXiv:1812.04948, appendix A). With mouths r eye distances below the eyes, eyes stand 0.25 image
widths apart, 0.5 - 0.025 r from the top, mouths at 0.5 + 0.225 r, while r <= 10/9: at the mean
face's r of 0.95 the eyes' centres are at (0.375, 0.476) and (0.625, 0.476), the mouth at
(0.5, 0.714). Turned heads come closer, as their eyes' distance shrinks.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from qdgs_jax.domains.faces_drawing.attributes import GEOMETRY, FaceAttributes
from qdgs_jax.domains.faces_drawing.brushes import (
    GREY_HAIR,
    HAIR_COLOURS,
    IRIS_COLOURS,
    MONK,
    along,
    mix,
    ramp,
)


class Plan(NamedTuple):
    """Proportions in face units, colours Float[3] and amounts in [0, 1], of one face.

    Attributes:
        eye_x: distance of an eye's centre from the middle.
        half_width: of the head at the cheekbones.
        chin: y of the chin; crown: y of the top of the skull; mouth_y: of the mouth.
        squareness: of the jaw, 0 oval to 1.
        taper: how much narrower the jaw is than the cheekbones.
        masculine, feminine: how strong the cues are.
        aged: lines and folds.
        recession: how far the hairline has gone back, in face units.
    """

    eye_x: jax.Array
    half_width: jax.Array
    chin: jax.Array
    crown: jax.Array
    mouth_y: jax.Array
    squareness: jax.Array
    taper: jax.Array
    masculine: jax.Array
    feminine: jax.Array
    aged: jax.Array
    recession: jax.Array
    skin: jax.Array
    hair: jax.Array
    beard: jax.Array
    iris: jax.Array
    lips: jax.Array


class View(NamedTuple):
    """Where the pixels lie, each Float[H, W] in face units unless said otherwise.

    Attributes:
        x, y: on the face, whose features turn with the head.
        head_x: relative to the head, whose outline moves less.
        pixel: Float[], the width of a pixel.
        wave: blotches of curls and beards in [-1, 1].
        strands: vertical stripes of straight hair in [-1, 1].
    """

    x: jax.Array
    y: jax.Array
    head_x: jax.Array
    pixel: jax.Array
    wave: jax.Array
    strands: jax.Array


def geometry(face: FaceAttributes) -> dict[str, jax.Array]:
    """Departures from the mean face by name, Float[] each."""
    return {name: face.identity.geometry[i] for i, name in enumerate(GEOMETRY)}


def make_plan(face: FaceAttributes) -> Plan:
    """Proportions and colours of one face, whose attributes have no leading axis."""
    who, g = face.identity, geometry(face)
    masculine, feminine = ramp(who.gender, 0.15, -0.8), ramp(who.gender, -0.15, 0.8)
    aged = ramp(who.age, 30.0, 76.0)
    mouth_y = 0.95 + 0.06 * g["mouth_drop"] + 0.02 * masculine
    greying = ramp(who.age, 36.0 + 5.0 * g["ear_size"], 78.0 + 6.0 * g["forehead"])
    natural = along(HAIR_COLOURS, who.hair_tone)
    # Monk's swatches are of skin at rest in grey light: blood makes faces a little warmer.
    skin = along(MONK, (who.skin - 1.0) / 9.0) * jnp.asarray([1.0, 0.95, 0.92])
    dark = ramp(who.skin, 6.5, 9.5)
    # The last two swatches are nearly black: in daylight faces of these tones are deep brown.
    skin = skin + dark * jnp.asarray([0.085, 0.050, 0.032])
    flush = jnp.asarray([0.80, 0.36, 0.34]) * (0.42 + 0.58 * skin.mean())
    rouge = jnp.asarray([0.74, 0.16, 0.24])
    lips = mix(mix(skin, flush, 0.42 + 0.25 * dark), rouge, (0.15 + 0.6 * face.make_up) * feminine)
    return Plan(
        eye_x=0.5 * (1.0 + 0.05 * g["eye_spacing"]),
        half_width=1.06 + 0.07 * g["face_width"] + 0.04 * masculine,
        chin=mouth_y + 0.60 + 0.07 * g["chin_length"] + 0.07 * masculine,
        crown=-(1.36 + 0.06 * g["forehead"]),
        mouth_y=mouth_y,
        squareness=jnp.clip(0.25 + 0.2 * g["jaw_width"] + 0.4 * masculine, 0.0, 0.9),
        taper=0.22 - 0.06 * g["jaw_width"] - 0.05 * g["cheeks"] - 0.09 * masculine,
        masculine=masculine,
        feminine=feminine,
        aged=aged,
        recession=ramp(who.age, 34.0, 78.0) * masculine * (0.45 + 0.35 * g["forehead"]),
        skin=skin,
        hair=mix(natural, jnp.asarray(GREY_HAIR), 0.90 * greying),
        beard=mix(0.85 * natural, jnp.asarray(GREY_HAIR), 0.85 * greying),
        iris=along(IRIS_COLOURS, who.eye_tone),
        lips=lips,
    )


def make_view(face: FaceAttributes, plan: Plan, size: int) -> View:
    """Pixels of a picture of `size` x `size` in face units, cropped by FFHQ's rule."""
    apart = 2.0 * plan.eye_x * jnp.cos(face.yaw)
    unit = face.scale / jnp.maximum(4.0 * apart, 3.6 * plan.mouth_y)  # image widths
    axis = (jnp.arange(size) + 0.5) / size
    middle = 0.1 * plan.mouth_y * unit
    u = (axis - 0.5 - face.shift[0])[None, :] / unit
    v = (axis - 0.5 - face.shift[1] + middle)[:, None] / unit
    cos, sin = jnp.cos(face.rotation), jnp.sin(face.rotation)
    x, y = cos * u + sin * v, cos * v - sin * u
    turn = jnp.sin(face.yaw)
    head_x = x + 0.55 * turn
    # Across the face depth falls off as 0.25 x²: the far side is foreshortened.
    x = (x + 0.25 * turn * x * x) / jnp.cos(face.yaw)
    phase = 9.0 * face.parting
    wave = _waves(u[0], v[:, 0], jnp.asarray([[11.0, 7.0], [-9.0, 10.0], [15.0, -3.0]]), phase)
    strands = _waves(u[0], v[:, 0], jnp.asarray([[23.0, 2.0], [37.0, -3.0]]), phase)
    return View(x, y, head_x, 1.0 / (unit * size), wave, strands)


def _waves(u: jax.Array, v: jax.Array, numbers: jax.Array, phase: jax.Array) -> jax.Array:
    """Mean of plane waves of wave numbers Float[K, 2], Float[H, W] of u Float[W], v Float[H].

    sin(a + b) = sin a cos b + cos a sin b: a product of matrices of sines along the axes, because
    sines of every pixel would cost as much as the rest of the face.
    """
    across = numbers[:, :1] * u + phase * (1.0 + jnp.arange(len(numbers)))[:, None]
    down = numbers[:, 1:] * v
    left = jnp.concatenate([jnp.cos(down), jnp.sin(down)])
    right = jnp.concatenate([jnp.sin(across), jnp.cos(across)])
    return left.T @ right / len(numbers)
