"""Improved residual networks for face recognition: AdaFace's IR-18, 34, 50 and 101, and IR-SE.

AdaFace (Kim et al. 2022, arXiv:2204.00964) trains the backbone that ArcFace (Deng et al. 2019,
arXiv:1801.07698, section 3.1) settled on: pre-activated units of batch norm, convolution, batch
norm, PReLU, strided convolution, batch norm, with an optional squeeze-and-excitation, and a dense
layer to an embedding. Batch norms use their running statistics unless a call says `train`; then
they use the batch's, move the running ones, and features are dropped before the dense layer. NHWC.
Images are BGR, which is what the published weights were trained on.

Parameters, as paths of `nnx.state(network)`:

    input.{conv.kernel, norm.<norm>, prelu.slope}
    body.unit{i}.norm1.<norm>, .conv1.kernel [3, 3, I, O], .norm2.<norm>, .prelu.slope,
        .conv2.kernel [3, 3, O, O], .norm3.<norm>
    body.unit{i}.se.{squeeze, excite}.kernel    [1, 1, O, O / 16] and back, with se only
    body.unit{i}.shortcut.{conv.kernel [1, 1, I, O], norm.<norm>}     where I and O differ
    output.norm.<norm>, output.dense.{kernel [h w C, E], bias}, output.embedding_norm.{mean, var}
        <norm>: scale, bias, mean, var, all [C]; mean and var are buffers
"""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax import lax
from jax.typing import DTypeLike

from qdgs_jax.models.backend import target_backend
from qdgs_jax.models.batch_norm import normalised
from qdgs_jax.models.convolution import convolve
from qdgs_jax.models.settings import known_settings
from qdgs_jax.models.variables import Buffer

UNITS: Mapping[int, tuple[int, ...]] = {
    10: (1, 1, 1, 1),
    18: (2, 2, 2, 2),
    34: (3, 4, 6, 3),
    50: (3, 4, 14, 3),
    101: (3, 13, 30, 3),
}
WIDTHS = (64, 128, 256, 512)
NORM_EPSILON = 1e-5
NORM_MOMENTUM = 0.1  # weight of a batch in the running statistics
SE_REDUCTION = 16


