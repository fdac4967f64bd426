"""The search loop: emit, evaluate, insert, adapt, compiled into one program.

QDax's `MAPElites`, extended by the half-step of differentiable quality diversity (Fontaine &
Nikolaidis 2021, arXiv:2106.03894, Algorithm 1: evaluate the parents with their Jacobians and offer
them to the archive, then branch) and by `AddInfo` for the emitters. A problem's weights are
arguments and the state is donated, so that both exist once in memory. Every random number of a step
follows from the state's key and the number of the step, so that a resumed search equals one never
stopped.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any, Self

import jax
import jax.numpy as jnp
from qdax.core.emitters.emitter import Emitter
from qdax.core.emitters.multi_emitter import MultiEmitter
from qdax.core.map_elites import MAPElites

from qdgs_jax.archive import AddInfo, Archive
from qdgs_jax.compiler_options import LongProgram
from qdgs_jax.one_program import one_program
from qdgs_jax.problem import Evaluation, FunctionProblem, Params, Problem, prepared_weights
from qdgs_jax.search_checks import (
    archive_maker,
    check_archive,
    check_emitter,
    check_state,
    raw_key,
    start_latents,
    weights_of,
    whole,
)
from qdgs_jax.search_doubts import warn_of
from qdgs_jax.search_state import (
    Metrics,
    SearchState,
    as_scores,
    counted,
    state_metrics,
    strong,
    turn_keys,
)


class Search(MAPElites):
    """A quality-diversity search of a problem with an emitter.

    `init` evaluates start latents, `run` does many steps, `update` is the pure step for one's own
    loops, `jit`, `vmap` over seeds and `scan`.
    """

    def __init__(
        self,
        problem: Problem,
        emitter: Emitter,
        *,
        create_archive: Callable[[jax.Array], Archive] | None = None,
        candidate_gradients: bool = False,
        chunk: int = 25,
        **grid: Any,
    ) -> None:
        """Set a search up; nothing is compiled or allocated yet.

        Args:
            problem: what to search.
            emitter: any QDax emitter. One with `parents`, unless it has a `jacobian_function`, is
                handed their Jacobian Float[E, 1 + M, D] as `jacobian` of `emit`; one that
                `takes_params` is handed the problem's weights as `params` of `emit`.
            create_archive: one example latent Float[D] -> an empty archive. None stands for a
                `GridArchive` with the settings in `grid`.
            candidate_gradients: evaluate all candidates with Jacobians, for QDax's emitters that
                want "gradients" Float[B, D, 1 + M] in their extra scores.
            chunk: steps that `run` does in one call of the device, at least 1.
            grid: settings of `GridArchive.create`: dims, ranges, learning_rate, threshold_min, ...

        Raises:
            ValueError: If the settings do not fit together.
        """
        if not hasattr(problem, "latent_dim"):
            raise ValueError(f"{problem!r} is no Problem: use Search.from_function for a function.")
        check_emitter(emitter, problem)
        self.problem = problem
        self.emitter = emitter
        self.chunk = whole("chunk", chunk, 1)
        self.create_archive = create_archive = archive_maker(create_archive, grid)
        self._candidate_gradients = candidate_gradients
        self._own_emitter = any(c.__module__.startswith("qdgs_jax.") for c in type(emitter).mro())
        # Emitters that differentiate by themselves take part as plain ones.
        differentiates = getattr(emitter, "jacobian_function", None) is not None
        self._takes_params = bool(getattr(emitter, "takes_params", False))
        self._branches = hasattr(emitter, "parents") and not differentiates
        check_archive(create_archive, problem)
        super().__init__(None, emitter, lambda repertoire: repertoire.stats, self._first_archive)
        self._weights = functools.partial(weights_of, problem, emitter_takes=self._takes_params)
        self._init = jax.jit(self._start)
        self._one_step = LongProgram(self._step, donate_argnums=1)
        self._pure_step = one_program()(self._step)
        self._many_steps = LongProgram(self._steps, donate_argnums=1)
        self._measure = jax.jit(state_metrics)

    @classmethod
    def from_function(
        cls,
        function: Callable[..., tuple[jax.Array, jax.Array]],
        latent_dim: int,
        emitter: Emitter,
        *,
        has_params: bool = False,
        jacobian: Callable[..., tuple[jax.Array, jax.Array, jax.Array]] | None = None,
        create_archive: Callable[[jax.Array], Archive] | None = None,
        candidate_gradients: bool = False,
        chunk: int = 25,
        **grid: Any,
    ) -> Self:
        """Search any function from latents to objective and measures.

        Args:
            function: latents Float[B, D] -> (objectives Float[B], measures Float[B, M]); with
                `has_params`, (params, latents) -> the same.
            latent_dim: D.
            emitter: any QDax emitter, ours included.
            has_params: whether `function` takes weights, the `params` of `init` and `run`.
            jacobian: see `FunctionProblem`; derived if None.
            create_archive: see `Search`.
            candidate_gradients: see `Search`.
            chunk: see `Search`.
            grid: without `create_archive` at least `dims`, cells per measure, and `ranges`,
                (low, high) per measure; further ones of `GridArchive.create`.
        """
        create_archive = archive_maker(create_archive, grid)
        archive = jax.eval_shape(create_archive, jnp.zeros(whole("latent_dim", latent_dim, 1)))
        num_measures = archive.centroids.shape[1]
        problem = FunctionProblem(function, latent_dim, num_measures, has_params, jacobian)
        return cls(
            problem,
            emitter,
            create_archive=create_archive,
            candidate_gradients=candidate_gradients,
            chunk=chunk,
        )

    # The loop

    def init(
        self, genotypes: jax.Array, key: jax.Array, *, params: Params | None = None
    ) -> SearchState:
        """Evaluate start latents, insert them and start the emitter from them.

        A `SearchWarning` tells of latents that are rejected and measures out of their range.

        Args:
            genotypes: Float[n, D], n >= 1.
            key: a JAX key, of the new or the old kind, of the default implementation.
            params: weights of the problem. None stands for its attribute `params` (domains have
                one), or for none; inside your own `jit`, hand them over as its arguments.

        Raises:
            ValueError: If one of them is not what the problem takes.
        """
        genotypes = start_latents(genotypes, self.problem.latent_dim)
        state: SearchState = self._init(self._weights(params), genotypes, raw_key(key))
        warn_of(state)
        return state

    def update(
        self, state: SearchState, *, params: Params | None = None
    ) -> tuple[SearchState, Metrics]:
        """Do one step, as a pure function; the state that was given stays as it was.

        Returns:
            The new state and its metrics, scalars: step, evaluations, coverage, qd_score,
            norm_qd_score, best, mean, num_elites, rejected. Those of the archive cost O(cells),
            unless nobody reads them.
        """
        check_state(state)
        state = self._pure_step(self._weights(params), state)
        return state, self.metrics(state)

    def run(
        self, state: SearchState, num_steps: int, *, params: Params | None = None
    ) -> tuple[SearchState, Metrics]:
        """Do many steps.

        Two programs serve every number of steps: one does `chunk` of them, one a single step. Calls
        that divide a search into the same chunks and steps give the same state to the bit; between
        the two a compiler may round differently.

        Args:
            state: donated: its buffers are gone afterwards.
            num_steps: at least 0.
            params: see `init`.

        Returns:
            The new state, and the metrics after the last step.

        Raises:
            ValueError: If `num_steps` is no whole number >= 0, or the state went to `run` before.
        """
        count = whole("num_steps", num_steps, 0)
        check_state(state)
        params = self._weights(params)
        for _ in range(count // self.chunk):
            state = self._many_steps(params, state)
        for _ in range(count % self.chunk):
            state = self._one_step(params, state)
        return state, self.metrics(state)

    def lower(self, state: SearchState, *, params: Params | None = None) -> jax.stages.Lowered:
        """Lower what `run` executes `chunk` steps with; `compile_long` compiles it as that does."""
        return self._many_steps.lower(self._weights(params), state)

    def scan_update(
        self, carry: tuple[Params, SearchState], _: Any
    ) -> tuple[tuple[Params, SearchState], Metrics]:
        """`update` in the form of `jax.lax.scan`, with metrics of every step."""
        params, state = carry
        state, metrics = self.update(state, params=params)
        return (params, state), metrics

    def metrics(self, state: SearchState) -> Metrics:
        """Scalars that describe a state; see `update`."""
        check_state(state)
        metrics: Metrics = self._measure(state)
        return metrics

    def tell(
        self,
        genotypes: jax.Array,
        fitnesses: jax.Array,
        descriptors: jax.Array,
        repertoire: Archive,
        emitter_state: Any,
        extra_scores: Mapping[str, Any] | None = None,
        extra_info: Mapping[str, Any] | None = None,
    ) -> tuple[Archive, Any, Metrics]:
        """QDax's `tell`; the emitter finds "status", "value" and "cell" in its extra scores."""
        scores = {**(extra_scores or {}), **(extra_info or {})}
        repertoire, info = repertoire.add_with_info(genotypes, descriptors, fitnesses, extra_scores)
        evaluation = Evaluation(fitnesses, descriptors, scores)
        emitter_state = self._adapt(repertoire, emitter_state, genotypes, evaluation, info)
        return repertoire, emitter_state, self._metrics_function(repertoire)

    # Pieces of a step

    def _start(self, params: Params, genotypes: jax.Array, key: jax.Array) -> SearchState:
        evaluate, observe, emitter_key = turn_keys(key, 0, 3)
        archive = self.create_archive(genotypes[0])
        state = SearchState(
            archive=archive,
            emitter=None,
            problem=self.problem.init_state(),
            key=key,
            step=jnp.int32(0),
            evaluations=jnp.int32(0),
            rejected=jnp.int32(0),
        )
        state, evaluation = self._evaluate(
            params, state, genotypes, evaluate, observe, self._candidate_gradients
        )
        archive, info = archive.insert(
            genotypes, evaluation.descriptors, evaluation.fitnesses, evaluation.extra
        )
        emitter = self._emitter.init(
            key=self._key_for_emitter(emitter_key),
            repertoire=self._readable(archive),
            genotypes=genotypes,
            fitnesses=evaluation.fitnesses,
            descriptors=evaluation.descriptors,
            extra_scores={**evaluation.extra, **as_scores(info)},
        )
        return state.replace(archive=archive, emitter=jax.tree.map(strong, emitter))

    def _steps(self, params: Params, state: SearchState) -> SearchState:
        """`chunk` steps; their number is part of the program."""
        prepared = prepared_weights(self.problem, params)
        step = functools.partial(self._step, params, prepared=prepared)
        done: SearchState = jax.lax.fori_loop(0, self.chunk, lambda _, s: step(s), state)
        return done

    def _step(self, weights: Params, state: SearchState, prepared: Params = None) -> SearchState:
        """A step. Emitters are given weights, the problem what was prepared of them, if any."""
        params = weights if prepared is None else prepared
        keys = turn_keys(state.key, state.step + 1, 6)
        parents_key, observe_parents, emit_key, evaluate, observe, adapt = keys
        given: dict[str, Any] = {"params": weights} if self._takes_params else {}
        if self._branches:
            state, given["jacobian"] = self._half_step(params, state, parents_key, observe_parents)
        readable, key = self._readable(state.archive), self._key_for_emitter(emit_key)
        with jax.named_scope("emitter"):
            genotypes, extra_info = self._emitter.emit(readable, state.emitter, key, **given)
        state, evaluation = self._evaluate(
            params, state, genotypes, evaluate, observe, self._candidate_gradients
        )
        archive, info = state.archive.insert(
            genotypes, evaluation.descriptors, evaluation.fitnesses, evaluation.extra
        )
        # QDax's MultiEmitter slices all extra scores by candidates, which would break a key.
        several = isinstance(self._emitter, MultiEmitter)
        for_emitter = {} if several else {"key": self._key_for_emitter(adapt)}
        evaluation = evaluation._replace(extra={**evaluation.extra, **extra_info, **for_emitter})
        emitter = self._adapt(archive, state.emitter, genotypes, evaluation, info)
        return state.replace(archive=archive, emitter=emitter, step=state.step + 1)

    def _half_step(
        self, params: Params, state: SearchState, evaluate: jax.Array, observe: jax.Array
    ) -> tuple[SearchState, jax.Array]:
        """Evaluate the emitter's parents and offer them to the archive; their Jacobian, too."""
        parents = self._emitter.parents(state.emitter)
        state, evaluation = self._evaluate(params, state, parents, evaluate, observe, True)
        extra = dict(evaluation.extra)
        gradients = extra.pop("gradients")
        told = evaluation.descriptors, evaluation.fitnesses, extra
        archive, _ = state.archive.insert(parents, *told)
        return state.replace(archive=archive), jnp.swapaxes(gradients, 1, 2)

    def _evaluate(
        self,
        params: Params,
        state: SearchState,
        genotypes: jax.Array,
        evaluate: jax.Array,
        observe: jax.Array,
        with_jacobian: bool,
    ) -> tuple[SearchState, Evaluation]:
        """Evaluate latents; a candidate with anything that is not finite gets the fitness -inf.

        With a Jacobian the extra scores hold "gradients" Float[B, D, 1 + M].
        """
        finite = state.archive.storable(genotypes)
        gradients = {}
        if with_jacobian:
            evaluation, jacobian = self.problem.evaluate_with_jacobian(
                params, state.problem, genotypes, evaluate
            )
            finite &= jnp.all(jnp.isfinite(jacobian), axis=(1, 2))
            gradients = {"gradients": jnp.swapaxes(jacobian, 1, 2)}
        else:
            evaluation = self.problem.evaluate(params, state.problem, genotypes, evaluate)
        fitnesses = evaluation.fitnesses.reshape(-1).astype(jnp.float32)
        descriptors = evaluation.descriptors.astype(jnp.float32)
        finite &= jnp.isfinite(fitnesses) & jnp.all(jnp.isfinite(descriptors), axis=-1)
        state = state.replace(
            problem=self.problem.observe(state.problem, evaluation, observe),
            evaluations=counted(state.evaluations, jnp.int32(genotypes.shape[0])),
            rejected=counted(state.rejected, jnp.sum(~finite, dtype=jnp.int32)),
        )
        return state, Evaluation(
            fitnesses=jnp.where(finite, fitnesses, -jnp.inf),
            descriptors=descriptors,
            extra={**evaluation.extra, **gradients},
        )

    @jax.named_scope("emitter")
    def _adapt(
        self,
        archive: Archive,
        emitter_state: Any,
        genotypes: jax.Array,
        evaluation: Evaluation,
        info: AddInfo,
    ) -> Any:
        """The emitter's state once it has seen what the archive said of its candidates."""
        return self._emitter.state_update(
            emitter_state=emitter_state,
            repertoire=self._readable(archive),
            genotypes=genotypes,
            fitnesses=evaluation.fitnesses,
            descriptors=evaluation.descriptors,
            extra_scores={**evaluation.extra, **as_scores(info)},
        )

    def _key_for_emitter(self, key: jax.Array) -> jax.Array:
        """A typed key for our emitters; its data for others, who may keep it in their state."""
        return key if self._own_emitter else jax.random.key_data(key)

    def _readable(self, archive: Archive) -> Archive:
        """The archive as the emitter reads it: other people's take `genotypes` for numbers.

        Bits that stand for numbers are decoded for them, which can cost a copy in float32.
        """
        stored_as_bits = jnp.dtype(archive.dtype).itemsize < jnp.dtype(jnp.float32).itemsize
        if self._own_emitter or not stored_as_bits:
            return archive
        readable: Archive = archive.replace(genotypes=archive.latents, dtype="float32")
        return readable

    def _first_archive(
        self,
        genotypes: jax.Array,
        fitnesses: jax.Array,
        descriptors: jax.Array,
        centroids: jax.Array | None,
        extra_scores: Mapping[str, Any] | None = None,
    ) -> Archive:
        """Build the archive for QDax's `init_ask_tell`; its cells follow from our settings."""
        return self.create_archive(genotypes[0]).add(genotypes, descriptors, fitnesses)
