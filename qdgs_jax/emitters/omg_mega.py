"""OMG-MEGA: branches from random elites along their gradients, without adaptation.

The simplest algorithm of Differentiable Quality Diversity (Fontaine & Nikolaidis 2021,
arXiv:2106.03894, section 4.1): parents are random elites, the coefficients come from a fixed normal
distribution, the objective's folded to be positive.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from qdax.core.emitters.emitter import Emitter, EmitterState

from qdgs_jax.emitters import checks, gradients, qdax_driver, restarts, space


class OMGMegaState(EmitterState):
    """The elites of this step.

    Attributes:
        theta: Float[E, D].
        key: UInt32[2], for the choice of elites when the driver passes no key.
    """

    theta: jax.Array
    key: jax.Array


@dataclasses.dataclass(frozen=True)
class OMGMegaEmitter(Emitter):
    """Branch E random elites along their gradients.

    Attributes:
        num_emitters: Number E of elites per step.
        branches: Branches B per elite.
        num_measures: Number M of measures.
        sigma: Standard deviation of the coefficients.
        normalization: As in `GradientArborescenceEmitter`.
        epsilon: Added to a gradient's norm.
        bounds: (low, high) of every component of a candidate and a parent, or None.
        jacobian_function: As in `GradientArborescenceEmitter`.
    """

    num_emitters: int
    branches: int
    num_measures: int
    sigma: float = 0.5
    normalization: gradients.Normalization = "unit"
    epsilon: float = 1e-8
    bounds: space.Bounds = None
    jacobian_function: qdax_driver.JacobianFunction | None = None

    def __post_init__(self) -> None:
        checks.check_positive(
            num_emitters=self.num_emitters, branches=self.branches, sigma=self.sigma
        )
        checks.check_bounds(self.bounds)
        checks.check_normalization(self.normalization)

    @property
    def num_parents(self) -> int:
        """Parents to evaluate with Jacobians before each `emit`."""
        return self.num_emitters

    @property
    def batch_size(self) -> int:
        """Candidates per `emit`."""
        own_parents = self.jacobian_function is not None
        return self.num_emitters * (self.branches + own_parents)

    def init(
        self,
        key: jax.Array,
        repertoire: Any,
        genotypes: jax.Array,
        fitnesses: jax.Array,
        descriptors: jax.Array,
        extra_scores: Mapping[str, jax.Array],
    ) -> OMGMegaState:
        """Start with genotypes[e % len(genotypes)]; genotypes Float[n, D], n >= 1."""
        theta = space.clip(space.start_points(genotypes, self.num_emitters), self.bounds)
        return OMGMegaState(theta=theta, key=qdax_driver.raw_key(key))

    def parents(self, state: OMGMegaState) -> jax.Array:
        """Latents Float[E, D] to evaluate with Jacobians."""
        return state.theta

    def emit(
        self,
        repertoire: Any,
        emitter_state: OMGMegaState,
        key: jax.Array,
        jacobian: jax.Array | None = None,
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        """Branch the elites along their gradients, or along random directions without any.

        Args:
            repertoire: The archive.
            emitter_state: State with the elites.
            key: For the coefficients and the random directions.
            jacobian: As in `GradientArborescenceEmitter.emit`.

        Returns:
            Branches Float[E * B, D], after the E elites if there is a `jacobian_function`.

        Raises:
            ValueError: If there is no Jacobian, or one of another shape.
        """
        theta = emitter_state.theta
        draw, lost = jax.random.split(key)
        shape = (self.num_emitters, self.branches, 1 + self.num_measures)
        drawn = self.sigma * jax.random.normal(draw, shape, theta.dtype)
        coefficients = gradients.fold_objective(drawn)
        rows = gradients.gradient_rows(
            qdax_driver.jacobian_at(theta, jacobian, self.jacobian_function),
            theta,
            self.num_measures,
            self.normalization,
            self.epsilon,
        )
        rows = gradients.directions(rows, lost)
        branches = gradients.branch(theta, rows, coefficients, self.bounds)
        genotypes = branches.reshape(-1, theta.shape[1])
        if self.jacobian_function is not None:
            genotypes = jnp.concatenate([theta, genotypes])
        return genotypes, {}

    def state_update(
        self,
        emitter_state: OMGMegaState,
        repertoire: Any,
        genotypes: jax.Array,
        fitnesses: jax.Array,
        descriptors: jax.Array,
        extra_scores: Mapping[str, jax.Array],
    ) -> OMGMegaState:
        """Choose the elites of the next step."""
        key, carried = qdax_driver.step_key(emitter_state.key, extra_scores)
        elites = restarts.random_elites(repertoire, key, emitter_state.theta)
        theta = space.clip(elites, self.bounds)
        chosen: OMGMegaState = emitter_state.replace(theta=theta, key=carried)
        return chosen
