"""StyleGAN2 generator (Karras et al. 2020, arXiv:1912.04958): latents to images in two networks.

The mapping network turns z into codes w, one per layer of the synthesis network, which grows an
image from a learnt 4x4 constant. Both follow the networks of stylegan2-ada (arXiv:2006.06676),
whose weights are what people have: any resolution, any table of channels, class labels, three
architectures. Layers and the reason for their form are in `layers`.

Parameters, as paths of `nnx.state(generator)`:

    mapping.embed.{kernel, bias}           [c_dim, E] and [E], with classes only
    mapping.fc{i}.{kernel, bias}           [I, O] and [O]
    mapping.w_avg                          [w_dim], a buffer
    synthesis.b4.const                     [4, 4, C]
    synthesis.b{r}.conv0.<layer>           r = 8, 16, ..., resolution: upsamples to r
    synthesis.b{r}.conv1.<layer>           r = 4, 8, ..., resolution
        <layer>: kernel [3, 3, I, O], bias [O], affine.kernel [w_dim, I], affine.bias [I],
        noise_const [r, r] (a buffer), noise_strength []
    synthesis.b{r}.torgb.<head>            every r with `skip`, else the last
        <head>: kernel [1, 1, I, colours], bias [colours], affine.kernel, affine.bias
    synthesis.b{r}.skip.kernel             [1, 1, I, O], r = 8, ... with `resnet` only

Numbers are those of the original checkpoints; only axes move. Weights belong in the arguments of
compiled functions:

    generator = nnx.eval_shape(lambda: Generator(config, rngs=nnx.Rngs(0)))  # shapes alone
    graph, shapes = nnx.split(generator)
    decode = jax.jit(lambda params, ws: nnx.merge(graph, params).synthesis(ws))
"""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
from flax import nnx
from jax import lax
from jax.typing import DTypeLike

from qdgs_jax.models.stylegan2.activations import Pixels, leaky
from qdgs_jax.models.stylegan2.config import StyleGAN2Config
from qdgs_jax.models.stylegan2.layers import Dense, SkipConv, StyledConv, ToRGB
from qdgs_jax.models.stylegan2.resample import UPSAMPLERS, smooth_up
from qdgs_jax.models.variables import Buffer

NOISES = ("const", "random", "none")


def _normalise(x: jax.Array) -> jax.Array:
    """Rows scaled to unit mean square."""
    return x * lax.rsqrt(jnp.mean(jnp.square(x), axis=-1, keepdims=True) + 1e-8)


class MappingNetwork(nnx.Module):
    """From latents z (and classes) to codes w, truncated towards their average on demand."""

    def __init__(self, cfg: StyleGAN2Config, *, rngs: nnx.Rngs) -> None:
        hidden = cfg.w_dim if cfg.mapping_dim is None else cfg.mapping_dim
        width = cfg.z_dim
        if cfg.c_dim:
            embed_dim = cfg.w_dim if cfg.embed_dim is None else cfg.embed_dim
            self.embed = Dense(cfg.c_dim, embed_dim, rngs=rngs)
            width += embed_dim
        for i in range(cfg.mapping_layers):
            c_out = cfg.w_dim if i == cfg.mapping_layers - 1 else hidden
            setattr(self, f"fc{i}", Dense(width, c_out, lr_multiplier=cfg.mapping_lr, rngs=rngs))
            width = c_out
        self.w_avg = Buffer(jnp.zeros((cfg.w_dim,)))
        self.cfg = cfg

    @jax.named_scope("mapping")
    def __call__(
        self,
        z: jax.Array,
        c: jax.Array | None = None,
        *,
        psi: float | jax.Array = 1.0,
        cutoff: int | None = None,
    ) -> jax.Array:
        """Map latents to codes.

        Args:
            z: Float[B, z_dim], normally distributed; its length does not matter.
            c: Float[B, c_dim], one-hot classes; required by a conditional generator alone.
            psi: truncation, w_avg + psi (w - w_avg); 1 leaves the codes alone.
            cutoff: truncate the first `cutoff` codes only; None for all.

        Returns:
            Codes Float[B, num_ws, w_dim], equal along the second axis unless cut off.

        Raises:
            ValueError: if z or c has the wrong shape.
        """
        cfg = self.cfg
        if z.ndim != 2 or z.shape[1] != cfg.z_dim:
            raise ValueError(f"z has shape {z.shape}: pass [batch, {cfg.z_dim}].")
        x = _normalise(z.astype(jnp.float32))
        if cfg.c_dim:
            if c is None or c.shape != (len(z), cfg.c_dim):
                raise ValueError(
                    f"c is {None if c is None else c.shape}, but the generator is conditional: "
                    f"pass one-hot classes of shape ({len(z)}, {cfg.c_dim})."
                )
            x = jnp.concatenate([x, _normalise(self.embed(c.astype(jnp.float32)))], axis=1)
        elif c is not None:
            raise ValueError(
                f"c has shape {c.shape}, but the generator has no classes: leave it out."
            )
        for i in range(cfg.mapping_layers):
            layer: Dense = getattr(self, f"fc{i}")
            x = leaky(layer(x))
        ws = jnp.repeat(x[:, None], cfg.num_ws, axis=1)
        if isinstance(psi, (int, float)) and psi == 1:
            return ws
        return self.truncate(ws, psi, cutoff)

    def truncate(
        self, ws: jax.Array, psi: float | jax.Array, cutoff: int | None = None
    ) -> jax.Array:
        """Move the first `cutoff` codes (None: all) of Float[B, num_ws, w_dim] towards w_avg."""
        truncated = self.w_avg[...] + psi * (ws - self.w_avg[...])
        if cutoff is None:
            return truncated
        first = jnp.arange(ws.shape[1]) < cutoff
        return jnp.where(first[:, None], truncated, ws)


