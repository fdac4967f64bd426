"""MAP-Elites with the iso+line variation (Vassiliades & Mouret 2018, arXiv:1804.03906).

Each candidate is a random elite, moved along the line to another random elite and jittered. Elites
often share a low-dimensional manifold, to which such lines are nearly parallel.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
from qdax.core.emitters.emitter import Emitter, EmitterState

from qdgs_jax.emitters import checks, restarts, space


def vary(
    first: jax.Array, second: jax.Array, key: jax.Array, iso_sigma: float, line_sigma: float
) -> jax.Array:
    """Iso+line variation of latents Float[B, D] towards others Float[B, D]."""
    iso, line = jax.random.split(key)
    jitter = iso_sigma * jax.random.normal(iso, first.shape, first.dtype)
    slide = line_sigma * jax.random.normal(line, (first.shape[0], 1), first.dtype)
    return first + jitter + slide * (second - first)


@dataclasses.dataclass(frozen=True)
class IsoLineEmitter(Emitter):
    """Vary pairs of random elites.

    Attributes:
        batch: Candidates B per step.
        iso_sigma: Standard deviation of the jitter.
        line_sigma: Standard deviation of the move, in units of the pair's distance.
        bounds: (low, high) of every component, or None.
    """

    batch: int
    iso_sigma: float = 0.01
    line_sigma: float = 0.2
    bounds: space.Bounds = None

    def __post_init__(self) -> None:
        checks.check_positive(
            batch=self.batch, iso_sigma=self.iso_sigma, line_sigma=self.line_sigma
        )
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
        pairs = restarts.random_elites(repertoire, choose, space.origin(repertoire, 2 * self.batch))
        varied = vary(
            pairs[: self.batch], pairs[self.batch :], mutate, self.iso_sigma, self.line_sigma
        )
        return space.clip(varied, self.bounds), {}
