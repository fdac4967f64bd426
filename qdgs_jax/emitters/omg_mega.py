"""OMG-MEGA: branches from random elites along their gradients, without adaptation.

The simplest algorithm of Differentiable Quality Diversity (Fontaine & Nikolaidis 2021,
arXiv:2106.03894, section 4.1): parents are random elites, the coefficients come from a fixed normal
distribution, the objective's folded to be positive.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from qdax.core.emitters.emitter import Emitter, EmitterState

from qdgs_jax.emitters import common, restarts


class OMGMegaState(EmitterState):
    """The elites of this step.

    Attributes:
        theta: Float[E, D].
        gradients: Float[E, 1 + M, D], normalised gradient rows at theta; None until `accept`.
        key: UInt32[2], for the choice of elites when the driver passes no key.
    """

    theta: jax.Array
    gradients: jax.Array | None
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
    normalization: common.Normalization = "unit"
    epsilon: float = 1e-8
    bounds: common.Bounds = None
    jacobian_function: Callable[[jax.Array], jax.Array] | None = None

    def __post_init__(self) -> None:
        common.check_positive(
            num_emitters=self.num_emitters, branches=self.branches, sigma=self.sigma
        )
        common.check_bounds(self.bounds)
        common.check_normalization(self.normalization)

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
        theta = common.clip(common.start_points(genotypes, self.num_emitters), self.bounds)
        return OMGMegaState(theta=theta, gradients=None, key=restarts.raw_key(key))

    def parents(self, state: OMGMegaState) -> jax.Array:
        """Latents Float[E, D] to evaluate with Jacobians."""
        return state.theta

    def accept(self, state: OMGMegaState, jacobian: jax.Array) -> OMGMegaState:
        """Keep the parents' Jacobian Float[E, 1 + M, D] for the next `emit`."""
        rows = common.gradient_rows(
            jacobian, state.theta, self.num_measures, self.normalization, self.epsilon
        )
        accepted: OMGMegaState = state.replace(gradients=rows)
        return accepted

    def emit(
        self, repertoire: Any, emitter_state: OMGMegaState, key: jax.Array
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        """Branches Float[E * B, D], after the E parents if there is a `jacobian_function`."""
        theta = emitter_state.theta
        if self.jacobian_function is not None:
            emitter_state = self.accept(emitter_state, self.jacobian_function(theta))
        shape = (self.num_emitters, self.branches, 1 + self.num_measures)
        coefficients = self.sigma * jax.random.normal(key, shape, theta.dtype)
        rows = common.directions(emitter_state.gradients, jax.random.fold_in(key, 1))
        branches = common.branch(theta, rows, common.fold_objective(coefficients), self.bounds)
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
        key, carried = restarts.restart_key(emitter_state.key, extra_scores)
        elites = restarts.random_elites(repertoire, key, emitter_state.theta)
        theta = common.clip(elites, self.bounds)
        chosen: OMGMegaState = emitter_state.replace(theta=theta, gradients=None, key=carried)
        return chosen