class SynthesisBlock(nnx.Module):
    """The layers of one resolution: two convolutions (one at 4x4) and what makes the image."""

    def __init__(
        self,
        cfg: StyleGAN2Config,
        level: int,
        *,
        upsampling: str,
        dtype: DTypeLike,
        rngs: nnx.Rngs,
    ) -> None:
        resolution, c_out = cfg.resolutions[level], cfg.channels[level]
        self.first = level == 0
        self.resnet = cfg.architecture == "resnet"
        self.residual = self.resnet and not self.first
        self.dtype = jnp.dtype(dtype)
        self.has_head = cfg.architecture == "skip" or resolution == cfg.resolution
        c_in = c_out if self.first else cfg.channels[level - 1]

        def styled(width: int, up: bool) -> StyledConv:
            return StyledConv(
                width,
                c_out,
                cfg.w_dim,
                resolution,
                up=up,
                use_noise=cfg.use_noise,
                conv_clamp=cfg.conv_clamp,
                upsampling=upsampling,
                dtype=dtype,
                rngs=rngs,
            )

        if self.first:
            self.const = nnx.Param(jax.random.normal(rngs.params(), (4, 4, c_out)))
        else:
            self.conv0 = styled(c_in, True)
        self.conv1 = styled(c_out, False)
        if self.has_head:
            self.torgb = ToRGB(
                c_out,
                cfg.img_channels,
                cfg.w_dim,
                conv_clamp=cfg.conv_clamp,
                dtype=dtype,
                rngs=rngs,
            )
        if self.residual:
            self.skip = SkipConv(c_in, c_out, dtype=dtype, rngs=rngs)

    def prepare(self) -> None:
        """Prepare the layers' kernels (`StyledConv.prepare`)."""
        folded = False if self.first else self.conv0.prepare(False)
        self.conv1.prepare(folded)
        if self.has_head:
            self.torgb.affine.prepare()

    @property
    def num_convs(self) -> int:
        """Codes that the convolutions use up; the RGB head shares the next block's first."""
        return 1 if self.first else 2

    def first_style(self, ws: jax.Array) -> jax.Array:
        """Factors of the channels that come from the block below, of codes as of `__call__`."""
        first: StyledConv = self.conv1 if self.first else self.conv0
        return first.affine(ws[:, 0])

    def __call__(
        self,
        x: Pixels | None,
        image: jax.Array | None,
        ws: jax.Array,
        noise: str,
        key: jax.Array | None,
        onward: jax.Array | None,
    ) -> tuple[Pixels, jax.Array | None]:
        """Activations and image of the block below, and codes Float[B, num_convs + 1, W].

        Images are Float[B, colours, R, R]. Activations come times `first_style`, and go times
        `onward`, that of the block above (None for the last); of the resnet architecture, where
        they are needed twice, they come and go as they are.
        """
        keys = (None, None) if key is None else tuple(jax.random.split(key))
        style = self.first_style(ws)
        if x is None:
            entry = Pixels(self.const[...][None].astype(self.dtype)).scaled(style)
        else:
            inner = self.conv1.affine(ws[:, 1])
            below = x.scaled(style) if self.residual else x
            (entry,) = self.conv0(below, style, noise, keys[0], (inner,))
            style = inner
        head = self.torgb.style(ws[:, self.num_convs]) if self.has_head else None
        onwards = (head, onward)
        styles = (None,) if self.resnet else tuple(each for each in onwards if each is not None)
        gain = math.sqrt(0.5) if self.residual else 1.0
        found = self.conv1(entry, style, noise, keys[1], styles, gain)
        shown, above = found[0], found[-1]
        if self.residual and x is not None:
            above = Pixels(above.unfold() + self.skip(x.unfold(), gain))
        if self.resnet and head is not None:
            shown = above.scaled(head)
        if image is not None:
            image = smooth_up(image, (2, 3))
        if self.has_head:
            drawn = self.torgb(shown)
            image = drawn if image is None else image + drawn
        return above, image