@dataclasses.dataclass(frozen=True)
class IResNetConfig:
    """Shape of a network.

    Attributes:
        depth: 18, 34, 50 or 101; 10 for small worlds.
        se: squeeze-and-excitation in every unit.
        input_size: side of the images, a multiple of 8; published weights take 112.
        embed_dim: length of the embedding.
        widths: channels of the four stages; None takes the published 64 to 512.
        dropout: share of the features that training drops before the dense layer, in [0, 1).
    """

    depth: int
    se: bool = False
    input_size: int = 112
    embed_dim: int = 512
    widths: tuple[int, ...] | None = None
    dropout: float = 0.4

    def __post_init__(self) -> None:
        if self.depth not in UNITS:
            raise ValueError(f"depth is {self.depth}: give one of {tuple(UNITS)}.")
        if self.input_size <= 0 or self.input_size % 8:
            raise ValueError(f"input_size is {self.input_size}: give a multiple of 8, e.g. 112.")
        if self.embed_dim <= 0:
            raise ValueError(f"embed_dim is {self.embed_dim}: give a positive number.")
        if self.widths is not None and (len(self.widths) != len(WIDTHS) or min(self.widths) < 1):
            raise ValueError(
                f"widths are {list(self.widths)}: give {len(WIDTHS)} positive numbers, "
                f"e.g. {list(WIDTHS)}."
            )
        if self.se and min(self.channels) < SE_REDUCTION:
            raise ValueError(
                f"widths are {list(self.channels)}: squeeze-and-excitation needs at least "
                f"{SE_REDUCTION} channels."
            )
        if not 0.0 <= self.dropout < 1.0:
            raise ValueError(f"dropout is {self.dropout}: give a share in [0, 1), e.g. 0.4.")

    @property
    def channels(self) -> tuple[int, ...]:
        """Channels of the four stages."""
        return WIDTHS if self.widths is None else self.widths

    @property
    def features(self) -> int:
        """Numbers that the dense layer reads: the last stage's map, whose sides were rounded up."""
        return (-(-self.input_size // 16)) ** 2 * self.channels[-1]

    @classmethod
    def from_name(cls, name: str, **fields: Any) -> IResNetConfig:
        """Config of an architecture as AdaFace names it, such as "ir_101" or "ir_se_50"."""
        match = re.fullmatch(r"ir_(se_)?(\d+)", name)
        if match is None or int(match[2]) not in UNITS:
            known = [f"ir_{prefix}{depth}" for prefix in ("", "se_") for depth in UNITS]
            raise ValueError(f"architecture is {name!r}: give one of {known}.")
        return cls(int(match[2]), match[1] is not None, **fields)

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> IResNetConfig:
        """Config from what `to_dict` gave, through JSON if need be; "kind" is passed over."""
        values = known_settings(cls, fields)
        widths = values.get("widths")
        return cls(**{**values, "widths": tuple(widths) if widths is not None else None})

    def to_dict(self) -> dict[str, Any]:
        """Plain values for a config.json."""
        return dataclasses.asdict(self)


class BatchNorm(nnx.Module):
    """Batch norm with running statistics: Float[..., C] -> Float[..., C]."""

    def __init__(self, width: int, *, affine: bool = True) -> None:
        if affine:
            self.scale = nnx.Param(jnp.ones((width,)))
            self.bias = nnx.Param(jnp.zeros((width,)))
        self.affine = affine
        self.mean = Buffer(jnp.zeros((width,)))
        self.var = Buffer(jnp.ones((width,)))

    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        """Normalise; per-channel factors are computed in float32.

        With `train` by the mean and variance of the batch, of which the running ones take a tenth,
        the variance as that of a sample.
        """
        mean, var = self._of_batch(x) if train else (self.mean[...], self.var[...])
        if train and self.affine and x.dtype == jnp.float32 and target_backend() == "cpu":
            # With JAX_ENABLE_X64 parameters may be in double precision beside others' pixels.
            of_batch = (each.astype(x.dtype) for each in lax.stop_gradient((mean, var)))
            learnt = (each[...].astype(x.dtype) for each in (self.scale, self.bias))
            return normalised(x, *of_batch, *learnt, NORM_EPSILON)
        factor = lax.rsqrt(var + NORM_EPSILON)
        # Subtracting the mean first loses nothing where it is large beside the deviation.
        centred = x - mean.astype(x.dtype)
        if not self.affine:
            return centred * factor.astype(x.dtype)
        factor = factor * self.scale[...]
        return centred * factor.astype(x.dtype) + self.bias[...].astype(x.dtype)

    def _of_batch(self, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        axes, count = tuple(range(x.ndim - 1)), x.size // x.shape[-1]
        wide = x.astype(jnp.float32)
        mean = wide.mean(axis=axes)
        var = jnp.square(wide - mean).mean(axis=axes)
        sample = var * (count / max(1, count - 1))
        for kept, found in ((self.mean, mean), (self.var, sample)):
            kept[...] = (1.0 - NORM_MOMENTUM) * kept[...] + NORM_MOMENTUM * lax.stop_gradient(found)
        return mean, var


class PReLU(nnx.Module):
    """Rectifier with a learnt slope per channel below zero."""

    def __init__(self, width: int) -> None:
        self.slope = nnx.Param(jnp.full((width,), 0.25, jnp.float32))

    def __call__(self, x: jax.Array) -> jax.Array:
        """Rectify Float[..., C]."""
        return jnp.where(x >= 0, x, x * self.slope[...].astype(x.dtype))


class Conv(nnx.Module):
    """Convolution without bias, padded by half the kernel: Float[B, H, W, I] to [B, H', W', O]."""

    def __init__(
        self, c_in: int, c_out: int, size: int, *, stride: int = 1, rngs: nnx.Rngs
    ) -> None:
        scale = math.sqrt(2 / (size * size * c_out))  # He et al. 2015, by what goes out
        self.kernel = nnx.Param(scale * jax.random.normal(rngs.params(), (size, size, c_in, c_out)))
        self.stride = stride

    def __call__(self, x: jax.Array) -> jax.Array:
        """Convolve in the type of x."""
        return convolve(x, self.kernel[...].astype(x.dtype), self.stride)


class Dense(nnx.Module):
    """Dense layer Float[..., I] -> Float[..., O]."""

    def __init__(self, c_in: int, c_out: int, *, rngs: nnx.Rngs) -> None:
        scale = math.sqrt(2 / c_out)
        self.kernel = nnx.Param(scale * jax.random.normal(rngs.params(), (c_in, c_out)))
        self.bias = nnx.Param(jnp.zeros((c_out,)))

    def __call__(self, x: jax.Array) -> jax.Array:
        """Apply in the type of x."""
        return x @ self.kernel[...].astype(x.dtype) + self.bias[...].astype(x.dtype)


class SqueezeExcite(nnx.Module):
    """Channels gated by their means (Hu et al. 2018, arXiv:1709.01507)."""

    def __init__(self, width: int, *, rngs: nnx.Rngs) -> None:
        self.squeeze = Conv(width, width // SE_REDUCTION, 1, rngs=rngs)
        self.excite = Conv(width // SE_REDUCTION, width, 1, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        """Gate Float[B, H, W, C]."""
        means = x.mean(axis=(1, 2), keepdims=True)
        return x * nnx.sigmoid(self.excite(nnx.relu(self.squeeze(means))))


class Shortcut(nnx.Module):
    """Projection of a unit's input where its width changes."""

    def __init__(self, c_in: int, c_out: int, stride: int, *, rngs: nnx.Rngs) -> None:
        self.conv = Conv(c_in, c_out, 1, stride=stride, rngs=rngs)
        self.norm = BatchNorm(c_out)

    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        """Project Float[B, H, W, I]."""
        return self.norm(self.conv(x), train)


class Unit(nnx.Module):
    """Residual unit: Float[B, H, W, I] -> Float[B, H / stride, W / stride, O]."""

    def __init__(self, c_in: int, c_out: int, stride: int, *, se: bool, rngs: nnx.Rngs) -> None:
        self.norm1 = BatchNorm(c_in)
        self.conv1 = Conv(c_in, c_out, 3, rngs=rngs)
        self.norm2 = BatchNorm(c_out)
        self.prelu = PReLU(c_out)
        self.conv2 = Conv(c_out, c_out, 3, stride=stride, rngs=rngs)
        self.norm3 = BatchNorm(c_out)
        self.stride = stride
        self.use_se, self.project = se, c_in != c_out
        if se:
            self.se = SqueezeExcite(c_out, rngs=rngs)
        if self.project:
            self.shortcut = Shortcut(c_in, c_out, stride, rngs=rngs)

    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        """Add the residual to the (strided or projected) input."""
        y = self.prelu(self.norm2(self.conv1(self.norm1(x, train)), train))
        y = self.norm3(self.conv2(y), train)
        if self.use_se:
            y = self.se(y)
        if self.project:
            return y + self.shortcut(x, train)
        return y + x[:, :: self.stride, :: self.stride]


class Input(nnx.Module):
    """First convolution."""

    def __init__(self, width: int, *, rngs: nnx.Rngs) -> None:
        self.conv = Conv(3, width, 3, rngs=rngs)
        self.norm = BatchNorm(width)
        self.prelu = PReLU(width)

    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        """Convolve images Float[B, S, S, 3]."""
        return self.prelu(self.norm(self.conv(x), train))


class Body(nnx.Module):
    """Four stages of units; the first unit of each halves the resolution."""

    def __init__(self, cfg: IResNetConfig, *, rngs: nnx.Rngs) -> None:
        c_in, self.num_units = cfg.channels[0], 0
        for width, count in zip(cfg.channels, UNITS[cfg.depth], strict=True):
            for position in range(count):
                unit = Unit(c_in, width, 1 if position else 2, se=cfg.se, rngs=rngs)
                setattr(self, f"unit{self.num_units}", unit)
                c_in = width
                self.num_units += 1

    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        """Reduce Float[B, S, S, W] to Float[B, S / 16, S / 16, W'], the first and last width."""
        for i in range(self.num_units):
            unit: Unit = getattr(self, f"unit{i}")
            x = unit(x, train)
        return x


class Output(nnx.Module):
    """Feature maps to embeddings."""

    def __init__(self, cfg: IResNetConfig, *, rngs: nnx.Rngs) -> None:
        self.norm = BatchNorm(cfg.channels[-1])
        self.dense = Dense(cfg.features, cfg.embed_dim, rngs=rngs)
        self.embedding_norm = BatchNorm(cfg.embed_dim, affine=False)
        self.dropout = cfg.dropout

    def __call__(
        self, x: jax.Array, train: bool = False, key: jax.Array | None = None
    ) -> jax.Array:
        """Embed Float[B, h, w, W] as Float[B, E]; features are dropped where there is a key."""
        x = self.norm(x, train)
        if train and key is not None and self.dropout:
            kept = jax.random.bernoulli(key, 1.0 - self.dropout, x.shape)
            x = jnp.where(kept, x / (1.0 - self.dropout), 0.0).astype(x.dtype)
        return self.embedding_norm(self.dense(x.reshape(len(x), -1)), train)


class IResNet(nnx.Module):
    """Face recognition backbone.

    Args:
        cfg: shape of the network.
        dtype: of activations and products; parameters and embeddings stay float32.
        rngs: initial weights come from the stream `params`.
    """

    def __init__(
        self, cfg: IResNetConfig, *, dtype: DTypeLike = jnp.float32, rngs: nnx.Rngs
    ) -> None:
        self.cfg = cfg
        self.dtype = jnp.dtype(dtype)
        self.input = Input(cfg.channels[0], rngs=rngs)
        self.body = Body(cfg, rngs=rngs)
        self.output = Output(cfg, rngs=rngs)

    def __call__(
        self, images: jax.Array, *, train: bool = False, key: jax.Array | None = None
    ) -> tuple[jax.Array, jax.Array]:
        """Embed aligned faces.

        Args:
            images: Float[B, S, S, 3] in [-1, 1], channels in the order blue, green, red.
            train: normalise by the batch, whose statistics move the running ones, and drop
                features.
            key: which features are dropped; needed by `train` unless `cfg.dropout` is 0.

        Returns:
            Embeddings Float[B, E] of unit length, and their norms Float[B, 1] before that, which
            AdaFace reads as image quality.

        Raises:
            ValueError: if images have the wrong shape, or `train` lacks its key.
        """
        size = self.cfg.input_size
        if images.ndim != 4 or images.shape[1:] != (size, size, 3):
            raise ValueError(f"images have shape {images.shape}: pass [batch, {size}, {size}, 3].")
        if train and key is None and self.cfg.dropout:
            raise ValueError(f"key is None: dropout {self.cfg.dropout} needs one in training.")
        features = self.body(self.input(images.astype(self.dtype), train), train)
        embeddings = self.output(features, train, key).astype(jnp.float32)
        norms = jnp.linalg.norm(embeddings, axis=1, keepdims=True)
        return embeddings / norms, norms
