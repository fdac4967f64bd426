"""Domains: a generator, a CLIP and prompts, put together from a run file."""

from __future__ import annotations

from collections.abc import Callable

from qdgs_jax.domains.prompted import PromptedDomain
from qdgs_jax.domains.shapes import load_shapes
from qdgs_jax.runs.config import RunConfig

DOMAINS: dict[str, Callable[[RunConfig], PromptedDomain]] = {"shapes": load_shapes}


def load_domain(config: RunConfig) -> PromptedDomain:
    """Load the weights that a run names and embed its prompts.

    Raises:
        CheckpointError: if a checkpoint is missing, damaged or of another model.
    """
    return DOMAINS[config.domain.kind](config)
