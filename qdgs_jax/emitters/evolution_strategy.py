"""CMA-ME and CMA-MAE: CMA-ES in latent space, ranked by what the archive makes of each candidate.

CMA-ME (Fontaine et al. 2020, arXiv:1912.02400) ranks by improvement ("2imp"), by fitness ("obj") or
by progress along a random direction of measure space ("2rd") on an elitist archive. CMA-MAE
(Fontaine & Nikolaidis 2022, arXiv:2205.10752) ranks by value alone ("imp") on an annealed archive,
which is what lets it stay on a hill until all of it has been collected.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, Literal

import jax
import jax.numpy as jnp
from qdax.core.emitters.emitter import Emitter, EmitterState

from qdgs_jax.emitters import checks, cma_es, qdax_driver, ranking, restarts, space
from qdgs_jax.emitters.ranking import ParentRule, Ranking, Verdict


class EvolutionStrategyState(EmitterState):
    """E strategies.

    Attributes:
        strategy: CMA-ES over latents.
        direction: Float[E, M], directions of "rd" rankings in units of the measures' extents.
        extent: Float[M], extents of the archive's cells.
        age: Int[E], iterations since the last restart.
        key: UInt32[2], for restarts when the driver passes no key.
    """

    strategy: cma_es.CMAState
    direction: jax.Array
    extent: jax.Array
    age: jax.Array
    key: jax.Array


@dataclasses.dataclass(frozen=True)
class EvolutionStrategyEmitter(Emitter):
    """Sample from E adapted normal distributions.

    Attributes:
        num_emitters: Number E of strategies.
        batch: Candidates B per strategy and step.
        sigma0: Initial step size.
        ranking: See `ranking.rank`.
        parent_rule: "mu" (better half, at least one), "accepted" or "all".
        restart: "basic", "no_improvement" or a number of iterations.
        bounds: (low, high) of every component of a candidate, or None. Candidates beyond are moved
            to the bound, and the strategy learns from where they then are.
        form: "full" covariance, or "separable" for long latents.
        variant: Of the CMA-ES update.
        factor: Of a full covariance.
    """

    num_emitters: int
    batch: int
    sigma0: float = 0.5
    ranking: Ranking = "imp"
    parent_rule: ParentRule = "mu"
    restart: restarts.RestartRule = "basic"
    bounds: space.Bounds = None
    form: Literal["full", "separable"] = "full"
    variant: Literal["textbook", "pyribs"] = "textbook"
    factor: Literal["eigen", "cholesky"] = "cholesky"

    def __post_init__(self) -> None:
        checks.check_strategy(self.num_emitters, self.ranking, self.parent_rule)
        checks.check_bounds(self.bounds)
        restarts.check_rule(self.restart)
        self.config(1)  # validates batch, sigma0, form, variant and factor

    def config(self, latent_dim: int) -> cma_es.CMAConfig:
        """Settings of the CMA-ES over latents of a length."""
        return cma_es.CMAConfig(
            dim=latent_dim,
            batch=self.batch,
            sigma0=self.sigma0,
            form=self.form,
            factor=self.factor,
            variant=self.variant,
        )

    @property
    def batch_size(self) -> int:
        """Candidates per `emit`."""
        return self.num_emitters * self.batch

    def init(
        self,
        key: jax.Array,
        repertoire: Any,
        genotypes: jax.Array,
        fitnesses: jax.Array,
        descriptors: jax.Array,
        extra_scores: Mapping[str, jax.Array],
    ) -> EvolutionStrategyState:
        """Start emitter e around genotypes[e % len(genotypes)]; genotypes Float[n, D], n >= 1."""
        mean = space.start_points(genotypes, self.num_emitters)
        extent = space.extent(repertoire)
        carried, draw = jax.random.split(key)
        return EvolutionStrategyState(
            strategy=cma_es.init(self.config(mean.shape[1]), mean),
            direction=jax.random.normal(draw, (self.num_emitters, extent.shape[0])),
            extent=extent,
            age=jnp.zeros(self.num_emitters, jnp.int32),
            key=qdax_driver.raw_key(carried),
        )

    def emit(
        self, repertoire: Any, emitter_state: EvolutionStrategyState, key: jax.Array
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        """Candidates Float[E * B, D], those of emitter e at e * B onwards."""
        strategy = emitter_state.strategy
        samples = cma_es.sample(self.config(strategy.mean.shape[1]), strategy, key)
        genotypes = space.clip(samples.reshape(self.batch_size, -1), self.bounds)
        return genotypes, qdax_driver.snapshot(repertoire)

    def state_update(
        self,
        emitter_state: EvolutionStrategyState,
        repertoire: Any,
        genotypes: jax.Array,
        fitnesses: jax.Array,
        descriptors: jax.Array,
        extra_scores: Mapping[str, jax.Array],
    ) -> EvolutionStrategyState:
        """Adapt the strategies, restart what is stuck.

        Args:
            emitter_state: State that emitted the candidates.
            repertoire: After their insertion.
            genotypes: Float[E * B, D] as emitted.
            fitnesses: Float[E * B].
            descriptors: Float[E * B, M].
            extra_scores: "status" and "value" of AddInfo, or what `emit` returned beside the
                genotypes; "key" for restarts.
        """
        E, config = self.num_emitters, self.config(genotypes.shape[1])
        verdict = qdax_driver.verdict(repertoire, fitnesses, descriptors, extra_scores)
        verdict = ranking.per_emitter(verdict, E)
        projection = self._project(emitter_state, descriptors, verdict)
        order, flat = ranking.rank(self.ranking, verdict, projection)
        order, num_parents = ranking.select_parents(self.parent_rule, order, verdict.status)

        ranked = ranking.take(genotypes.reshape(E, self.batch, -1), order)
        strategy, _ = cma_es.update(config, emitter_state.strategy, ranked, num_parents)
        age = emitter_state.age + 1
        stop = flat | cma_es.should_stop(config, strategy)
        stop |= restarts.rule_applies(self.restart, verdict.status, age)
        key, carried = qdax_driver.step_key(emitter_state.key, extra_scores)
        adapted: EvolutionStrategyState = emitter_state.replace(
            strategy=strategy, age=age, key=carried
        )
        continued = self._restart(adapted, repertoire, stop, key)
        refreshed: EvolutionStrategyState = continued.replace(
            strategy=cma_es.refresh(config, continued.strategy)
        )
        return refreshed

    def _project(
        self, state: EvolutionStrategyState, descriptors: jax.Array, verdict: Verdict
    ) -> jax.Array:
        """Progress Float[E, B] along each emitter's direction; -inf for what is not finite."""
        scaled = (descriptors / state.extent).reshape(*verdict.fitnesses.shape, -1)
        along = jnp.einsum("ebm,em->eb", scaled, state.direction, precision=space.HIGHEST)
        return jnp.where(jnp.isneginf(verdict.fitnesses), -jnp.inf, along)

    def _restart(
        self,
        state: EvolutionStrategyState,
        repertoire: Any,
        where: jax.Array,
        key: jax.Array,
    ) -> EvolutionStrategyState:
        choose, draw = jax.random.split(key)
        mean = state.strategy.mean
        elites = restarts.random_elites(repertoire, choose, mean)
        directions = jax.random.normal(draw, state.direction.shape, state.direction.dtype)
        restarted: EvolutionStrategyState = state.replace(
            strategy=cma_es.reset(self.config(mean.shape[1]), state.strategy, where, elites),
            direction=jnp.where(where[:, None], directions, state.direction),
            age=jnp.where(where, 0, state.age),
        )
        return restarted
