"""The shapes domain of the paper: a VAE of coloured shapes, searched in its 6 latents."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from qdgs_jax.domains.prompted import DomainParams, PromptedDomain, embed_prompts
from qdgs_jax.domains.scoring import Targets
from qdgs_jax.models.clip import CLIP
from qdgs_jax.models.vae import VAE
from qdgs_jax.ports.errors import CheckpointError
from qdgs_jax.ports.loading import load
from qdgs_jax.runs.config import EMBEDDED, RunConfig

ASSETS = Path(__file__).parents[1] / "assets"


@dataclasses.dataclass(frozen=True, eq=False)
class VAEGenerator:
    """The decoder of a VAE; its prior is the standard normal.

    Attributes:
        graph: structure of the decoder.
        latent_dim: length D of a latent.
    """

    graph: Any
    latent_dim: int

    def decode(self, params: Any, latents: jax.Array) -> jax.Array:
        """Images Float[B, H, W, 3] in [0, 1] of latents Float[B, D]."""
        images: jax.Array = nnx.merge(self.graph, params)(latents)
        return images

    def sample(self, params: Any, key: jax.Array, count: int) -> jax.Array:
        """Latents Float[count, D] from the standard normal."""
        return jax.random.normal(key, (count, self.latent_dim))


def checkpoint_folder(name: str) -> Path:
    """The folder that a run file means by `embedded:NAME` or a path.

    Raises:
        CheckpointError: if the package carries no weights of that name.
    """
    if not name.startswith(EMBEDDED):
        return Path(name)
    folder = ASSETS / name.removeprefix(EMBEDDED)
    if not (folder / "config.json").is_file():
        known = sorted(path.parent.name for path in ASSETS.glob("*/config.json"))
        raise CheckpointError(
            f"there are no weights {name!r}: known are {', '.join(EMBEDDED + k for k in known)}."
        )
    return folder


def load_clip(name: str) -> tuple[CLIP, Any]:
    """A CLIP and its tokenizer, from a folder that `qdgs port clip` or a training script wrote.

    Raises:
        CheckpointError: if the checkpoint is missing, damaged or has no tokenizer.
    """
    from transformers import CLIPTokenizerFast

    folder = checkpoint_folder(name)
    clip = load(folder, CLIP)
    tokenizers = (("tokenizer.json",), ("vocab.json", "merges.txt"))
    if not any(all((folder / file).is_file() for file in files) for files in tokenizers):
        raise CheckpointError(
            f"{folder} has no tokenizer: put CLIP's tokenizer.json there, or both vocab.json and "
            "merges.txt."
        )
    return clip, CLIPTokenizerFast.from_pretrained(str(folder), local_files_only=True)


def load_vae_decoder(name: str) -> tuple[VAEGenerator, Any]:
    """The decoder of a VAE checkpoint, as a generator and its weights.

    Raises:
        CheckpointError: if the checkpoint is missing, damaged or no VAE.
    """
    model = load(checkpoint_folder(name), VAE)
    graph, state = nnx.split(model.decoder)
    return VAEGenerator(graph, model.cfg.latent_dim), state


def load_shapes(config: RunConfig) -> PromptedDomain:
    """Load generator and CLIP, and embed the prompts of a run.

    Raises:
        CheckpointError: if a checkpoint is missing, damaged or of another model.
        ValueError: if a prompt is too long.
    """
    generator, weights = load_vae_decoder(config.domain.generator)
    clip, tokenizer = load_clip(config.domain.clip)
    pairs = [("|".join(axis.positive), "|".join(axis.negative)) for axis in (config.objective, *config.measures)]
    objective, *measures = embed_prompts(clip, tokenizer, pairs)
    graph, tower = nnx.split(clip.visual)
    return PromptedDomain(
        generator=generator,
        clip_graph=graph,
        clip_config=clip.cfg,
        params=DomainParams(
            generator=weights,
            clip=tower,
            targets=Targets(objective, tuple(measures)),
            # Half of the mean norm of the prior's latents, as for StyleGAN2's mapped ws.
            norm_bound=jnp.asarray(0.5 * generator.latent_dim**0.5),
        ),
        cutouts=config.domain.cutouts,
        norm_weight=config.objective.norm_penalty,
        uniqueness_weight=config.objective.uniqueness,
        start_batches=config.search.start_batches,
        start_batch_size=config.search.start_batch_size,
        num_start=config.search.emitters,
    )
