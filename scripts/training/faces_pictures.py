"""Pictures of drawn faces as generators make them: between groups, spoilt a little, or corrupted.

The oracle and the CLIP of the embedded face world learn from these.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from qdgs_jax.domains.faces_drawing import FaceAttributes
from qdgs_jax.models.face_regressor import RANGES, TRAITS

MAX_SHIFT = 2  # pixels
MAX_BLUR = 1.3  # standard deviation in pixels
MAX_NOISE = 0.12  # standard deviation of pixels in [-1, 1]


def traits_of(faces: FaceAttributes) -> jax.Array:
    """What a network shall see, Float[B, len(TRAITS)] in the units of `RANGES`."""
    who = faces.identity
    return jnp.stack([who.skin, who.age, faces.hair_length, who.gender], axis=-1)


def widen(key: jax.Array, faces: FaceAttributes, share: float = 0.5) -> FaceAttributes:
    """A share of the faces with traits that are uniform over their ranges."""
    value_key, which_key = jax.random.split(key)
    count = faces.smile.shape[0]
    low, high = jnp.asarray(RANGES).T
    drawn = low + (high - low) * jax.random.uniform(value_key, (count, len(TRAITS)))
    wide = jax.random.bernoulli(which_key, share, (count, 1))
    skin, age, hair, gender = jnp.where(wide, drawn, traits_of(faces)).T
    identity = faces.identity._replace(skin=skin, age=age, gender=gender)
    return faces._replace(identity=identity, hair_length=hair)


def _blurred(images: jax.Array, shift: jax.Array, deviation: jax.Array) -> jax.Array:
    """Images moved by shift Float[2, B, 1, 1] and blurred by deviation Float[B, 1, 1], in pixels.

    One matrix per axis shifts and blurs; beyond the border the last pixels count for more.
    """
    axis = jnp.arange(images.shape[1])
    rows, columns = (
        jax.nn.softmax(-0.5 * ((axis[:, None] + s - axis) / deviation) ** 2, axis=-1) for s in shift
    )
    images = jnp.einsum("byi,bijc->byjc", rows, images)
    return jnp.einsum("bxj,byjc->byxc", columns, images)


def spoil(key: jax.Array, images: jax.Array) -> jax.Array:
    """Images Float[B, S, S, 3] shifted, blurred, brightened or darkened, and noisy."""
    shift_key, blur_key, gain_key, level_key, noise_key = jax.random.split(key, 5)
    batch = len(images)
    shift = jax.random.uniform(shift_key, (2, batch, 1, 1), minval=-MAX_SHIFT, maxval=MAX_SHIFT)
    blur = 0.3 + (MAX_BLUR - 0.3) * jax.random.uniform(blur_key, (batch, 1, 1)) ** 2
    images = _blurred(images, shift, blur)
    gain, offset = jax.random.uniform(gain_key, (2, batch, 1, 1, 1), minval=-0.08, maxval=0.08)
    level = jax.random.uniform(level_key, (batch, 1, 1, 1), maxval=MAX_NOISE)
    noise = level * jax.random.normal(noise_key, images.shape)
    return jnp.clip(images * (1.0 + gain) + offset + noise, -1.0, 1.0)


class Corrupted(NamedTuple):
    """Pictures that are hardly portraits any more.

    Attributes:
        images: Float[B, S, S, 3] in [-1, 1].
        amount: Float[B] in [0, 1], how far they are corrupted.
        share: Float[B] in [0, 1], how much of another face is seen in each.
    """

    images: jax.Array
    amount: jax.Array
    share: jax.Array


def _field(key: jax.Array, batch: int, cells: int, size: int, channels: int) -> jax.Array:
    """Smooth random fields Float[B, size, size, channels] with `cells` bumps a side."""
    coarse = jax.random.normal(key, (batch, cells, cells, channels))
    return jax.image.resize(coarse, (batch, size, size, channels), "linear")


def _smeared(key: jax.Array, images: jax.Array, amount: jax.Array) -> jax.Array:
    """Pixels taken from up to a fifth of the width away, neighbours from alike places."""
    batch, size = images.shape[:2]
    moved = 0.1 * size * amount[..., None] * _field(key, batch, 6, size, 2)
    axis = jnp.arange(size, dtype=jnp.float32)
    y = axis[:, None] + moved[..., 0]
    x = axis + moved[..., 1]

    def sample(image: jax.Array, y: jax.Array, x: jax.Array) -> jax.Array:
        take = jax.scipy.ndimage.map_coordinates
        return jnp.stack([take(image[..., c], [y, x], 1, "nearest") for c in range(3)], axis=-1)

    return jax.vmap(sample)(images, y, x)


def corrupt(key: jax.Array, images: jax.Array, others: jax.Array) -> Corrupted:
    """Corrupt images Float[B, S, S, 3] in [-1, 1], each in one of nine ways and to some amount.

    Blurred, noisy, discoloured, mixed with another face, half of another face, smeared, washed
    out, covered by blotches, no face at all. `others` are the other faces.
    """
    keys = jax.random.split(key, 12)
    batch, size = images.shape[:2]
    kind = jax.random.randint(keys[0], (batch,), 0, 9)
    amount = jnp.where(kind == 8, 1.0, jax.random.uniform(keys[1], (batch,), minval=0.25))
    a = amount[:, None, None, None]
    blurred = _blurred(images, jnp.zeros((2, batch, 1, 1)), 0.8 + 4.0 * a[..., 0])
    noisy = images + (0.1 + 0.5 * a) * jax.random.normal(keys[2], images.shape)
    mixer = jax.random.normal(keys[3], (batch, 3, 3))
    tint = jax.random.uniform(keys[4], (batch, 1, 1, 3), minval=-0.6, maxval=0.6)
    discoloured = (1 - a) * images + a * (jnp.einsum("byxc,bcd->byxd", images, mixer) + tint)
    mixed = images + 0.5 * a * (others - images)
    cut = jax.random.uniform(keys[5], (batch, 1, 1), minval=0.35, maxval=0.65) * size
    across = jax.random.bernoulli(keys[6], 0.5, (batch, 1, 1))
    place = jnp.where(across, jnp.arange(size)[:, None], jnp.arange(size))
    halves = images + a * (place > cut)[..., None] * (others - images)
    washed = images * (1 - 0.9 * a) + a * tint
    blotch = jax.nn.sigmoid(8.0 * (_field(keys[7], batch, 5, size, 1) - 0.9 + 1.2 * a))
    paint = _field(keys[8], batch, 4, size, 3)
    covered = images + blotch * (paint - images)
    grain = jax.random.uniform(keys[9], (batch, 1, 1, 1)) ** 2
    nothing = paint + grain * jax.random.normal(keys[10], images.shape)
    smeared = _smeared(keys[11], images, a[..., 0])
    ways = jnp.stack(
        [blurred, noisy, discoloured, mixed, halves, smeared, washed, covered, nothing]
    )
    share = jnp.where((kind == 3) | (kind == 4), 0.5 * amount, 0.0)
    return Corrupted(jnp.clip(ways[kind, jnp.arange(batch)], -1.0, 1.0), amount, share)
