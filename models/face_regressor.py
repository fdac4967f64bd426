"""What a picture of a face shows, as numbers: skin tone, age, hair length, gender cues.

A small convolutional network that judges generated faces without asking CLIP. It gives a mean and
a variance for each number (Nix & Weigend 1994), so that it can say of a picture that it is unclear.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from qdgs_jax.models.settings import known_settings

TRAITS = ("skin", "age", "hair", "gender")
# Lowest and highest value of each trait: Monk's scale, years, hair length, masculine to feminine.
RANGES = ((1.0, 10.0), (18.0, 80.0), (0.0, 1.0), (-1.0, 1.0))


@dataclasses.dataclass(frozen=True)
class FaceRegressorConfig:
    """Sizes of the network.

    Attributes:
        image_size: height and width of the images, a multiple of 16.
        channels: widths of the three convolutions.
        hidden: width of the hidden layer.
    """

    image_size: int = 64
    channels: tuple[int, int, int] = (32, 64, 96)
    hidden: int = 96

    def __post_init__(self) -> None:
        object.__setattr__(self, "channels", tuple(self.channels))
        if self.image_size % 16 or self.image_size < 16:
            raise ValueError(f"image_size is {self.image_size}: give a multiple of 16, e.g. 64.")
        if len(self.channels) != 3 or min(*self.channels, self.hidden) < 1:
            raise ValueError(
                f"channels {self.channels} and hidden {self.hidden}: give three widths and one, "
                "all positive, e.g. (32, 64, 96) and 96."
            )

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> FaceRegressorConfig:
        """Config from what `to_dict` gave, through JSON if need be; "kind" is passed over."""
        return cls(**known_settings(cls, fields))

    def to_dict(self) -> dict[str, Any]:
        """Plain values for a config.json."""
        return {**dataclasses.asdict(self), "channels": list(self.channels)}


class Traits(NamedTuple):
    """What the network sees, Float[B, len(TRAITS)] each.

    Attributes:
        mean: in [-1, 1] from the lowest to the highest of `RANGES`, not clipped.
        log_variance: of what the mean leaves open, in the same unit.
    """

    mean: jax.Array
    log_variance: jax.Array

    @property
    def values(self) -> jax.Array:
        """Means in the units of `RANGES`."""
        low, high = jnp.asarray(RANGES).T
        return low + 0.5 * (self.mean + 1.0) * (high - low)

    @property
    def deviation(self) -> jax.Array:
        """Standard deviations in the units of `RANGES`."""
        low, high = jnp.asarray(RANGES).T
        return 0.5 * (high - low) * jnp.exp(0.5 * self.log_variance)


def scale_traits(values: jax.Array) -> jax.Array:
    """Values Float[B, len(TRAITS)] in the units of `RANGES` to [-1, 1]."""
    low, high = jnp.asarray(RANGES).T
    return 2.0 * (values - low) / (high - low) - 1.0


class FaceRegressor(nnx.Module):
    """Images Float[B, S, S, 3] in [-1, 1], in FFHQ's alignment, to `Traits`."""

    def __init__(self, cfg: FaceRegressorConfig, *, rngs: nnx.Rngs):
        widths = (12, *cfg.channels)
        for number in range(3):
            conv = nnx.Conv(widths[number], widths[number + 1], (3, 3), strides=2, rngs=rngs)
            setattr(self, f"conv{number}", conv)
        features = cfg.channels[-1] * (cfg.image_size // 16) ** 2
        self.hidden = nnx.Linear(features, cfg.hidden, rngs=rngs)
        self.head = nnx.Linear(cfg.hidden, 2 * len(TRAITS), rngs=rngs)
        self.cfg = cfg

    def __call__(self, images: jax.Array) -> Traits:
        """Look at images."""
        batch, half = images.shape[0], images.shape[1] // 2
        # Squares of 2 x 2 pixels become channels: a quarter of the positions to convolve.
        x = images.reshape(batch, half, 2, half, 2, 3).transpose(0, 1, 3, 2, 4, 5)
        x = x.reshape(batch, half, half, 12)
        for number in range(3):
            x = nnx.relu(getattr(self, f"conv{number}")(x))
        x = self.head(nnx.relu(self.hidden(x.reshape(batch, -1))))
        mean, log_variance = jnp.split(x, 2, axis=-1)
        return Traits(mean, jnp.clip(log_variance, -8.0, 2.0))
