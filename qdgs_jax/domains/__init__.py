"""Domains: a generator, a CLIP and prompts, put together from a run file."""

from __future__ import annotations

from typing import Any


def load_domain(config: Any) -> Any:
    """Load the weights that a run names and embed its prompts.

    Raises:
        CheckpointError: if a checkpoint is missing, damaged or of another model.
    """
    from qdgs_jax.domains.shapes import load_shapes

    return load_shapes(config)
