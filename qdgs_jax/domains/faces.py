"""The faces domain of the paper: StyleGAN2, searched in the normalised codes of all its layers.

A searched latent is `q = (w - w_avg) / w_std`, Float[num_ws, w_dim] flattened (Chang et al. 2024,
section 4). Images are decoded with the stored noise, so they are functions of the latent alone. The
deviation `w_std` and the norm that q may have lie in the generator's folder, where `qdgs port` put
them.
"""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from qdgs_jax.domains.evaluation import Computation
from qdgs_jax.domains.prompted import PromptedDomain, prompted_domain
from qdgs_jax.domains.protocol import FacesSettings, LatentStatistics, RunSettings
from qdgs_jax.domains.weights import checkpoint_folder
from qdgs_jax.models.stylegan2 import CodeStatistics, Generator, StyleGAN2Config
from qdgs_jax.models.stylegan2.generator import SynthesisNetwork
from qdgs_jax.models.variables import PreparedModel
from qdgs_jax.ports.errors import CheckpointError
from qdgs_jax.ports.loading import load
from qdgs_jax.ports.model_folder import load_config
from qdgs_jax.ports.registry import STATISTICS


@dataclasses.dataclass(frozen=True, eq=False)
class CodeGenerator:
    """StyleGAN2 as a generator whose latents are the codes w of all layers.

    Attributes:
        graph: structure of the networks.
        cfg: their sizes.
        truncation: psi of the samples, `w_avg + psi (w - w_avg)`.
    """

    graph: nnx.GraphDef[Generator]
    cfg: StyleGAN2Config
    truncation: float = 0.7

    @property
    def latent_dim(self) -> int:
        """Length D of a latent, num_ws x w_dim."""
        return self.cfg.num_ws * self.cfg.w_dim

    def prepare_weights(self, params: nnx.State) -> PreparedModel[SynthesisNetwork]:
        """Weights as they are multiplied, for `decode` on the backend at hand."""
        synthesis = nnx.merge(self.graph, params).synthesis
        synthesis.prepare()
        return PreparedModel.of(synthesis)

    def decode(
        self, params: nnx.State | PreparedModel[SynthesisNetwork], latents: jax.Array
    ) -> jax.Array:
        """Images Float[B, R, R, 3] in [0, 1] of codes Float[B, D], with the stored noise."""
        codes = latents.reshape(-1, self.cfg.num_ws, self.cfg.w_dim)
        if isinstance(params, PreparedModel):
            synthesis = params.merge()
        else:
            synthesis = nnx.merge(self.graph, params).synthesis
        return (synthesis(codes, noise="const") + 1) / 2

    def sample(self, params: nnx.State, key: jax.Array, count: int) -> jax.Array:
        """Truncated codes Float[count, D] of normal z, the same code for each layer."""
        z = jax.random.normal(key, (count, self.cfg.z_dim))
        codes = nnx.merge(self.graph, params).mapping(z, psi=self.truncation)
        return codes.reshape(count, -1)


def load_code_generator(
    name: str, truncation: float = 0.7, computation: Computation | None = None
) -> tuple[CodeGenerator, nnx.State, LatentStatistics]:
    """A StyleGAN2 folder as a generator, its weights and the statistics of its codes.

    Args:
        name: `embedded:NAME` or a folder.
        truncation: psi of the samples.
        computation: how its images are computed; None for float32.

    Raises:
        CheckpointError: if the folder is missing, damaged, no StyleGAN2, one of classes or without
            colours, or if its statistics are missing or of other codes.
    """
    folder = checkpoint_folder(name)
    computation = computation or Computation()
    model = load(folder, Generator, dtype=computation.dtype, remat=computation.remat)
    cfg = model.cfg
    check_searched(folder, cfg)
    w_avg = np.asarray(model.mapping.w_avg[...], np.float32)
    statistics = latent_statistics(read_statistics(folder, cfg), w_avg, cfg.num_ws)
    graph, state = nnx.split(model)
    return CodeGenerator(graph, cfg, truncation), state, statistics


def check_searched(folder: object, cfg: StyleGAN2Config) -> None:
    """Refuse a generator whose codes are not searched.

    Raises:
        CheckpointError: if it is one of classes or without colours.
    """
    if cfg.c_dim:
        raise CheckpointError(
            f"{folder} is a generator of {cfg.c_dim} classes, which are not searched: give one "
            "without classes."
        )
    if cfg.img_channels != 3:
        raise CheckpointError(
            f"{folder} draws images of {cfg.img_channels} channels: give a generator of 3."
        )


def read_statistics(folder: object, cfg: StyleGAN2Config) -> CodeStatistics:
    """The statistics of codes that a generator's folder holds.

    Raises:
        CheckpointError: if there are none, or they are those of other codes.
    """
    fields = load_config(str(folder)).get(STATISTICS)
    if fields is None:
        raise CheckpointError(
            f"{folder} holds no statistics of its codes, which a search normalises them with: port "
            "the checkpoint again, `qdgs port stylegan2 CHECKPOINT FOLDER` measures them."
        )
    try:
        found = CodeStatistics.from_dict(fields)
    except ValueError as error:
        raise CheckpointError(f"{folder}: {error} Port the checkpoint again.") from None
    if len(found.w_std) != cfg.w_dim:
        raise CheckpointError(
            f"{folder} holds statistics of codes of {len(found.w_std)} numbers, its generator has "
            f"w_dim = {cfg.w_dim}: port the checkpoint again."
        )
    return found


def latent_statistics(codes: CodeStatistics, w_avg: np.ndarray, num_ws: int) -> LatentStatistics:
    """What codes of all layers are normalised with.

    Args:
        codes: their statistics.
        w_avg: Float[w_dim], the average code.
        num_ws: codes per image.
    """
    std = np.asarray(codes.w_std, np.float32)
    return LatentStatistics(
        mean=jnp.asarray(np.tile(w_avg, num_ws)),
        std=jnp.asarray(np.tile(std, num_ws)),
        norm_bound=jnp.asarray(0.5 * codes.mean_norm, jnp.float32),
    )


def load_faces(config: RunSettings) -> PromptedDomain[nnx.State]:
    """Load generator and CLIP, and embed the prompts of a run.

    Raises:
        CheckpointError: if a checkpoint is missing, damaged or of another model, or a generator's
            folder lacks statistics.
        ValueError: if a prompt is too long, or the table [domain] is of another kind.
    """
    settings = config.domain
    if not isinstance(settings, FacesSettings):
        raise ValueError(
            f"domain.kind is {settings.kind!r}, but the table has no truncation: give that of "
            'kind = "faces".'
        )
    computation = Computation.of(config.evaluation)
    generator, weights, statistics = load_code_generator(
        settings.generator, settings.truncation, computation
    )
    return prompted_domain(config, generator, weights, statistics, computation)
