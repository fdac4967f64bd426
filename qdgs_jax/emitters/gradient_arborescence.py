"""Gradient arborescence: CMA-MEGA and CMA-MAEGA.

A parent branches into its gradient span: theta + c J, where the rows of J are the normalised
gradients of objective and measures. The coefficients c come from a CMA-ES in that small space,
which learns how objective and measures trade off here; the parent then steps towards its best
branches. Differentiable Quality Diversity (Fontaine & Nikolaidis 2021, arXiv:2106.03894, Algorithm
1) ranks by (status, value) on an elitist archive: CMA-MEGA. Ranking by value alone on an annealed
archive is CMA-MAEGA (Fontaine & Nikolaidis 2022, arXiv:2205.10752), the algorithm of QDGS.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, Literal

import jax
import jax.numpy as jnp
from qdax.core.emitters.emitter import Emitter, EmitterState

from qdgs_jax.emitters import (
    checks,
    cma_es,
    gradients,
    qdax_driver,
    ranking,
    restarts,
    space,
)
from qdgs_jax.emitters.optimizer import Optimizer, OptimizerState
from qdgs_jax.emitters.ranking import ParentRule, Ranking


class GradientArborescenceState(EmitterState):
    """E parents and their searches.

    Attributes:
        theta: Float[E, D], the parents.
        optimizer: State of the parents' optimisers.
        strategy: CMA-ES over coefficients.
        age: Int[E], iterations since the last restart.
        key: UInt32[2], for restarts when the driver passes no key.
    """

    theta: jax.Array
    optimizer: OptimizerState
    strategy: cma_es.CMAState
    age: jax.Array
    key: jax.Array


@dataclasses.dataclass(frozen=True)
class GradientArborescenceEmitter(Emitter):
    """Branch E parents along their gradients.

    Attributes:
        num_emitters: Number E of parents.
        branches: Branches B per parent and step.
        num_measures: Number M of measures.
        sigma0: Initial step size of the coefficients.
        optimizer: Moves the parents.
        ranking: "imp" (CMA-MAEGA), "2imp" (CMA-MEGA), "obj" or "2obj".
        parent_rule: "mu" (better half, at least one), "accepted" or "all".
        restart: "basic", "no_improvement" or a number of iterations.
        objective_coefficient: "signed", or "nonnegative": branches use |c_0|, so that no branch
            descends the objective. The CMA-ES learns from the unfolded c, of which it drew a true
            Gaussian sample: learning from folded ones makes the mean drift upwards under random
            ranking already.
        normalization: "unit" scales each gradient row to unit length, as published. "orthonormal"
            also removes what the rows have in common: each measure's loses its part along the
            measures before it, the objective's its part along any measure. The span is the same,
            but the coefficients are as independent as the CMA-ES first draws them, however
            parallel the gradients are. "none" takes them as they are.
        epsilon: Added to a gradient's norm.
        bounds: (low, high) of every component of a candidate and a parent, or None.
        variant: Of the CMA-ES update.
        factor: Of the CMA-ES covariance; see `cma_es`.
        jacobian_function: latents Float[E, D] -> Float[E, 1 + M, D]. Only for drivers that do not
            evaluate the parents themselves (QDax's `MAPElites`): `emit` then differentiates, and
            its first E rows are the parents.
    """

    num_emitters: int
    branches: int
    num_measures: int
    sigma0: float = 0.5
    optimizer: Optimizer = dataclasses.field(default_factory=Optimizer)
    ranking: Ranking = "imp"
    parent_rule: ParentRule = "mu"
    restart: restarts.RestartRule = "basic"
    objective_coefficient: Literal["signed", "nonnegative"] = "signed"
    normalization: gradients.Normalization = "unit"
    epsilon: float = 1e-8
    bounds: space.Bounds = None
    variant: Literal["textbook", "pyribs"] = "textbook"
    factor: Literal["eigen", "cholesky"] = "cholesky"
    jacobian_function: qdax_driver.JacobianFunction | None = None

    def __post_init__(self) -> None:
        checks.check_strategy(self.num_emitters, self.ranking, self.parent_rule)
        checks.check_bounds(self.bounds)
        checks.check_normalization(self.normalization)
        restarts.check_rule(self.restart)
        if self.ranking.endswith("rd"):
            raise ValueError(f"ranking is {self.ranking!r}: choose 'imp', '2imp', 'obj' or '2obj'.")
        checks.check_positive(branches=self.branches, num_measures=self.num_measures)
        if self.objective_coefficient not in ("signed", "nonnegative"):
            raise ValueError(
                f"objective_coefficient is {self.objective_coefficient!r}: choose 'signed' or "
                "'nonnegative'."
            )
        _ = self.config  # validates branches, sigma0, variant and factor

    @property
    def config(self) -> cma_es.CMAConfig:
        """Settings of the CMA-ES over coefficients."""
        return cma_es.CMAConfig(
            dim=1 + self.num_measures,
            batch=self.branches,
            sigma0=self.sigma0,
            factor=self.factor,
            variant=self.variant,
        )

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
    ) -> GradientArborescenceState:
        """Start emitter e at genotypes[e % len(genotypes)]; genotypes Float[n, D], n >= 1."""
        theta = space.clip(space.start_points(genotypes, self.num_emitters), self.bounds)
        coefficients = jnp.zeros((len(theta), 1 + self.num_measures), theta.dtype)
        return GradientArborescenceState(
            theta=theta,
            optimizer=self.optimizer.init(theta),
            strategy=cma_es.init(self.config, coefficients),
            age=jnp.zeros(len(theta), jnp.int32),
            key=qdax_driver.raw_key(key),
        )

    def parents(self, state: GradientArborescenceState) -> jax.Array:
        """Latents Float[E, D] to evaluate with Jacobians."""
        return state.theta

    def emit(
        self,
        repertoire: Any,
        emitter_state: GradientArborescenceState,
        key: jax.Array,
        jacobian: jax.Array | None = None,
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        """Branch the parents along their gradients, or along random directions without any.

        Args:
            repertoire: The archive.
            emitter_state: State with the parents.
            key: For the coefficients and the random directions.
            jacobian: Float[E, 1 + M, D] at the parents, unless there is a `jacobian_function`. A
                row that is not finite counts as zero, so that branches stay in the others' span.

        Returns:
            Float[E * B, D] candidates, the branches of emitter e at e * B onwards (after the E
            parents if there is a `jacobian_function`), and their coefficients Float[E * B, 1 + M]
            under "coefficients".

        Raises:
            ValueError: If there is no Jacobian, or one of another shape.
        """
        theta = emitter_state.theta
        draw, lost = jax.random.split(key)
        coefficients = cma_es.sample(self.config, emitter_state.strategy, draw)
        rows = self.rows(theta, qdax_driver.jacobian_at(theta, jacobian, self.jacobian_function))
        branches = self.branch(theta, gradients.directions(rows, lost), coefficients)
        genotypes = branches.reshape(-1, branches.shape[-1])
        if self.jacobian_function is not None:
            genotypes = jnp.concatenate([theta, genotypes])
        flat = coefficients.reshape(-1, coefficients.shape[-1])
        return genotypes, {"coefficients": flat, **qdax_driver.snapshot(repertoire)}

    def rows(self, theta: jax.Array, jacobian: jax.Array) -> jax.Array:
        """Normalised gradients Float[E, 1 + M, D] at theta Float[E, D] from the Jacobian there."""
        return gradients.gradient_rows(
            jacobian, theta, self.num_measures, self.normalization, self.epsilon
        )

    def branch(self, theta: jax.Array, rows: jax.Array, coefficients: jax.Array) -> jax.Array:
        """Candidates Float[E, B, D] at theta Float[E, D] along rows Float[E, 1 + M, D].

        Args:
            theta: The parents.
            rows: Their normalised gradients.
            coefficients: Float[E, B, 1 + M].
        """
        if self.objective_coefficient == "nonnegative":
            coefficients = gradients.fold_objective(coefficients)
        return gradients.branch(theta, rows, coefficients, self.bounds)

    def state_update(
        self,
        emitter_state: GradientArborescenceState,
        repertoire: Any,
        genotypes: jax.Array,
        fitnesses: jax.Array,
        descriptors: jax.Array,
        extra_scores: Mapping[str, jax.Array],
    ) -> GradientArborescenceState:
        """Step the parents, adapt the coefficients, restart what is stuck.

        Args:
            emitter_state: State that emitted the candidates.
            repertoire: After their insertion.
            genotypes: Float[E * B, D] as emitted.
            fitnesses: Float[E * B].
            descriptors: Float[E * B, M].
            extra_scores: "status" and "value" of AddInfo and what `emit` returned beside the
                genotypes; "key" for restarts.

        Raises:
            ValueError: If `extra_scores` do not belong to the branches.
        """
        E, B = self.num_emitters, self.branches
        verdict = qdax_driver.verdict(repertoire, fitnesses, descriptors, extra_scores)
        if self.jacobian_function is not None:
            genotypes = genotypes[E:]
            verdict = ranking.Verdict(*(field[E:] for field in verdict))
        verdict = ranking.per_emitter(verdict, E)
        order, flat = ranking.rank(self.ranking, verdict)
        order, num_parents = ranking.select_parents(self.parent_rule, order, verdict.status)

        coefficients = extra_scores["coefficients"]
        if coefficients.shape[0] != E * B:
            raise ValueError(
                f"{coefficients.shape[0]} rows of coefficients for {E * B} branches: pass what "
                "emit returned (QDax's MultiEmitter cuts it)."
            )
        coefficients = coefficients.reshape(E, B, -1)
        strategy, rates = cma_es.update(
            self.config, emitter_state.strategy, ranking.take(coefficients, order), num_parents
        )
        best = ranking.take(genotypes.reshape(E, B, -1), order)
        direction = cma_es.recombine(rates.weights, best) - emitter_state.theta
        theta, optimizer = self.optimizer.step(
            emitter_state.optimizer, emitter_state.theta, direction, jnp.asarray(num_parents > 0)
        )
        theta = space.clip(theta, self.bounds)
        age = emitter_state.age + 1
        stop = flat | cma_es.should_stop(self.config, strategy) | ~jnp.isfinite(theta).all(-1)
        stop |= restarts.rule_applies(self.restart, verdict.status, age)
        key, carried = qdax_driver.step_key(emitter_state.key, extra_scores)
        adapted: GradientArborescenceState = emitter_state.replace(
            theta=theta,
            optimizer=optimizer,
            strategy=strategy,
            age=age,
            key=carried,
        )
        continued = self._restart(adapted, repertoire, stop, key)
        strategy = cma_es.refresh(self.config, continued.strategy)
        refreshed: GradientArborescenceState = continued.replace(strategy=strategy)
        return refreshed

    def _restart(
        self,
        state: GradientArborescenceState,
        repertoire: Any,
        where: jax.Array,
        key: jax.Array,
    ) -> GradientArborescenceState:
        elites = space.clip(restarts.random_elites(repertoire, key, state.theta), self.bounds)
        centre = jnp.zeros_like(state.strategy.mean)
        restarted: GradientArborescenceState = state.replace(
            theta=jnp.where(where[:, None], elites, state.theta),
            optimizer=self.optimizer.reset(state.optimizer, where),
            strategy=cma_es.reset(self.config, state.strategy, where, centre),
            age=jnp.where(where, 0, state.age),
        )
        return restarted
