"""Dominated Novelty Search (Bahlous-Boldi et al. 2025, arXiv:2502.00593).

A population without cells: each member competes only with fitter ones, and survives by its distance
in measure space from the nearest of these, so that local competition follows from the population
itself. The archive of the search looks on: it scores the candidates and does not guide them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from qdax.core.emitters.emitter import Emitter, EmitterState

from qdgs_jax.emitters import checks, space
from qdgs_jax.emitters.iso_line import vary


class DominatedNoveltyState(EmitterState):
    """The population, best first; free places have the fitness -inf.

    Attributes:
        genotypes: Float[P, D].
        fitnesses: Float[P].
        descriptors: Float[P, M], in units of the archive's extents.
        extent: Float[M].
    """

    genotypes: jax.Array
    fitnesses: jax.Array
    descriptors: jax.Array
    extent: jax.Array


def dominated_novelty(fitnesses: jax.Array, descriptors: jax.Array, neighbors: int) -> jax.Array:
    """Mean distance to the nearest fitter members (the paper's eq. 3).

    Args:
        fitnesses: Float[N]; -inf marks no member.
        descriptors: Float[N, M].
        neighbors: How many of the nearest; fewer where fewer are fitter.

    Returns:
        Float[N]; infinite for members without a fitter one, -inf for no member.
    """
    # By differences: |a|^2 + |b|^2 - 2ab loses what is small beside the distance to the origin.
    apart = [column[:, None] - column for column in descriptors.T]
    distance = jnp.sqrt(sum(difference**2 for difference in apart))
    fitter = fitnesses > fitnesses[:, None]
    nearest, _ = jax.lax.top_k(
        jnp.where(fitter, -distance, -jnp.inf), min(neighbors, fitnesses.shape[0])
    )
    found = jnp.isfinite(nearest)
    mean = -jnp.where(found, nearest, 0).sum(-1) / jnp.maximum(found.sum(-1), 1)
    novelty = jnp.where(found.any(-1), mean, jnp.inf)
    return jnp.where(jnp.isneginf(fitnesses), -jnp.inf, novelty)


@dataclasses.dataclass(frozen=True)
class DominatedNoveltyEmitter(Emitter):
    """Vary a population that dominated novelty selects.

    Attributes:
        batch: Candidates B per step.
        population: Members P.
        neighbors: Nearest fitter members that count.
        iso_sigma: See `IsoLineEmitter`.
        line_sigma: See `IsoLineEmitter`.
        bounds: (low, high) of every component, or None.
    """

    batch: int
    population: int = 1024
    neighbors: int = 3
    iso_sigma: float = 0.01
    line_sigma: float = 0.2
    bounds: space.Bounds = None

    def __post_init__(self) -> None:
        checks.check_positive(
            batch=self.batch,
            population=self.population,
            neighbors=self.neighbors,
            iso_sigma=self.iso_sigma,
            line_sigma=self.line_sigma,
        )
        checks.check_bounds(self.bounds)

    @property
    def batch_size(self) -> int:
        """Candidates per `emit`."""
        return self.batch

    def init(
        self,
        key: jax.Array,
        repertoire: Any,
        genotypes: jax.Array,
        fitnesses: jax.Array,
        descriptors: jax.Array,
        extra_scores: Mapping[str, jax.Array],
    ) -> DominatedNoveltyState:
        """Start with the given latents Float[n, D] as the population."""
        genotypes = space.start_points(genotypes, len(genotypes))
        P, (_, D), M = self.population, genotypes.shape, descriptors.shape[1]
        empty = DominatedNoveltyState(
            genotypes=jnp.zeros((P, D), genotypes.dtype),
            fitnesses=jnp.full(P, -jnp.inf),
            descriptors=jnp.zeros((P, M)),
            extent=space.extent(repertoire),
        )
        return self._select(empty, genotypes, fitnesses, descriptors)

    def emit(
        self, repertoire: Any, emitter_state: DominatedNoveltyState, key: jax.Array
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        """Candidates Float[B, D] from random pairs of the population."""
        choose, mutate = jax.random.split(key)
        members = jnp.maximum((emitter_state.fitnesses > -jnp.inf).sum(), 1)
        pairs = emitter_state.genotypes[jax.random.randint(choose, (2, self.batch), 0, members)]
        varied = vary(pairs[0], pairs[1], mutate, self.iso_sigma, self.line_sigma)
        return space.clip(varied, self.bounds), {}

    def state_update(
        self,
        emitter_state: DominatedNoveltyState,
        repertoire: Any,
        genotypes: jax.Array,
        fitnesses: jax.Array,
        descriptors: jax.Array,
        extra_scores: Mapping[str, jax.Array],
    ) -> DominatedNoveltyState:
        """Let population and candidates compete for the places."""
        return self._select(emitter_state, genotypes, fitnesses, descriptors)

    def _select(
        self,
        state: DominatedNoveltyState,
        genotypes: jax.Array,
        fitnesses: jax.Array,
        descriptors: jax.Array,
    ) -> DominatedNoveltyState:
        fitnesses = fitnesses.reshape(-1)
        sound = jnp.isfinite(fitnesses) & jnp.isfinite(descriptors).all(-1)
        sound &= jnp.isfinite(genotypes).all(-1)
        scaled = jnp.where(sound[:, None], descriptors / state.extent, 0)
        pool = DominatedNoveltyState(
            genotypes=jnp.concatenate([state.genotypes, genotypes.astype(state.genotypes.dtype)]),
            fitnesses=jnp.concatenate([state.fitnesses, jnp.where(sound, fitnesses, -jnp.inf)]),
            descriptors=jnp.concatenate([state.descriptors, scaled]),
            extent=state.extent,
        )
        novelty = dominated_novelty(pool.fitnesses, pool.descriptors, self.neighbors)
        _, kept = jax.lax.top_k(novelty, self.population)
        selected: DominatedNoveltyState = pool.replace(
            genotypes=pool.genotypes[kept],
            fitnesses=pool.fitnesses[kept],
            descriptors=pool.descriptors[kept],
        )
        return selected
