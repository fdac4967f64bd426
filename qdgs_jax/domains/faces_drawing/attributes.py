"""What a drawn face is made of, as pytrees of arrays, and the categories that people name.

An `Identity` is what stays with a person: geometry, skin, age, where on the scale from masculine to
feminine the cues lie, the colours of hair and eyes. The rest of `FaceAttributes` changes from one
picture of the person to the next. Everything is continuous; `label_faces` cuts it into groups.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

GEOMETRY = (
    "face_width",
    "jaw_width",
    "chin_length",
    "forehead",
    "cheeks",
    "eye_spacing",
    "eye_size",
    "eye_tilt",
    "eyelid",
    "brow_height",
    "brow_thickness",
    "brow_arch",
    "nose_length",
    "nose_width",
    "mouth_drop",
    "mouth_width",
    "lip_fullness",
    "ear_size",
)
SKIN = ("light", "mixed", "dark")
AGE = ("young", "old")
GENDER = ("masculine", "androgynous", "feminine")
HAIR = ("short", "long")
GLASSES = ("no glasses", "glasses")

# Of Monk's ten tones 1 to 4 pass for light, 5 and 6 for neither, 7 to 10 for dark.
SKIN_EDGES = (4.5, 6.5)
AGE_EDGE = 40.0
GENDER_EDGES = (-1 / 3, 1 / 3)
HAIR_EDGE = 0.5


class Identity(NamedTuple):
    """People; every field has leading axis N.

    Attributes:
        geometry: Float[N, len(GEOMETRY)] in [-1, 1], departures from the mean face.
        skin: Float[N] in [1, 10], tone on Monk's scale (Monk 2023, https://skintone.google).
        age: Float[N] in [18, 80], years.
        gender: Float[N] in [-1, 1], cues from masculine to feminine.
        hair_tone: Float[N] in [0, 1], hair before it greys: black, brown, auburn, blond.
        eye_tone: Float[N] in [0, 1], irises: dark brown, brown, green, blue.
    """

    geometry: jax.Array
    skin: jax.Array
    age: jax.Array
    gender: jax.Array
    hair_tone: jax.Array
    eye_tone: jax.Array


class FaceAttributes(NamedTuple):
    """Pictures of people; every field has leading axis N.

    Attributes:
        identity: who is shown.
        hair_length: Float[N] in [0, 1], cropped to below the shoulders.
        hair_volume: Float[N] in [0, 1].
        hair_curl: Float[N] in [0, 1], straight to curly.
        fringe: Float[N] in [0, 1], how far hair falls into the forehead.
        parting: Float[N] in [-1, 1], the side on which hair parts.
        beard: Float[N] in [0, 1], shaved to full; it grows on masculine faces alone.
        make_up: Float[N] in [0, 1]; it shows more on feminine faces.
        glasses: Float[N] in [0, 1], without to with.
        frame_shape: Float[N] in [0, 1], round to square glasses.
        smile: Float[N] in [0, 1]; above 0.5 the lips part.
        gaze: Float[N] in [-1, 1], left to right.
        light: Float[N, 2] in [-1, 1], from where the light falls: from the left to the right of the
            picture, and from below to above.
        light_strength: Float[N] in [0, 1], even to strong.
        light_warmth: Float[N] in [-1, 1], cool to warm.
        background: Float[N, 2, 3] in [0, 1], RGB at the top and at the bottom.
        clothes: Float[N, 3] in [0, 1], RGB.
        shift: Float[N, 2], of the face to the right and down, in image widths.
        rotation: Float[N], in radians, clockwise.
        scale: Float[N], about 1.
        yaw: Float[N], in radians, to the right of the picture; drawn well up to 0.35.
    """

    identity: Identity
    hair_length: jax.Array
    hair_volume: jax.Array
    hair_curl: jax.Array
    fringe: jax.Array
    parting: jax.Array
    beard: jax.Array
    make_up: jax.Array
    glasses: jax.Array
    frame_shape: jax.Array
    smile: jax.Array
    gaze: jax.Array
    light: jax.Array
    light_strength: jax.Array
    light_warmth: jax.Array
    background: jax.Array
    clothes: jax.Array
    shift: jax.Array
    rotation: jax.Array
    scale: jax.Array
    yaw: jax.Array


class FaceLabels(NamedTuple):
    """Groups that faces belong to; every field is Int[N].

    Attributes:
        skin: into `SKIN`.
        age: into `AGE`.
        gender: into `GENDER`.
        hair: into `HAIR`.
        glasses: into `GLASSES`.
        decade: of the age, 1 for below 20 to 8.
    """

    skin: jax.Array
    age: jax.Array
    gender: jax.Array
    hair: jax.Array
    glasses: jax.Array
    decade: jax.Array


def label_faces(attributes: FaceAttributes) -> FaceLabels:
    """The groups of faces, by the edges at the top of this module; edges belong to the upper."""
    who = attributes.identity

    def group(values: jax.Array, *edges: float) -> jax.Array:
        return jnp.searchsorted(jnp.asarray(edges), values, side="right").astype(jnp.int32)

    return FaceLabels(
        skin=group(who.skin, *SKIN_EDGES),
        age=group(who.age, AGE_EDGE),
        gender=group(who.gender, *GENDER_EDGES),
        hair=group(attributes.hair_length, HAIR_EDGE),
        glasses=group(attributes.glasses, 0.5),
        decade=(who.age // 10).astype(jnp.int32),
    )
