"""The shapes domain of the paper: a VAE of coloured shapes, searched in its 6 latents."""

from __future__ import annotations

import dataclasses

import jax
from flax import nnx

from qdgs_jax.domains.evaluation import Computation
from qdgs_jax.domains.prompted import PromptedDomain, prompted_domain
from qdgs_jax.domains.protocol import LatentStatistics, RunSettings
from qdgs_jax.domains.weights import checkpoint_folder
from qdgs_jax.models.vae import VAE, Decoder
from qdgs_jax.ports.loading import load


@dataclasses.dataclass(frozen=True, eq=False)
class VAEGenerator:
    """The decoder of a VAE; its prior is the standard normal.

    Attributes:
        graph: structure of the decoder.
        latent_dim: length D of a latent.
    """

    graph: nnx.GraphDef[Decoder]
    latent_dim: int

    def decode(self, params: nnx.State, latents: jax.Array) -> jax.Array:
        """Images Float[B, H, W, 3] in [0, 1] of latents Float[B, D]."""
        return nnx.merge(self.graph, params)(latents)

    def sample(self, params: nnx.State, key: jax.Array, count: int) -> jax.Array:
        """Latents Float[count, D] from the standard normal."""
        return jax.random.normal(key, (count, self.latent_dim))


def load_vae_decoder(
    name: str, computation: Computation | None = None
) -> tuple[VAEGenerator, nnx.State]:
    """The decoder of a VAE checkpoint, as a generator and its weights.

    Raises:
        CheckpointError: if the checkpoint is missing, damaged or no VAE.
    """
    folder = checkpoint_folder(name)
    computation = computation or Computation()
    model = load(folder, VAE, dtype=computation.dtype, remat=computation.remat)
    graph, state = nnx.split(model.decoder)
    return VAEGenerator(graph, model.cfg.latent_dim), state


def load_shapes(config: RunSettings) -> PromptedDomain[nnx.State]:
    """Load generator and CLIP, and embed the prompts of a run.

    Raises:
        CheckpointError: if a checkpoint is missing, damaged or of another model.
        ValueError: if a prompt is too long.
    """
    computation = Computation.of(config.evaluation)
    generator, weights = load_vae_decoder(config.domain.generator, computation)
    statistics = LatentStatistics.standard(generator.latent_dim)
    return prompted_domain(config, generator, weights, statistics, computation)
