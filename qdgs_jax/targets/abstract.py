"""The domain of a run as shapes alone: built from the networks' settings, without their weights.

Every array of its `params` is a `jax.ShapeDtypeStruct`; structure, shapes and types are those of
the loaded domain, so that what is lowered for one is the program that the other would run.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from qdgs_jax.domains.evaluation import Computation
from qdgs_jax.domains.external import ExternalGenerator, generator_shapes, make_generator
from qdgs_jax.domains.faces import CodeGenerator, check_searched
from qdgs_jax.domains.prompted import PromptedDomain
from qdgs_jax.domains.protocol import (
    DomainParams,
    ExternalSettings,
    FacesSettings,
    Generator,
    LatentStatistics,
    RunSettings,
    Texts,
)
from qdgs_jax.domains.scoring import PromptAxis, Targets
from qdgs_jax.domains.shapes import VAEGenerator
from qdgs_jax.domains.start import StartSettings
from qdgs_jax.models.clip import CLIPConfig, VisionTower
from qdgs_jax.models.stylegan2 import Generator as StyleGAN2
from qdgs_jax.models.vae import VAE
from qdgs_jax.ports.mapping import SHAPES_ONLY
from qdgs_jax.targets.sizes import read_sizes

Made = tuple[Generator[Any], Any, LatentStatistics]


def abstract_domain(config: RunSettings, backend: str | None = None) -> PromptedDomain[Any]:
    """The domain of a run without weights.

    Args:
        config: the run; its weights may be named as `sizes.read_sizes` takes them.
        backend: that it is for, "cpu", "gpu" or "tpu"; None for `target_backend()`.

    Raises:
        CheckpointError: if a folder is missing or of another model.
        ValueError: if sizes are unknown, or a generator of the user's own cannot be made.
    """
    computation = Computation.of(config.evaluation, backend)
    generator, weights, statistics = _MAKERS[config.domain.kind](config, computation)
    cfg: CLIPConfig = read_sizes("clip", config.domain.clip)
    graph, tower = _shapes_of(
        lambda: VisionTower(cfg, dtype=computation.dtype, remat=computation.remat, rngs=SHAPES_ONLY)
    )
    return PromptedDomain(
        generator=generator,
        clip_graph=graph,
        clip_config=cfg,
        params=DomainParams(
            generator=weights,
            clip=tower,
            targets=Targets(
                _axis(config.objective, cfg), tuple(_axis(axis, cfg) for axis in config.measures)
            ),
            statistics=statistics,
        ),
        computation=computation,
        cutouts=config.domain.cutouts,
        norm_weight=config.objective.norm_penalty,
        uniqueness_weight=config.objective.uniqueness,
        start=StartSettings(
            batches=config.search.start_batches,
            batch_size=config.search.start_batch_size,
            count=config.search.emitters,
        ),
    )


def _shapes_of(make: Any) -> tuple[Any, Any]:
    """Structure of a network, and shapes of its weights."""
    return nnx.split(nnx.eval_shape(make))


def _axis(texts: Texts, cfg: CLIPConfig) -> PromptAxis:
    """A pair of prompts as it will be embedded."""
    sides: list[Any] = [
        jax.ShapeDtypeStruct((len(side), cfg.embed_dim), jnp.float32)  # type: ignore[no-untyped-call]
        for side in (texts.positive, texts.negative)
    ]
    return PromptAxis(*sides)


def _statistics(latent_dim: int) -> LatentStatistics:
    shapes: LatentStatistics = jax.eval_shape(lambda: LatentStatistics.standard(latent_dim))
    return shapes


def _shapes(config: RunSettings, computation: Computation) -> Made:
    cfg = read_sizes("vae", config.domain.generator)
    options: dict[str, Any] = {"dtype": computation.dtype, "remat": computation.remat}
    graph, weights = _shapes_of(lambda: VAE(cfg, rngs=SHAPES_ONLY, **options).decoder)
    return VAEGenerator(graph, cfg.latent_dim), weights, _statistics(cfg.latent_dim)


def _faces(config: RunSettings, computation: Computation) -> Made:
    settings = config.domain
    if not isinstance(settings, FacesSettings):
        raise ValueError(f"domain.kind is {settings.kind!r}, but the table has no truncation.")
    cfg = read_sizes("stylegan2", settings.generator)
    check_searched(settings.generator, cfg)
    options: dict[str, Any] = {"dtype": computation.dtype, "remat": computation.remat}
    graph, weights = _shapes_of(lambda: StyleGAN2(cfg, rngs=SHAPES_ONLY, **options))
    generator = CodeGenerator(graph, cfg, settings.truncation)
    return generator, weights, _statistics(generator.latent_dim)


def _external(config: RunSettings, computation: Computation) -> Made:
    settings = config.domain
    if not isinstance(settings, ExternalSettings):
        raise ValueError(f"domain.kind is {settings.kind!r}, but the table has no arguments.")
    folder = Path(settings.folder or ".")
    supplied = make_generator(settings.generator, settings.arguments, folder)
    weights = generator_shapes(settings.generator, supplied)
    generator = ExternalGenerator(supplied, int(supplied.latent_dim), computation.remat)
    return generator, weights, _statistics(generator.latent_dim)


_MAKERS = {"shapes": _shapes, "faces": _faces, "external": _external}
