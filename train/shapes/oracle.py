"""An independent judge of generated shapes: what is really in a picture, without asking CLIP.

CLIP guides the search and labels the data set, so it cannot also vouch for them. The oracle tells
the colour from the pixels, and the shape by a classifier that has only seen balanced drawings,
rough, blurred and noisy ones among them, because generated pictures are.
"""

from __future__ import annotations

import dataclasses
import functools
import os

import jax
import jax.numpy as jnp
import numpy as np

from qdgs_jax import keys
from qdgs_jax.domains.shapes_drawing import red_blue_scene, render
from qdgs_jax.models.shape_classifier import ShapeClassifierConfig
from qdgs_jax.train.loader import area_average, load_images
from qdgs_jax.train.loop import FitSettings, Params, fit, init_models, predict
from qdgs_jax.train.shapes.repair_result import GROUPS

UNCLEAR = -1  # neither red nor blue, or hardly anything to see
MIN_CHROMA = 0.01  # mean chroma of a picture; the smallest drawing has 0.04
MIN_TINT = 0.15  # red minus blue of what is coloured; pure red and blue have about 0.75
MAX_BLUR = 0.025  # standard deviation in image widths
MAX_NOISE = 0.06
CHUNK = 1000  # drawings made together, by one program for all


@dataclasses.dataclass(frozen=True)
class Judgement:
    """What the oracle sees in a data set.

    Attributes:
        groups: Int[N] into `GROUPS`, or `UNCLEAR`.
        labels: Int[N], what the data set says: 0 triangle, 1 square.
    """

    groups: np.ndarray
    labels: np.ndarray

    def shares(self) -> dict[str, float]:
        """Share of the pictures in each group, and of the unclear ones; they add up to 1."""
        shares = {name: float(np.mean(self.groups == g)) for g, name in enumerate(GROUPS)}
        return {**shares, "unclear": float(np.mean(self.groups == UNCLEAR))}

    def label_agreement(self) -> float:
        """Share of the clear pictures whose label names the shape that the oracle sees."""
        clear = self.groups != UNCLEAR
        return float(np.mean((self.groups // 2 == self.labels)[clear])) if clear.any() else 0.0


@dataclasses.dataclass(frozen=True)
class Oracle:
    """A judge of red and blue triangles and squares.

    Attributes:
        cfg: sizes of the shape classifier.
        params: its parameters, with a leading axis of 1.
        accuracy: its share of right answers on blurred and noisy drawings it has not seen.
    """

    cfg: ShapeClassifierConfig
    params: Params
    accuracy: float

    def judge(self, images: np.ndarray) -> np.ndarray:
        """Groups Int[N] of pictures UInt8[N, H, W, 3]; `UNCLEAR` where no colour can be told."""
        small = area_average(images, self.cfg.image_size)
        square = np.asarray(predict(self.cfg, self.params, small))[0] > 0
        red, _, blue = np.moveaxis(images / 255.0, -1, 0)
        chroma = np.ptp(images / 255.0, axis=-1)
        amount = chroma.mean(axis=(1, 2))
        tint = (chroma * (red - blue)).mean(axis=(1, 2)) / np.maximum(amount, 1e-9)
        clear = (amount >= MIN_CHROMA) & (np.abs(tint) >= MIN_TINT)
        return np.where(clear, 2 * square + (tint < 0), UNCLEAR)


@functools.partial(jax.jit, static_argnames=("count", "image_size"))
def _rough_drawings(key: jax.Array, count: int, image_size: int) -> tuple[jax.Array, jax.Array]:
    """Rough drawings UInt8[count, S, S, 3], all groups equally frequent, and their shapes."""
    scene_key, blur_key, ink_key, level_key, noise_key = jax.random.split(key, 5)
    shapes, colours = jnp.arange(count) % 2, jnp.arange(count) // 2 % 2
    scene = red_blue_scene(scene_key, shapes, colours)
    scene = scene._replace(blur=jax.random.uniform(blur_key, (count,), maxval=MAX_BLUR))
    images = render(scene, ink_key, image_size, rough=True)
    level = jax.random.uniform(level_key, (count, 1, 1, 1), maxval=MAX_NOISE)
    images = images + level * jax.random.normal(noise_key, images.shape)
    return jnp.round(255 * jnp.clip(images, 0.0, 1.0)).astype(jnp.uint8), shapes


def train_oracle(
    seed: int = 0, *, image_size: int = 32, images: int = 4000, epochs: int = 8
) -> Oracle:
    """Train the oracle's shape classifier on balanced drawings.

    Args:
        seed: of drawings, weights and order.
        image_size: width and height that it looks at; larger pictures are averaged down.
        images: number of drawings to learn from.
        epochs: passes over them.
    """
    cfg = ShapeClassifierConfig(image_size=image_size)
    draw_key, test_key, init_key, order_key = jax.random.split(
        keys.stream(keys.root(seed), "oracle"), 4
    )
    drawn = [
        _rough_drawings(key, CHUNK, image_size)
        for key in jax.random.split(draw_key, -(-images // CHUNK))
    ]
    pictures, shapes = (jnp.concatenate(part)[:images] for part in zip(*drawn, strict=True))
    params = init_models(cfg, init_key[None])
    params = fit(cfg, FitSettings(epochs=epochs), params, pictures, shapes, order_key[None])
    pictures, shapes = _rough_drawings(test_key, CHUNK, image_size)
    right = (predict(cfg, params, pictures)[0] > 0) == (shapes == 1)
    return Oracle(cfg, params, float(right.mean()))


def judge_dataset(dataset_dir: str | os.PathLike[str], oracle: Oracle) -> Judgement:
    """Look at every picture of a data set whose classes are triangle and square, in this order.

    Raises:
        ShardError: the folder holds no complete data set.
    """
    data = load_images(dataset_dir, oracle.cfg.image_size)
    return Judgement(oracle.judge(data.images), data.labels)
