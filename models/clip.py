"""CLIP (Radford et al. 2021, arXiv:2103.00020): a vision transformer and a causal text transformer.

One architecture serves every checkpoint, from the compact embedded one to ViT-L/14-336; a config in
Hugging Face's terms drives it. Both towers are pre-norm transformers; the text is pooled at its
first end-of-text token. Embeddings are returned as projected, before normalisation.

The image tower may compute its products in bfloat16. The stream of tokens that blocks add to, layer
norms, softmax and the projection stay float32: what is rounded is then never accumulated.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike

from qdgs_jax.models.attention import attend
from qdgs_jax.models.backend import target_backend
from qdgs_jax.models.settings import known_settings
from qdgs_jax.models.variables import Buffer

MANY = 8  # blocks from which on a TPU takes them in a loop: 3 % slower, an eleventh of the code

Activation = Callable[[jax.Array], jax.Array]


def quick_gelu(x: jax.Array) -> jax.Array:
    """The sigmoid approximation of GELU that OpenAI's models were trained with."""
    return x * jax.nn.sigmoid(1.702 * x)


def gelu(x: jax.Array) -> jax.Array:
    """Exact GELU; the tanh approximation costs 3e-4 of an embedding."""
    return jax.nn.gelu(x, approximate=False)


ACTIVATIONS: Mapping[str, Activation] = {"quick_gelu": quick_gelu, "gelu": gelu}


@dataclasses.dataclass(frozen=True)
class TowerConfig:
    """One transformer.

    Attributes:
        width: hidden size, a multiple of `heads`.
        layers: number of blocks.
        heads: attention heads.
        mlp_width: hidden size of the feed-forward part.
        activation: "quick_gelu" or "gelu".
        norm_eps: epsilon of every layer norm.
    """

    width: int
    layers: int
    heads: int
    mlp_width: int
    activation: str = "quick_gelu"
    norm_eps: float = 1e-5

    def __post_init__(self) -> None:
        if self.width % self.heads:
            raise ValueError(f"width {self.width} is not a multiple of heads {self.heads}.")
        if self.activation not in ACTIVATIONS:
            raise ValueError(f"activation is {self.activation!r}: give one of {list(ACTIVATIONS)}.")


