"""EvoJAX's solvers as emitters: what optimising the objective alone gives, without diversity.

An EvoJAX solver keeps its state in attributes that `ask` and `tell` replace. Here the attributes
that change are found by a trial and become the emitter's state, so that a solver runs inside one
compiled search like any other emitter. Its candidates fill the archive, which does not guide it:
the comparison with quality-diversity algorithms is fair in evaluations and in what is kept.
"""

from __future__ import annotations

import copy
import dataclasses
import functools
import inspect
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from qdax.core.emitters.emitter import Emitter, EmitterState

from qdgs_jax.algorithms import SOLVERS
from qdgs_jax.emitters import checks, qdax_driver, space

_SIGMAS = ("init_stdev", "sigma")  # what solvers call the standard deviation of their samples


class EvoJaxState(EmitterState):
    """A solver between `ask` and `tell`.

    Attributes:
        solver: The attributes that change, by name.
        start: Float[D], the solver's origin.
        candidates: Float[B, D], asked for and not yet evaluated.
    """

    solver: dict[str, Any]
    start: jax.Array
    candidates: jax.Array


@dataclasses.dataclass(frozen=True)
class EvoJaxEmitter(Emitter):
    """Run one of EvoJAX's solvers, started at the best of the start latents.

    Solvers begin at zero and do not care where that lies, so they are told latents minus the start.

    Attributes:
        solver: One of `algorithms.SOLVERS`.
        batch: Population of the solver, even for those that mirror their samples.
        latent_dim: Length D of a latent.
        sigma: Initial standard deviation of the samples.
    """

    solver: str
    batch: int
    latent_dim: int
    sigma: float = 0.5

    def __post_init__(self) -> None:
        checks.check_positive(batch=self.batch, latent_dim=self.latent_dim, sigma=self.sigma)
        if self.solver not in SOLVERS:
            raise ValueError(f"unknown EvoJAX solver {self.solver!r}: known are {SOLVERS}.")

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
    ) -> EvoJaxState:
        """Start the solver with a key of its own at the fittest of the latents Float[n, D]."""
        solver, names = _template(self)
        seed = qdax_driver.raw_key(key)
        state = {name: getattr(solver, name) for name in names}
        starts = space.start_points(genotypes, len(genotypes))
        fitnesses = fitnesses.reshape(-1)
        best = jnp.argmax(jnp.where(jnp.isfinite(fitnesses), fitnesses, -jnp.inf))
        state = jax.tree.map(lambda leaf: seed if _is_key(leaf) else leaf, state)
        return self._ask(state, starts[best])

    def emit(
        self, repertoire: Any, emitter_state: EvoJaxState, key: jax.Array
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        """The candidates that the solver asked for, Float[B, D]."""
        return emitter_state.candidates, {}

    def state_update(
        self,
        emitter_state: EvoJaxState,
        repertoire: Any,
        genotypes: jax.Array,
        fitnesses: jax.Array,
        descriptors: jax.Array,
        extra_scores: Mapping[str, jax.Array],
    ) -> EvoJaxState:
        """Tell the solver the fitnesses and ask for the next candidates.

        Fitnesses that are not finite count as the batch's worst.
        """
        fitnesses = fitnesses.reshape(-1)
        finite = jnp.isfinite(fitnesses)
        worst = jnp.where(finite, fitnesses, jnp.inf).min()
        worst = jnp.where(jnp.isfinite(worst), worst, 0.0)
        solver = self._with(emitter_state.solver)
        solver.tell(jnp.where(finite, fitnesses, worst))
        told = {name: getattr(solver, name) for name in emitter_state.solver}
        return self._ask(told, emitter_state.start)

    def _with(self, state: Mapping[str, Any]) -> Any:
        solver = copy.copy(_template(self)[0])
        for name, value in state.items():
            setattr(solver, name, value)
        return solver

    def _ask(self, state: Mapping[str, Any], start: jax.Array) -> EvoJaxState:
        solver = self._with(state)
        candidates = start + jnp.asarray(solver.ask())
        asked = {name: getattr(solver, name) for name in state}
        return EvoJaxState(
            solver=jax.tree.map(jnp.asarray, asked), start=start, candidates=candidates
        )


def _is_key(leaf: Any) -> bool:
    return getattr(leaf, "dtype", None) == jnp.uint32 and leaf.shape == (2,)


@functools.lru_cache(maxsize=16)
def _template(emitter: EvoJaxEmitter) -> tuple[Any, tuple[str, ...]]:
    """A fresh solver, and the names of the attributes that `ask` and `tell` replace."""
    from evojax import algo

    make = getattr(algo, emitter.solver)
    accepted = inspect.signature(make.__init__).parameters
    sigma = {name: emitter.sigma for name in _SIGMAS if name in accepted}
    with jax.ensure_compile_time_eval():
        solver = make(param_size=emitter.latent_dim, pop_size=emitter.batch, **sigma)
    return solver, _settle(solver, emitter)


def _settle(solver: Any, emitter: EvoJaxEmitter) -> tuple[str, ...]:
    """Names of what changes, by a trial that computes nothing; what only `tell` sets is zero."""
    names: list[str] = []

    def trial() -> dict[str, Any]:
        tried = copy.copy(solver)
        shape = tried.ask().shape
        if shape != (emitter.batch, emitter.latent_dim):
            raise ValueError(
                f"EvoJAX's {emitter.solver} asks for {shape[0]} candidates instead of "
                f"{emitter.batch}: choose emitters and branches for a suitable number per step."
            )
        asked = dict(vars(tried))
        tried.tell(jnp.arange(emitter.batch, dtype=jnp.float32))
        tried.ask()
        before, after = vars(solver), vars(tried)
        names.extend(name for name in after if after[name] is not before[name])
        return {name: after[name] for name in names if asked[name] is None}

    told = jax.eval_shape(trial)
    with jax.ensure_compile_time_eval():
        for name, value in told.items():
            setattr(solver, name, jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), value))
    return tuple(names)
