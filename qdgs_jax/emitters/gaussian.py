"""MAP-Elites with Gaussian mutation (Mouret & Clune 2015, arXiv:1504.04909).

Each candidate is a random elite plus independent normal noise.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
from qdax.core.emitters.emitter import Emitter, EmitterState

from qdgs_jax.emitters import checks, restarts, space


@dataclasses.dataclass(frozen=True)
class GaussianEmitter(Emitter):
    """Mutate random elites.

    Attributes:
        batch: Candidates B per step.
        sigma: Standard deviation of the noise.
        bounds: (low, high) of every component, or None.
    """

    batch: int
    sigma: float = 0.5
    bounds: space.Bounds = None

    def __post_init__(self) -> None:
        checks.check_positive(batch=self.batch, sigma=self.sigma)
        checks.check_bounds(self.bounds)

    @property
    def batch_size(self) -> int:
        """Candidates per `emit`."""
        return self.batch

    def emit(
        self, repertoire: Any, emitter_state: EmitterState | None, key: jax.Array
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        """Candidates Float[B, D]; around the origin while the archive is empty."""
        choose, mutate = jax.random.split(key)
        elites = restarts.random_elites(repertoire, choose, space.origin(repertoire, self.batch))
        noise = jax.random.normal(mutate, elites.shape, elites.dtype)
        return space.clip(elites + self.sigma * noise, self.bounds), {}
