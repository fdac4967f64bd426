"""The shapes VAE of QDGS (Chang et al. 2024, appendix): 128 x 128 images from 6 latents.

Three strided convolutions and two linear heads encode; one linear layer and three transposed
convolutions decode. A transposed convolution of kernel 4, stride 2 and padding 1 is computed as one
matrix product over 2 x 2 windows that yields the four phases of the output as channels: no zeros
are multiplied, and its gradient is a matrix product too. (On XLA's CPU backend the gradients of
strided and transposed convolutions inside a loop are 3 to 40 times slower.)

The decoder may compute its products in bfloat16; what stands between them, and the image, are
float32.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike

from qdgs_jax.models.settings import known_settings


@dataclasses.dataclass(frozen=True)
class VAEConfig:
    """Sizes of the VAE; the defaults are the published ones.

    Attributes:
        latent_dim: length D of a latent.
        image_size: height and width of images, a multiple of 8.
        channels: widths of the three encoder convolutions; the decoder mirrors them.
    """

    latent_dim: int = 6
    image_size: int = 128
    channels: tuple[int, int, int] = (16, 32, 32)

    def __post_init__(self) -> None:
        if self.image_size % 8 or self.image_size < 8:
            raise ValueError(f"image_size is {self.image_size}: give a multiple of 8, e.g. 128.")
        if len(self.channels) != 3:
            raise ValueError(f"channels is {self.channels}: give three widths, e.g. (16, 32, 32).")

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> VAEConfig:
        """Config from what `to_dict` gave, through JSON if need be; "kind" is passed over."""
        values = known_settings(cls, fields)
        if "channels" in values:
            values["channels"] = tuple(values["channels"])
        return cls(**values)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for a config.json."""
        return {**dataclasses.asdict(self), "channels": list(self.channels)}


class ConvTranspose(nnx.Module):
    """Transposed convolution, kernel 4, stride 2, padding 1: Float[B, H, W, I] to [B, 2H, 2W, O].

    The kernel Float[4, 4, I, O] has PyTorch's meaning: input pixel i contributes to output pixel
    `2 i - 1 + k` through tap k. The product is computed in `dtype`, the result is float32.
    """

    def __init__(self, c_in: int, c_out: int, *, dtype: DTypeLike, rngs: nnx.Rngs):
        scale = (4 * c_in) ** -0.5  # four taps reach an output pixel
        self.kernel = nnx.Param(scale * jax.random.normal(rngs.params(), (4, 4, c_in, c_out)))
        self.bias = nnx.Param(jnp.zeros(c_out))
        self.dtype = jnp.dtype(dtype)

    def __call__(self, x: jax.Array) -> jax.Array:
        """Double height and width."""
        batch, height, width, c_in = x.shape
        kernel = self.kernel[...].astype(self.dtype)
        c_out = kernel.shape[-1]
        # Even outputs 2i see inputs (i - 1, i) through taps (3, 1), odd ones (i, i + 1) through
        # (2, 0): in a 2 x 2 window both phases of both axes are one matrix product.
        phases = kernel[::-1, ::-1].reshape(2, 2, 2, 2, c_in, c_out)  # tap row, phase row, ...
        phases = phases.transpose(0, 2, 4, 1, 3, 5).reshape(4 * c_in, 4 * c_out)
        x = jnp.pad(x.astype(self.dtype), ((0, 0), (1, 1), (1, 1), (0, 0)))
        windows = [
            x[:, i : i + height + 1, j : j + width + 1] for i, j in ((0, 0), (0, 1), (1, 0), (1, 1))
        ]
        y = jnp.concatenate(windows, axis=-1) @ phases
        y = y.reshape(batch, height + 1, width + 1, 2, 2, c_out)
        rows = jnp.stack([y[:, :-1, :, 0], y[:, 1:, :, 1]], axis=2)  # [B, H, 2, W + 1, 2, O]
        both = jnp.stack([rows[:, :, :, :-1, 0], rows[:, :, :, 1:, 1]], axis=4)
        return both.reshape(batch, 2 * height, 2 * width, c_out) + self.bias[...]