@dataclasses.dataclass(frozen=True)
class CLIPConfig:
    """Both towers and what stands around them.

    Attributes:
        vision: the image tower.
        text: the text tower.
        image_size: height and width of images in pixels, a multiple of `patch_size`.
        patch_size: side of a patch in pixels.
        vocab_size: number of tokens.
        context_length: longest text in tokens, both end tokens included.
        embed_dim: length of an embedding.
        eos_token_id: the end-of-text token. 2 stands for "the largest id of the text", as in
            Hugging Face's configs of OpenAI's checkpoints.
        image_mean: mean per channel that pixels in [0, 1] are normalised with.
        image_std: standard deviation per channel, likewise.
    """

    vision: TowerConfig
    text: TowerConfig
    image_size: int
    patch_size: int
    vocab_size: int
    context_length: int
    embed_dim: int
    eos_token_id: int = 2
    image_mean: tuple[float, float, float] = (0.48145466, 0.4578275, 0.40821073)
    image_std: tuple[float, float, float] = (0.26862954, 0.26130258, 0.27577711)

    def __post_init__(self) -> None:
        if self.image_size % self.patch_size:
            raise ValueError(
                f"image_size {self.image_size} is not a multiple of patch_size {self.patch_size}."
            )

    def to_dict(self) -> dict[str, Any]:
        """A JSON-able form; `from_dict` reads it back."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> CLIPConfig:
        """Config from what `to_dict` gave, through JSON if need be; "kind" is passed over."""
        values = known_settings(cls, fields)
        for name in ("vision", "text"):
            values[name] = TowerConfig(**known_settings(TowerConfig, values[name]))
        for name in {"image_mean", "image_std"} & set(values):
            values[name] = tuple(values[name])
        return cls(**values)


def normalise_pixels(cfg: CLIPConfig, images: jax.Array) -> jax.Array:
    """Pixels in [0, 1], Float[..., 3], as the image tower takes them."""
    return (images - jnp.asarray(cfg.image_mean)) / jnp.asarray(cfg.image_std)


class Attention(nnx.Module):
    """Multi-head self-attention; query, key and value share a matrix product."""

    def __init__(self, cfg: TowerConfig, *, dtype: DTypeLike, rngs: nnx.Rngs):
        self.heads = cfg.heads
        self.qkv = nnx.Linear(cfg.width, 3 * cfg.width, dtype=dtype, rngs=rngs)
        self.out = nnx.Linear(cfg.width, cfg.width, dtype=dtype, rngs=rngs)

    def __call__(self, x: jax.Array, mask: jax.Array | None) -> jax.Array:
        """Mix tokens; `mask` Bool[..., T, T] says which keys a query may see."""
        query, key, value = jnp.split(self.qkv(x), 3, axis=-1)
        return self.out(attend(query, key, value, self.heads, mask))


class Block(nnx.Module):
    """Pre-norm transformer block; its products are computed in `dtype`."""

    def __init__(self, cfg: TowerConfig, *, dtype: DTypeLike, rngs: nnx.Rngs):
        self.activation = ACTIVATIONS[cfg.activation]
        self.ln_1 = nnx.LayerNorm(cfg.width, epsilon=cfg.norm_eps, rngs=rngs)
        self.attn = Attention(cfg, dtype=dtype, rngs=rngs)
        self.ln_2 = nnx.LayerNorm(cfg.width, epsilon=cfg.norm_eps, rngs=rngs)
        self.fc1 = nnx.Linear(cfg.width, cfg.mlp_width, dtype=dtype, rngs=rngs)
        self.fc2 = nnx.Linear(cfg.mlp_width, cfg.width, dtype=dtype, rngs=rngs)

    def __call__(
        self, x: jax.Array, mask: jax.Array | None = None, *, lean: bool = False
    ) -> jax.Array:
        """Float[B, T, W] to the same.

        Args:
            x: tokens.
            mask: as of `Attention`.
            lean: whether norms and activation are computed again for a derivative, and not kept.
        """

        def kept(function: Callable[[jax.Array], jax.Array]) -> Callable[[jax.Array], jax.Array]:
            return jax.checkpoint(function, prevent_cse=False) if lean else function

        with jax.named_scope("attention"):
            x = x + self.attn(kept(lambda x: self.ln_1(x))(x), mask)
        with jax.named_scope("mlp"):
            hidden = self.fc1(kept(lambda x: self.ln_2(x))(x))
            return x + self.fc2(kept(self.activation)(hidden))


class VisionTower(nnx.Module):
    """Vision transformer: normalised images Float[B, H, W, 3] to Float[B, embed_dim].

    Args:
        cfg: sizes.
        dtype: of the products; float32, or bfloat16. Parameters and embeddings stay float32.
        remat: recompute each block's activations in the backward pass instead of keeping them.
        rngs: initial weights come from the stream `params`.
    """

    def __init__(
        self,
        cfg: CLIPConfig,
        *,
        dtype: DTypeLike = jnp.float32,
        remat: bool = False,
        rngs: nnx.Rngs,
    ):
        tower, patch = cfg.vision, cfg.patch_size
        scale = tower.width**-0.5
        self.patch_size = patch
        self.remat = remat
        # Patches do not overlap: the convolution is one matrix product.
        self.patch = nnx.Linear(
            patch * patch * 3, tower.width, use_bias=False, dtype=dtype, rngs=rngs
        )
        self.class_token = nnx.Param(scale * jax.random.normal(rngs.params(), (tower.width,)))
        tokens = (cfg.image_size // patch) ** 2 + 1
        self.position = nnx.Param(scale * jax.random.normal(rngs.params(), (tokens, tower.width)))
        self.ln_pre = nnx.LayerNorm(tower.width, epsilon=tower.norm_eps, rngs=rngs)
        self.blocks = nnx.List([Block(tower, dtype=dtype, rngs=rngs) for _ in range(tower.layers)])
        self.ln_post = nnx.LayerNorm(tower.width, epsilon=tower.norm_eps, rngs=rngs)
        self.projection = nnx.Linear(tower.width, cfg.embed_dim, use_bias=False, rngs=rngs)
        self.stacked: Buffer | None = nnx.data(None)

    def prepare(self) -> None:
        """Keep kernels in the type that they are multiplied in, once for all calls.

        For a TPU, whose programs are large and slow to compile, many blocks are stacked, to be
        taken one after the other by the same program.
        """
        for _, module in nnx.iter_modules(self):
            if isinstance(module, nnx.Linear) and module.dtype is not None:
                module.kernel = nnx.Param(module.kernel[...].astype(module.dtype))
        if target_backend() == "tpu" and len(self.blocks) >= MANY and not self.remat:
            states = [nnx.state(block) for block in self.blocks]
            self.stacked = Buffer(jax.tree.map(lambda *each: jnp.stack(each), *states))

    @jax.named_scope("clip")
    def __call__(self, images: jax.Array) -> jax.Array:
        """Embed normalised images."""
        return self.projection(self.features(images))

    def features(self, images: jax.Array) -> jax.Array:
        """Pooled features Float[B, width], before the projection to the common space."""
        batch, height, width, _ = images.shape
        p = self.patch_size
        patches = images.reshape(batch, height // p, p, width // p, p, 3).astype(self.patch.dtype)
        kernel = self.patch.kernel[...].astype(self.patch.dtype).reshape(p, p, 3, -1)
        # As one product over three axes a TPU does not move every pixel before it.
        x = jnp.einsum("biyjxc,yxcw->bijw", patches, kernel).reshape(batch, -1, kernel.shape[-1])
        token = jnp.broadcast_to(self.class_token[...], (batch, 1, x.shape[-1]))
        x = self.ln_pre(jnp.concatenate([token, x], axis=1) + self.position[...])
        return self.ln_post(self._through_blocks(x)[:, 0])

    def _through_blocks(self, x: jax.Array) -> jax.Array:
        """Tokens Float[B, T, W] after all blocks."""
        if self.stacked is None:
            for block in self.blocks:
                x = jax.checkpoint(block.__call__)(x) if self.remat else block(x)
            return x
        graph = nnx.graphdef(self.blocks[0])

        def next_block(x: jax.Array, state: nnx.State) -> tuple[jax.Array, None]:
            return nnx.merge(graph, state)(x, lean=True), None

        return jax.lax.scan(next_block, x, self.stacked.get_value())[0]


class TextTower(nnx.Module):
    """Causal transformer: token ids Int[B, T] to Float[B, embed_dim]."""

    def __init__(self, cfg: CLIPConfig, *, rngs: nnx.Rngs):
        tower = cfg.text
        self.eos_token_id = cfg.eos_token_id
        draw = jax.random.normal
        self.token = nnx.Param(0.02 * draw(rngs.params(), (cfg.vocab_size, tower.width)))
        self.position = nnx.Param(0.01 * draw(rngs.params(), (cfg.context_length, tower.width)))
        self.blocks = nnx.List(
            [Block(tower, dtype=jnp.float32, rngs=rngs) for _ in range(tower.layers)]
        )
        self.ln_final = nnx.LayerNorm(tower.width, epsilon=tower.norm_eps, rngs=rngs)
        self.projection = nnx.Linear(tower.width, cfg.embed_dim, use_bias=False, rngs=rngs)

    def __call__(self, tokens: jax.Array, mask: jax.Array | None = None) -> jax.Array:
        """Embed token ids; see `CLIP.embed_texts`."""
        length = tokens.shape[1]
        allowed = jnp.tril(jnp.ones((1, 1, length, length), bool))
        if mask is not None:
            allowed = allowed & (mask[:, None, None, :] != 0)
        x = self.token[...][tokens] + self.position[...][:length]
        for block in self.blocks:
            x = block(x, allowed)
        if self.eos_token_id == 2:
            end = jnp.argmax(tokens, axis=1)
        else:
            end = jnp.argmax(tokens == self.eos_token_id, axis=1)
        # Layer norm acts on each token alone, so it is applied after pooling.
        pooled = jnp.take_along_axis(x, end[:, None, None], axis=1)[:, 0]
        return self.projection(self.ln_final(pooled))


class CLIP(nnx.Module):
    """Image and text embeddings in one space.

    `dtype` and `remat` are those of the image tower; texts are embedded once, in float32.
    """

    def __init__(
        self,
        cfg: CLIPConfig,
        *,
        dtype: DTypeLike = jnp.float32,
        remat: bool = False,
        rngs: nnx.Rngs,
    ):
        self.cfg = cfg
        self.visual = VisionTower(cfg, dtype=dtype, remat=remat, rngs=rngs)
        self.text = TextTower(cfg, rngs=rngs)
        self.logit_scale = nnx.Param(jnp.asarray(math.log(1 / 0.07)))

    def preprocess(self, images: jax.Array) -> jax.Array:
        """Normalise pixels in [0, 1], Float[B, image_size, image_size, 3]."""
        return normalise_pixels(self.cfg, images)

    def embed_images(self, images: jax.Array) -> jax.Array:
        """Embed normalised images Float[B, image_size, image_size, 3] as Float[B, embed_dim]."""
        return self.visual(images)

    def embed_texts(self, tokens: jax.Array, mask: jax.Array | None = None) -> jax.Array:
        """Embed token ids Int[B, T], T at most `context_length`, as Float[B, embed_dim].

        Args:
            tokens: each text ends in `eos_token_id`; whatever follows is ignored.
            mask: optional Int[B, T], 0 where a token may not be attended to.
        """
        return self.text(tokens, mask)
