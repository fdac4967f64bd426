"""Faces in FFHQ's alignment as ArcFace's template wants them: one fixed transform for all.

**Where the face lies.** FFHQ was cropped by a rule (Karras et al. 2019, `recreate_aligned_images`)
that a generator learns with the pictures. With the vector e from eye to eye and m from the eyes'
centre to the mouth's, the half side of the crop is S = max(2 |e|, 1.8 |m|), along the direction of
e - rot90(m), and its centre lies 0.1 m below the eyes. For an upright face that direction is
horizontal, so in units of the crop's side 2 S, from the upper left corner, the eyes' centre lies at

    (1/2, 1/2 - 0.1 |m| / 2S),    the mouth's at    (1/2, 1/2 + 0.9 |m| / 2S).

Where |m| is at least 10/9 |e|, as in ArcFace's template (1.155) and in most faces, S = 1.8 |m| and
both are fixed: (1/2, 17/36) and (1/2, 3/4). In a face that is shorter than wide by r = |m| / |e|,
S = 2 |e| and the mouth lies (1/4 - 9 r / 40) of the side higher.

**Where it has to lie.** The template is five points in a picture of 112 x 112 pixels (Deng et al.
2019). The centres of its eyes, (55.91, 51.60), and of the corners of its mouth, (56.14, 92.28), lie
almost below each other. So the transform needs no rotation: it scales the crop by the template's
distance of eyes and mouth, 40.69 pixels, over 5/18 of the side, and moves the eyes' height to the
template's. Across, it puts the middle between the two centres, which lie 0.11 pixels to its sides.

The template's square then covers 11 % to 88 % of the crop in both directions, so that no pixel
comes from beyond its edge, and nothing has to be filled in. The published program shrinks to 256
pixels first. One step of anti-aliased resampling, which averages over the same area, gives the same
picture of a larger one without being blurred twice.
"""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp

SIDE = 112  # pixels of the template's square
TEMPLATE = (  # left eye, right eye, nose, corners of the mouth; (x, y), pixels' centres are whole
    (38.2946, 51.6963),
    (73.5318, 51.5014),
    (56.0252, 71.7366),
    (41.5493, 92.3655),
    (70.7299, 92.2041),
)
EYES, MOUTH = (0.5, 17 / 36), (0.5, 3 / 4)  # centres in FFHQ's crops, in units of their side


def arcface_transform() -> tuple[float, tuple[float, float]]:
    """The similarity transform from FFHQ's crops to the template.

    Returns:
        scale s and shift (x, y): the point (u, v) of a crop of side 1 goes to (s u + x, s v + y),
        in units of the template's side; the origins are the upper left corners.
    """
    left, right, _, *corners = [((x + 0.5) / SIDE, (y + 0.5) / SIDE) for x, y in TEMPLATE]
    eyes = [(a + b) / 2 for a, b in zip(left, right, strict=True)]
    mouth = [(a + b) / 2 for a, b in zip(*corners, strict=True)]
    scale = (mouth[1] - eyes[1]) / (MOUTH[1] - EYES[1])
    return scale, ((eyes[0] + mouth[0]) / 2 - scale * EYES[0], eyes[1] - scale * EYES[1])


@functools.partial(jax.jit, static_argnames=("align", "side"))
def fit(pictures: jax.Array, align: str = "arcface", side: int = SIDE) -> jax.Array:
    """Pictures as a face recogniser takes them, resampled once with anti-aliasing.

    Args:
        pictures: UInt8[B, H, H, 3], for "arcface" in FFHQ's alignment, of any size.
        align: "arcface" moves faces to the template; "none" shrinks or grows the whole picture.
        side: S; the template is scaled where it is not 112.

    Returns:
        UInt8[B, S, S, 3].

    Raises:
        ValueError: pictures in FFHQ's alignment are not square.
    """
    if align == "arcface" and pictures.shape[1] != pictures.shape[2]:
        raise ValueError(
            f"pictures of {pictures.shape[2]} x {pictures.shape[1]} pixels cannot be in FFHQ's "
            'alignment, whose crops are square: give align = "none" in the table '
            "[dataset.subjects] of the run."
        )
    scale, shift = arcface_transform() if align == "arcface" else (1.0, (0.0, 0.0))
    height, width = pictures.shape[1:3]
    fitted = jax.image.scale_and_translate(
        pictures.astype(jnp.float32),
        (len(pictures), side, side, 3),
        (1, 2),
        jnp.asarray([side * scale / height, side * scale / width], jnp.float32),
        side * jnp.asarray([shift[1], shift[0]], jnp.float32),
        method="linear",
        antialias=True,
    )
    return jnp.round(jnp.clip(fitted, 0, 255)).astype(jnp.uint8)