class SynthesisNetwork(nnx.Module):
    """From codes to images, a block per resolution."""

    def __init__(
        self,
        cfg: StyleGAN2Config,
        *,
        dtype: DTypeLike,
        remat: bool,
        upsampling: str,
        rngs: nnx.Rngs,
    ) -> None:
        for level, resolution in enumerate(cfg.resolutions):
            block = SynthesisBlock(cfg, level, upsampling=upsampling, dtype=dtype, rngs=rngs)
            setattr(self, f"b{resolution}", block)
        self.cfg = cfg
        self.remat = remat

    def prepare(self) -> None:
        """Make of the weights what is multiplied, once for all calls for the backend at hand.

        Results stay as they are, up to rounding; the weights are no more those of a checkpoint.
        """
        for side in self.cfg.resolutions:
            block: SynthesisBlock = getattr(self, f"b{side}")
            block.prepare()

    def __call__(
        self, ws: jax.Array, *, noise: str = "const", key: jax.Array | None = None
    ) -> jax.Array:
        """Synthesise images.

        Args:
            ws: Float[B, num_ws, w_dim], one code per layer.
            noise: "const" for the stored noise images (a function of ws alone), "random" for fresh
                ones per sample, "none" for no noise.
            key: required by noise="random" alone.

        Returns:
            Images Float[B, R, R, img_channels], float32, about [-1, 1] but not clipped.

        Raises:
            ValueError: if ws has the wrong shape, noise is unknown or its key is missing.
        """
        cfg = self.cfg
        if ws.ndim != 3 or ws.shape[1:] != (cfg.num_ws, cfg.w_dim):
            raise ValueError(f"ws has shape {ws.shape}: pass [batch, {cfg.num_ws}, {cfg.w_dim}].")
        if noise not in NOISES:
            raise ValueError(f"noise is {noise!r}: pass one of {NOISES}.")
        if noise == "random" and key is None:
            raise ValueError("noise='random' needs a key: pass key=jax.random.key(seed).")
        ws = ws.astype(jnp.float32)
        x: Pixels | None = None
        image: jax.Array | None = None
        blocks: list[SynthesisBlock] = [getattr(self, f"b{side}") for side in cfg.resolutions]
        starts = [sum(below.num_convs for below in blocks[:level]) for level in range(len(blocks))]
        codes = [
            ws[:, start : start + block.num_convs + 1]
            for block, start in zip(blocks, starts, strict=True)
        ]
        for level, block in enumerate(blocks):
            last = level + 1 == len(blocks)
            onward = None if last else blocks[level + 1].first_style(codes[level + 1])
            block_key = (
                jax.random.fold_in(key, level) if noise == "random" and key is not None else None
            )
            apply = jax.checkpoint(block.__call__, static_argnums=(3,)) if self.remat else block
            with jax.named_scope(f"b{cfg.resolutions[level]}"):
                x, image = apply(x, image, codes[level], noise, block_key, onward)
        if image is None:
            raise AssertionError("the last block always has an RGB head")
        return image.transpose(0, 2, 3, 1)


class Generator(nnx.Module):
    """StyleGAN2's generator: `mapping`, then `synthesis`.

    Args:
        cfg: shape of the networks.
        dtype: of the synthesis network's activations and products; float32, or bfloat16.
            Parameters, the mapping network, styles, demodulation and the image stay float32.
        remat: recompute each resolution's activations in the backward pass instead of keeping them,
            for batches of Jacobians that would not fit.
        upsampling: "auto", or a key of `resample.UPSAMPLERS`.
        rngs: initial weights, and noise images, come from the stream `params`.
    """

    def __init__(
        self,
        cfg: StyleGAN2Config,
        *,
        dtype: DTypeLike = jnp.float32,
        remat: bool = False,
        upsampling: str = "auto",
        rngs: nnx.Rngs,
    ) -> None:
        if upsampling not in ("auto", *UPSAMPLERS):
            raise ValueError(
                f"upsampling is {upsampling!r}: give 'auto' or one of {sorted(UPSAMPLERS)}."
            )
        self.cfg = cfg
        self.mapping = MappingNetwork(cfg, rngs=rngs)
        self.synthesis = SynthesisNetwork(
            cfg, dtype=dtype, remat=remat, upsampling=upsampling, rngs=rngs
        )

    def __call__(
        self,
        z: jax.Array,
        c: jax.Array | None = None,
        *,
        psi: float | jax.Array = 1.0,
        cutoff: int | None = None,
        noise: str = "const",
        key: jax.Array | None = None,
    ) -> jax.Array:
        """Images Float[B, R, R, img_channels] of latents; arguments as of the two networks."""
        ws = self.mapping(z, c, psi=psi, cutoff=cutoff)
        return self.synthesis(ws, noise=noise, key=key)
