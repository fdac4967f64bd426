"""A list of latents as a model folder holds it, such as directions that augment a face."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx


@dataclasses.dataclass(frozen=True)
class LatentsConfig:
    """Sizes of the list.

    Attributes:
        count: latents A, at least 1.
        latent_dim: numbers D of each, at least 1.

    Raises:
        ValueError: a size is not positive.
    """

    count: int
    latent_dim: int

    def __post_init__(self) -> None:
        if min(self.count, self.latent_dim) < 1:
            raise ValueError(
                f"{self.count} latents of {self.latent_dim} numbers: give at least one of each."
            )

    def to_dict(self) -> dict[str, Any]:
        """The sizes as JSON can hold them."""
        return dataclasses.asdict(self)


class Latents(nnx.Module):
    """The list; its parameter `rows` is Float[A, D]."""

    def __init__(self, cfg: LatentsConfig, *, rngs: nnx.Rngs):
        self.cfg = cfg
        shape = (cfg.count, cfg.latent_dim)
        self.rows = nnx.Param(jax.random.normal(rngs.params(), shape, jnp.float32))

    def __call__(self) -> jax.Array:
        """The latents Float[A, D]."""
        rows: jax.Array = self.rows[...]
        return rows
