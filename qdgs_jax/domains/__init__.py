"""Domains: a generator, a CLIP and prompts, put together from a run file."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from qdgs_jax.domains.protocol import Domain, RunSettings


def load_domain(config: RunSettings) -> Domain:
    """Load the weights that a run names and embed its prompts.

    Args:
        config: a `RunConfig`, or whatever has the attributes of `RunSettings`.

    Raises:
        CheckpointError: if a checkpoint is missing, damaged or of another model.
        ValueError: if a prompt is too long, or config or a generator of the user's own is none.
    """
    if not hasattr(config, "domain"):
        raise ValueError(
            f"config is a {type(config).__name__}: give the RunConfig of a run file, "
            "qdgs_jax.runs.config.read_run_file(file), or take the domain of a finished run, "
            "qdgs_jax.load_run(folder).domain."
        )
    # Imported when it is called: run files are checked without JAX, by modules of this package.
    from qdgs_jax.domains.registry import DOMAINS

    return DOMAINS[config.domain.kind](config)
