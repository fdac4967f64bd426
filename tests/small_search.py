"""A small problem, and settings of a run file's [search] table that suit it."""

from types import SimpleNamespace

import jax.numpy as jnp

SETTINGS = SimpleNamespace(
    emitters=3,
    branches=3,
    sigma0=0.5,
    step_size=0.2,
    restart=7,
    normalization="unit",
    bounds=None,
)


def objective_and_measures(latents):
    """A sphere around (1, 1, ...), whose measures lie in (-1, 1)."""
    return 10 - jnp.sum((latents - 1) ** 2, axis=-1), jnp.tanh(latents[:, :2])
