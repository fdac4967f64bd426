"""Settings of StyleGAN2's generator: everything that the shapes of its weights depend on."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

from qdgs_jax.models.settings import known_settings

ARCHITECTURES = ("skip", "resnet", "orig")


@dataclasses.dataclass(frozen=True)
class StyleGAN2Config:
    """Shape of a generator; everything that its weights depend on.

    Attributes:
        resolution: side of the image, a power of two from 4 to 1024.
        channels: channels of the blocks 4, 8, ..., resolution, in this order.
        z_dim: length of z.
        c_dim: number of classes; 0 for an unconditional generator.
        w_dim: length of a code.
        img_channels: channels of the image.
        architecture: how blocks make the image. "skip": each adds to it; "resnet": residual blocks
            and one head at the end; "orig": plain blocks and one head at the end.
        use_noise: whether layers have noise inputs.
        conv_clamp: activations are clamped to ± this; None for no clamp.
        mapping_layers: dense layers of the mapping network.
        mapping_dim: width of its hidden layers; None for w_dim.
        embed_dim: width of the class embedding; None for w_dim.
        mapping_lr: learning-rate multiplier, part of the run-time gain of the mapping's weights.
    """

    resolution: int
    channels: tuple[int, ...]
    z_dim: int = 512
    c_dim: int = 0
    w_dim: int = 512
    img_channels: int = 3
    architecture: str = "skip"
    use_noise: bool = True
    conv_clamp: float | None = None
    mapping_layers: int = 8
    mapping_dim: int | None = None
    embed_dim: int | None = None
    mapping_lr: float = 0.01

    def __post_init__(self) -> None:
        if self.resolution not in (4, 8, 16, 32, 64, 128, 256, 512, 1024):
            raise ValueError(
                f"resolution is {self.resolution}: give a power of two from 4 to 1024."
            )
        object.__setattr__(self, "channels", tuple(self.channels))
        if len(self.channels) != len(self.resolutions):
            raise ValueError(
                f"channels has {len(self.channels)} entries, {self.channels}: give one for each of "
                f"the resolutions {self.resolutions}."
            )
        if self.architecture not in ARCHITECTURES:
            raise ValueError(f"architecture is {self.architecture!r}: give one of {ARCHITECTURES}.")
        sizes: dict[str, Any] = {
            name: getattr(self, name)
            for name in ("z_dim", "w_dim", "img_channels", "mapping_layers", "mapping_lr")
        }
        sizes |= {f"channels[{i}]": count for i, count in enumerate(self.channels)}
        for name in ("mapping_dim", "embed_dim", "conv_clamp"):
            if getattr(self, name) is not None:
                sizes[name] = getattr(self, name)
        for name, value in sizes.items():
            if not value > 0:
                raise ValueError(f"{name} is {value}: give a positive number.")
        if self.c_dim < 0:
            raise ValueError(f"c_dim is {self.c_dim}: give the number of classes, 0 for none.")

    @property
    def resolutions(self) -> tuple[int, ...]:
        """Resolutions of the blocks: 4, 8, ..., resolution."""
        return tuple(2**i for i in range(2, int(math.log2(self.resolution)) + 1))

    @property
    def num_ws(self) -> int:
        """Codes per image: one for each convolution and one for the last RGB head."""
        return 2 * len(self.resolutions)

    @classmethod
    def from_base(
        cls, resolution: int, channel_base: int = 32768, channel_max: int = 512, **fields: Any
    ) -> StyleGAN2Config:
        """Config with min(channel_base / r, channel_max) channels at resolution r."""
        table = tuple(
            min(channel_base // 2**i, channel_max) for i in range(2, resolution.bit_length())
        )
        return cls(resolution, table, **fields)

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> StyleGAN2Config:
        """Config from what `to_dict` gave, through JSON if need be; "kind" is passed over."""
        return cls(**known_settings(cls, fields))

    def to_dict(self) -> dict[str, Any]:
        """Plain values for a config.json."""
        return {**dataclasses.asdict(self), "channels": list(self.channels)}
