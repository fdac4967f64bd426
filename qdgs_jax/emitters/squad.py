"""SQUAD: ascent of a whole population on Soft QD (Hedayatian & Nikolaidis 2025, arXiv:2512.00810).

Every member lights up measure space with its fitness; what the population lights up together is
bounded from below by `sum_i f_i - sum_{i<j} sqrt(f_i f_j) exp(-|b_i - b_j|^2 / gamma^2)`, which has
a gradient: members climb their objective and repel each other in measure space. A few members move
per step; only their nearest neighbours count. The archive of the search looks on: it scores the
candidates and does not guide them, but says with its `qd_score_offset` where fitnesses begin.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from qdax.core.emitters.emitter import Emitter, EmitterState

from qdgs_jax.emitters import checks, gradients, qdax_driver, restarts, space
from qdgs_jax.emitters.optimizer import Optimizer, OptimizerState

_DARK = 1e-6  # the bound holds for positive fitnesses


class SquadState(EmitterState):
    """The population.

    Attributes:
        genotypes: Float[P, D].
        fitnesses: Float[P], minus the archive's `qd_score_offset`.
        descriptors: Float[P, M], in units of the archive's extents.
        evaluated: Bool[P], whether fitness and descriptor are known.
        optimizer: State of the members' optimisers.
        first: Int[], the member whose turn is next.
        extent: Float[M].
        key: UInt32[2], for members that have to start afresh when the driver passes no key.
    """

    genotypes: jax.Array
    fitnesses: jax.Array
    descriptors: jax.Array
    evaluated: jax.Array
    optimizer: OptimizerState
    first: jax.Array
    extent: jax.Array
    key: jax.Array


def soft_qd_gradient(
    state: SquadState,
    members: jax.Array,
    jacobian: jax.Array,
    bandwidth: float,
    neighbors: int,
) -> jax.Array:
    """Gradient of the bound with respect to some members.

    Those with a fitness that is not positive light up nothing: they climb their objective alone,
    and repel nobody.

    Args:
        state: The population.
        members: Int[E].
        jacobian: Float[E, 1 + M, D] at these members.
        bandwidth: gamma, in units of the archive's extents.
        neighbors: Nearest evaluated members that repel.

    Returns:
        Float[E, D].
    """
    fitnesses = jnp.where(state.fitnesses > _DARK, state.fitnesses, 0)
    own = fitnesses[members, None]
    apart = state.descriptors[members, None] - state.descriptors  # [E, P, M]
    squared = (apart**2).sum(-1)
    other = (jnp.arange(len(fitnesses)) != members[:, None]) & state.evaluated
    count = min(neighbors, len(fitnesses))
    nearest, index = jax.lax.top_k(jnp.where(other, -squared, -jnp.inf), count)
    kernel = jnp.exp(nearest / bandwidth**2)  # 0 where there is no further neighbour
    theirs = fitnesses[index]
    share = jnp.where(own > 0, jnp.sqrt(theirs / jnp.where(own > 0, own, 1)), 0)
    climb = 1 - 0.5 * (share * kernel).sum(-1)
    push = 2 / bandwidth**2 * jnp.sqrt(theirs * own) * kernel
    apart = jnp.take_along_axis(apart, index[..., None], axis=1)
    repulsion = jnp.einsum("en,enm->em", push, apart, precision=space.HIGHEST)
    weights = jnp.concatenate([climb[:, None], repulsion / state.extent], axis=1)
    return jnp.einsum("ek,ekd->ed", weights, jacobian, precision=space.HIGHEST)


@dataclasses.dataclass(frozen=True)
class SquadEmitter(Emitter):
    """Move E members of a population per step.

    Attributes:
        num_emitters: Members E that move per step; each costs an evaluation with Jacobian where it
            stands and one where it goes.
        population: Members P.
        bandwidth: gamma, in units of the archive's extents.
        neighbors: Nearest members that repel.
        spread: Standard deviation of the first population around the start latents.
        optimizer: Moves the members.
        bounds: (low, high) of every component, or None.
        jacobian_function: latents Float[E, D] -> Float[E, 1 + M, D]. Only for drivers that do not
            evaluate the members with Jacobians themselves (QDax's `MAPElites`): `emit` then
            differentiates. Members are not evaluated again where they stand.
    """

    num_emitters: int
    population: int = 1024
    bandwidth: float = 0.05
    neighbors: int = 16
    spread: float = 1.0
    optimizer: Optimizer = dataclasses.field(default_factory=lambda: Optimizer("adam", 0.05))
    bounds: space.Bounds = None
    jacobian_function: qdax_driver.JacobianFunction | None = None

    def __post_init__(self) -> None:
        checks.check_positive(
            num_emitters=self.num_emitters,
            bandwidth=self.bandwidth,
            neighbors=self.neighbors,
            spread=self.spread,
        )
        checks.check_bounds(self.bounds)
        if self.population < self.num_emitters:
            raise ValueError(
                f"population is {self.population}: {self.num_emitters} members move per step, give "
                "at least as many."
            )

    @property
    def num_parents(self) -> int:
        """Members to evaluate with Jacobians before each `emit`."""
        return self.num_emitters

    @property
    def batch_size(self) -> int:
        """Candidates per `emit`."""
        return self.num_emitters

    def init(
        self,
        key: jax.Array,
        repertoire: Any,
        genotypes: jax.Array,
        fitnesses: jax.Array,
        descriptors: jax.Array,
        extra_scores: Mapping[str, jax.Array],
    ) -> SquadState:
        """Scatter the population around the start latents Float[n, D]."""
        starts = space.start_points(genotypes, self.population)
        carried, scatter = jax.random.split(key)
        population = starts + self.spread * jax.random.normal(scatter, starts.shape, starts.dtype)
        population = space.clip(population, self.bounds)
        extent = space.extent(repertoire)
        return SquadState(
            genotypes=population,
            fitnesses=jnp.zeros(self.population, jnp.float32),
            descriptors=jnp.zeros((self.population, extent.shape[0]), extent.dtype),
            evaluated=jnp.zeros(self.population, bool),
            optimizer=self.optimizer.init(population),
            first=jnp.int32(0),
            extent=extent,
            key=qdax_driver.raw_key(carried),
        )

    def _members(self, state: SquadState) -> jax.Array:
        return (state.first + jnp.arange(self.num_emitters)) % self.population

    def parents(self, state: SquadState) -> jax.Array:
        """Latents Float[E, D] to evaluate with Jacobians."""
        return state.genotypes[self._members(state)]

    def emit(
        self,
        repertoire: Any,
        emitter_state: SquadState,
        key: jax.Array,
        jacobian: jax.Array | None = None,
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        """Step this turn's members. Those not evaluated so far stay, to be evaluated first.

        Args:
            repertoire: The archive.
            emitter_state: The population.
            key: Not used.
            jacobian: Float[E, 1 + M, D] at the members of this turn, unless there is a
                `jacobian_function`. A row that is not finite counts as zero.

        Returns:
            Where the members go, Float[E, D], and their optimisers after the step: "count" Int[E],
            "m" and "v" Float[E, D].

        Raises:
            ValueError: If there is no Jacobian, or one of another shape.
        """
        state, members = emitter_state, self._members(emitter_state)
        theta = state.genotypes[members]
        rows = gradients.gradient_rows(
            qdax_driver.jacobian_at(theta, jacobian, self.jacobian_function),
            theta,
            state.extent.shape[0],
            "none",
            epsilon=0.0,
        )
        direction = soft_qd_gradient(state, members, rows, self.bandwidth, self.neighbors)
        own: OptimizerState = jax.tree.map(lambda leaf: leaf[members], state.optimizer)
        stepped, moments = self.optimizer.step(own, theta, direction, state.evaluated[members])
        return space.clip(stepped, self.bounds), {
            "count": moments.count,
            "m": moments.m,
            "v": moments.v,
        }

    def state_update(
        self,
        emitter_state: SquadState,
        repertoire: Any,
        genotypes: jax.Array,
        fitnesses: jax.Array,
        descriptors: jax.Array,
        extra_scores: Mapping[str, jax.Array],
    ) -> SquadState:
        """Move the members; one whose scores are not finite starts afresh at a random elite.

        Args:
            emitter_state: State that emitted the candidates.
            repertoire: After their insertion. Its `qd_score_offset` is where fitnesses begin, 0 if
                it has none.
            genotypes: Float[E, D] as emitted.
            fitnesses: Float[E].
            descriptors: Float[E, M].
            extra_scores: What `emit` returned beside the genotypes; "key" for members that start
                afresh.
        """
        state, members = emitter_state, self._members(emitter_state)
        moments = OptimizerState(*(extra_scores[name] for name in ("count", "m", "v")))
        optimizer = jax.tree.map(
            lambda leaf, new: leaf.at[members].set(new), state.optimizer, moments
        )
        fitnesses = fitnesses.reshape(-1) - getattr(repertoire, "qd_score_offset", 0.0)
        sound = jnp.isfinite(fitnesses) & jnp.isfinite(descriptors).all(-1)
        sound &= jnp.isfinite(genotypes).all(-1)
        key, carried = qdax_driver.step_key(state.key, extra_scores)
        elites = restarts.random_elites(repertoire, key, state.genotypes[members])
        lost = jnp.zeros(self.population, bool).at[members].set(~sound)

        def write(stored: jax.Array, told: jax.Array, otherwise: jax.Array | float) -> jax.Array:
            where = sound.reshape(-1, *[1] * (told.ndim - 1))
            rows = jnp.where(where, told, otherwise).astype(stored.dtype)
            return stored.at[members].set(rows)

        moved: SquadState = state.replace(
            genotypes=write(state.genotypes, genotypes, elites),
            fitnesses=write(state.fitnesses, fitnesses, 0.0),
            descriptors=write(state.descriptors, descriptors / state.extent, 0.0),
            evaluated=state.evaluated.at[members].set(sound),
            optimizer=self.optimizer.reset(optimizer, lost),
            first=(state.first + self.num_emitters) % self.population,
            key=carried,
        )
        return moved