class Encoder(nnx.Module):
    """Images to the mean and log-variance of their latents."""

    def __init__(self, cfg: VAEConfig, *, rngs: nnx.Rngs):
        c1, c2, c3 = cfg.channels
        features = c3 * (cfg.image_size // 8) ** 2
        pad = ((1, 1), (1, 1))
        self.conv1 = nnx.Conv(3, c1, (3, 3), strides=2, padding=pad, rngs=rngs)
        self.conv2 = nnx.Conv(c1, c2, (3, 3), strides=2, padding=pad, rngs=rngs)
        self.conv3 = nnx.Conv(c2, c3, (3, 3), strides=2, padding=pad, rngs=rngs)
        self.fc_mu = nnx.Linear(features, cfg.latent_dim, rngs=rngs)
        self.fc_logvar = nnx.Linear(features, cfg.latent_dim, rngs=rngs)

    def __call__(self, images: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Float[B, H, W, 3] to two Float[B, D]."""
        x = nnx.relu(self.conv1(images))
        x = nnx.relu(self.conv2(x))
        x = nnx.relu(self.conv3(x)).reshape(images.shape[0], -1)
        return self.fc_mu(x), self.fc_logvar(x)


class Decoder(nnx.Module):
    """Latents to images.

    Args:
        cfg: sizes.
        dtype: of the products; float32, or bfloat16. Parameters and the image stay float32.
        remat: recompute each layer's activations in the backward pass instead of keeping them.
        rngs: initial weights come from the stream `params`.
    """

    def __init__(
        self,
        cfg: VAEConfig,
        *,
        dtype: DTypeLike = jnp.float32,
        remat: bool = False,
        rngs: nnx.Rngs,
    ):
        c1, c2, c3 = cfg.channels
        self.grid = cfg.image_size // 8
        self.remat = remat
        self.fc1 = nnx.Linear(cfg.latent_dim, c3 * self.grid**2, dtype=dtype, rngs=rngs)
        self.convT1 = ConvTranspose(c3, c2, dtype=dtype, rngs=rngs)
        self.convT2 = ConvTranspose(c2, c1, dtype=dtype, rngs=rngs)
        self.convT3 = ConvTranspose(c1, 3, dtype=dtype, rngs=rngs)

    def __call__(self, latents: jax.Array) -> jax.Array:
        """Float[B, D] to Float[B, H, W, 3] in [0, 1]."""
        x = nnx.relu(self.fc1(latents)).reshape(latents.shape[0], self.grid, self.grid, -1)
        for layer, activation in (
            (self.convT1, nnx.relu),
            (self.convT2, nnx.relu),
            (self.convT3, nnx.sigmoid),
        ):
            with jax.named_scope(f"b{2 * x.shape[1]}"):
                x = self._apply(layer, activation, x)
        return x

    def _apply(
        self, layer: ConvTranspose, activation: Callable[[jax.Array], jax.Array], x: jax.Array
    ) -> jax.Array:
        def both(x: jax.Array) -> jax.Array:
            return activation(layer(x))

        return jax.checkpoint(both)(x) if self.remat else both(x)


class VAE(nnx.Module):
    """Variational autoencoder of images Float[B, H, W, 3] in [0, 1] with latents Float[B, D].

    `dtype` and `remat` are those of its `Decoder`.
    """

    def __init__(
        self,
        cfg: VAEConfig,
        *,
        dtype: DTypeLike = jnp.float32,
        remat: bool = False,
        rngs: nnx.Rngs,
    ):
        self.cfg = cfg
        self.encoder = Encoder(cfg, rngs=rngs)
        self.decoder = Decoder(cfg, dtype=dtype, remat=remat, rngs=rngs)

    def encode(self, images: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Mean and log-variance of the latents, both Float[B, D]."""
        mean, log_variance = self.encoder(images)
        return mean, log_variance

    def decode(self, latents: jax.Array) -> jax.Array:
        """Images Float[B, H, W, 3] in [0, 1]; the prior of latents is standard normal."""
        return self.decoder(latents)
