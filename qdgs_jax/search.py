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
from flax.struct import PyTreeNode
from qdax.core.emitters.emitter import Emitter
from qdax.core.emitters.multi_emitter import MultiEmitter
from qdax.core.map_elites import MAPElites

from qdgs_jax.archive import Archive, GridArchive
from qdgs_jax.archive.insertion import AddInfo
from qdgs_jax.problem import Evaluation, FunctionProblem, Params, Problem, ProblemState

Metrics = dict[str, jax.Array]

_LARGEST = 2**31 - 1  # of Int[]


class SearchState(PyTreeNode):  # type: ignore[no-untyped-call]
    """Everything that changes during a search, as one pytree.

    Attributes:
        archive: elites and thresholds.
        emitter: the emitter's state, or None.
        problem: the problem's state.
        key: UInt32[2], the root of all random numbers; it never changes.
        step: Int[], steps done.
        evaluations: Int[], latents evaluated, parents and start latents included; stays at the
            largest integer once it is there.
        rejected: Int[], of these, how many were rejected for something that is not finite.
    """

    archive: Archive
    emitter: Any
    problem: ProblemState
    key: jax.Array
    step: jax.Array
    evaluations: jax.Array
    rejected: jax.Array


class Search(MAPElites):
    """A quality-diversity search of a problem with an emitter.

    `init` evaluates start latents, `run` does many steps in one compiled call, `update` is the pure
    step for one's own loops, `jit`, `vmap` over seeds and `scan`.
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
            emitter: any QDax emitter. Those with `parents` and `accept` get the half-step with
                Jacobians.
            create_archive: one example latent Float[D] -> an empty archive. None stands for a
                `GridArchive` with the settings in `grid`.
            candidate_gradients: evaluate all candidates with Jacobians, for QDax's emitters that
                want "gradients" Float[B, D, 1 + M] in their extra scores.
            grid: settings of `GridArchive.create`: dims, ranges, learning_rate, threshold_min, ...

        Raises:
            ValueError: If the settings do not fit together.
        """
        if not hasattr(problem, "latent_dim"):
            raise ValueError(f"{problem!r} is no Problem: use Search.from_function for a function.")
        self.problem = problem
        self.emitter = emitter
        self._create_archive = create_archive = _archive_maker(create_archive, grid)
        self._candidate_gradients = candidate_gradients
        self._own_emitter = any(c.__module__.startswith("qdgs_jax.") for c in type(emitter).mro())
        # Emitters that differentiate by themselves take part as plain ones.
        differentiates = getattr(emitter, "jacobian_function", None) is not None
        self._branches = hasattr(emitter, "parents") and not differentiates
        archive = jax.eval_shape(create_archive, jnp.zeros(problem.latent_dim))
        if archive.centroids.shape[1] != problem.num_measures:
            raise ValueError(
                f"the archive has {archive.centroids.shape[1]} measures but the problem has "
                f"{problem.num_measures}: give one entry of dims and ranges per measure."
            )
        super().__init__(None, emitter, archive_metrics, self._first_archive)
        self._init = jax.jit(self._start)
        self._run = jax.jit(self._steps, donate_argnums=1)

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
        **grid: Any,
    ) -> Self:
        """Search any function from latents to objective and measures.

        Args:
            function: latents Float[B, D] -> (objectives Float[B], measures Float[B, M]); with
                `has_params`, (params, latents) -> the same.
            latent_dim: D.
            emitter: any QDax emitter, ours included.
            has_params: whether `function` takes weights, which then are the `params` of `init` and
                `run`; else these are ().
            jacobian: see `FunctionProblem`; derived if None.
            create_archive: see `Search`.
            candidate_gradients: see `Search`.
            grid: without `create_archive` at least `dims`, cells per measure, and `ranges`,
                (low, high) per measure; further ones of `GridArchive.create`.
        """
        create_archive = _archive_maker(create_archive, grid)
        archive = jax.eval_shape(create_archive, jnp.zeros(max(1, latent_dim)))
        num_measures = archive.centroids.shape[1]
        problem = FunctionProblem(function, latent_dim, num_measures, has_params, jacobian)
        return cls(
            problem,
            emitter,
            create_archive=create_archive,
            candidate_gradients=candidate_gradients,
        )

    # The loop

    def init(self, params: Params, genotypes: jax.Array, key: jax.Array) -> SearchState:
        """Evaluate start latents, insert them and start the emitter from them.

        Args:
            params: weights of the problem.
            genotypes: Float[n, D], n >= 1.
            key: a JAX key, of the new or the old kind, of the default implementation.
        """
        genotypes = jnp.asarray(genotypes)
        genotypes = genotypes.astype(jnp.promote_types(genotypes.dtype, jnp.float32))
        if genotypes.shape[1:] != (self.problem.latent_dim,) or not len(genotypes):
            raise ValueError(
                f"genotypes has shape {genotypes.shape}: give start latents "
                f"[n, {self.problem.latent_dim}], n >= 1."
            )
        state: SearchState = self._init(params, genotypes, _raw_key(key))
        return state

    def update(self, params: Params, state: SearchState) -> tuple[SearchState, Metrics]:
        """Do one step, as a pure function.

        Returns:
            The new state and its metrics, scalars: step, evaluations, coverage, qd_score,
            norm_qd_score, best, mean, num_elites, rejected. Those of the archive cost O(cells),
            unless nobody reads them.
        """
        state = self._step(params, state)
        return state, self.metrics(state)

    def run(
        self, params: Params, state: SearchState, num_steps: int
    ) -> tuple[SearchState, Metrics]:
        """Do many steps in one compiled call, which serves every number of steps.

        Args:
            params: weights of the problem.
            state: donated: its buffers are gone afterwards.
            num_steps: at least 0.

        Returns:
            The new state, and the metrics after the last step.
        """
        if isinstance(num_steps, int) and num_steps < 0:
            raise ValueError(f"num_steps is {num_steps}: give at least 0.")
        result: tuple[SearchState, Metrics] = self._run(params, state, num_steps)
        return result

    def lower(self, params: Params, state: SearchState) -> jax.stages.Lowered:
        """Lower what `run` executes, to compile it apart or to analyse its memory and cost."""
        return self._run.lower(params, state, 1)

    def scan_update(
        self, carry: tuple[Params, SearchState], _: Any
    ) -> tuple[tuple[Params, SearchState], Metrics]:
        """`update` in the form of `jax.lax.scan`, with metrics of every step."""
        params, state = carry
        state, metrics = self.update(params, state)
        return (params, state), metrics

    def metrics(self, state: SearchState) -> Metrics:
        """Scalars that describe a state; see `update`."""
        return {
            "step": state.step,
            "evaluations": state.evaluations,
            **archive_metrics(state.archive),
            "rejected": state.rejected,
        }

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
        repertoire, info = repertoire.add_with_info(genotypes, descriptors, fitnesses, extra_scores)
        emitter_state = self._emitter.state_update(
            emitter_state=emitter_state,
            repertoire=self._readable(repertoire),
            genotypes=genotypes,
            fitnesses=fitnesses,
            descriptors=descriptors,
            extra_scores={**(extra_scores or {}), **(extra_info or {}), **_as_scores(info)},
        )
        return repertoire, emitter_state, self._metrics_function(repertoire)

    # Pieces of a step

    def _start(self, params: Params, genotypes: jax.Array, key: jax.Array) -> SearchState:
        evaluate, observe, emitter_key = _keys(key, 0, 3)
        archive = self._create_archive(genotypes[0])
        state = SearchState(
            archive=archive,
            emitter=None,
            problem=self.problem.init_state(),
            key=key,
            step=jnp.int32(0),
            evaluations=jnp.int32(0),
            rejected=jnp.int32(0),
        )
        state, evaluation, gradients = self._evaluate(params, state, genotypes, evaluate, observe)
        scores = {**evaluation.extra, **gradients}
        archive, info = archive.add_with_info(
            genotypes, evaluation.descriptors, evaluation.fitnesses, scores
        )
        emitter = self._emitter.init(
            key=emitter_key,
            repertoire=self._readable(archive),
            genotypes=genotypes,
            fitnesses=evaluation.fitnesses,
            descriptors=evaluation.descriptors,
            extra_scores={**scores, **_as_scores(info)},
        )
        return state.replace(archive=archive, emitter=jax.tree.map(_strong, emitter))

    def _step(self, params: Params, state: SearchState) -> SearchState:
        parents, observe_parents, emit, evaluate, observe, adapt = _keys(
            state.key, state.step + 1, 6
        )
        if self._branches:
            state = self._half_step(params, state, parents, observe_parents)
        genotypes, extra_info = self.ask(self._readable(state.archive), state.emitter, emit)
        state, evaluation, gradients = self._evaluate(params, state, genotypes, evaluate, observe)
        # QDax's MultiEmitter slices all extra scores by candidates, which would break a key.
        key = {} if isinstance(self._emitter, MultiEmitter) else {"key": adapt}
        archive, emitter, _ = self.tell(
            genotypes,
            evaluation.fitnesses,
            evaluation.descriptors,
            state.archive,
            state.emitter,
            {**evaluation.extra, **gradients},
            {**extra_info, **key},
        )
        return state.replace(archive=archive, emitter=emitter, step=state.step + 1)

    def _half_step(
        self, params: Params, state: SearchState, evaluate: jax.Array, observe: jax.Array
    ) -> SearchState:
        """Evaluate the emitter's parents with Jacobians and offer them to the archive."""
        parents = self._emitter.parents(state.emitter)
        state, evaluation, gradients = self._evaluate(
            params, state, parents, evaluate, observe, with_jacobian=True
        )
        archive, _ = state.archive.add_with_info(
            parents, evaluation.descriptors, evaluation.fitnesses, evaluation.extra
        )
        jacobian = jnp.swapaxes(gradients["gradients"], 1, 2)
        return state.replace(archive=archive, emitter=self._emitter.accept(state.emitter, jacobian))

    def _evaluate(
        self,
        params: Params,
        state: SearchState,
        genotypes: jax.Array,
        evaluate: jax.Array,
        observe: jax.Array,
        with_jacobian: bool | None = None,
    ) -> tuple[SearchState, Evaluation, dict[str, jax.Array]]:
        """Evaluate latents; a candidate with anything that is not finite gets the fitness -inf."""
        finite = jnp.all(jnp.isfinite(genotypes), axis=-1)
        if self._candidate_gradients if with_jacobian is None else with_jacobian:
            evaluation, jacobian = self.problem.evaluate_with_jacobian(
                params, state.problem, genotypes, evaluate
            )
            finite &= jnp.all(jnp.isfinite(jacobian), axis=(1, 2))
            gradients = {"gradients": jnp.swapaxes(jacobian, 1, 2)}
        else:
            evaluation = self.problem.evaluate(params, state.problem, genotypes, evaluate)
            gradients = {}
        problem = self.problem.observe(state.problem, evaluation, observe)
        fitnesses = evaluation.fitnesses.reshape(-1)
        finite &= jnp.isfinite(fitnesses) & jnp.all(jnp.isfinite(evaluation.descriptors), axis=-1)
        state = state.replace(
            problem=problem,
            evaluations=_count(state.evaluations, jnp.int32(genotypes.shape[0])),
            rejected=_count(state.rejected, jnp.sum(~finite, dtype=jnp.int32)),
        )
        evaluation = evaluation._replace(fitnesses=jnp.where(finite, fitnesses, -jnp.inf))
        return state, evaluation, gradients

    def _steps(
        self, params: Params, state: SearchState, num_steps: jax.Array
    ) -> tuple[SearchState, Metrics]:
        state = jax.lax.fori_loop(0, num_steps, lambda _, s: self._step(params, s), state)
        return state, self.metrics(state)

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
        return self._create_archive(genotypes[0]).add(genotypes, descriptors, fitnesses)


def _archive_maker(
    create_archive: Callable[[jax.Array], Archive] | None, grid: Mapping[str, Any]
) -> Callable[[jax.Array], Archive]:
    """What makes the archive: `create_archive`, or a `GridArchive` with the settings in `grid`."""
    if create_archive is not None:
        if grid:
            raise ValueError(
                f"both create_archive and {sorted(grid)} are given: settings of the archive belong "
                "into create_archive."
            )
        return create_archive
    missing = {"dims", "ranges"} - grid.keys()
    if missing:
        raise ValueError(
            f"no {' and '.join(sorted(missing))} for the archive: give dims and ranges, or "
            "create_archive."
        )
    return functools.partial(GridArchive.create, **grid)


def archive_metrics(archive: Archive) -> Metrics:
    """Scalars that describe an archive, in the paper's words."""
    return {
        "coverage": archive.coverage,
        "qd_score": archive.qd_score,
        "norm_qd_score": archive.norm_qd_score,
        "best": archive.best,
        "mean": archive.mean,
        "num_elites": archive.num_elites,
    }


def _keys(root: jax.Array, turn: jax.Array | int, count: int) -> jax.Array:
    """Keys of the start (turn 0) or of a step (turn step + 1)."""
    return jax.random.split(jax.random.fold_in(root, turn), count)


def _count(so_far: jax.Array, more: jax.Array) -> jax.Array:
    """Sum of counts Int[], at most the largest integer."""
    return so_far + jnp.minimum(more, _LARGEST - so_far)


def _strong(x: Any) -> Any:
    """Make a weak type strong, as the first step would: `run` would be compiled again after it."""
    kind = jax.typeof(x)
    return jax.lax.convert_element_type(x, kind.dtype) if kind.weak_type else x


def _raw_key(key: Any) -> jax.Array:
    """Data of a key.

    Raises:
        ValueError: If it is no key, or one of another implementation than the default.
    """
    data = key
    if isinstance(key, jax.Array) and jnp.issubdtype(key.dtype, jax.dtypes.prng_key):
        data = jax.random.key_data(key)
    like = jax.eval_shape(lambda: jax.random.key_data(jax.random.key(0)))
    if (jnp.shape(data), jnp.result_type(data)) != (like.shape, like.dtype):
        raise ValueError(f"key is {key!r}: give jax.random.key(seed), of the default kind.")
    return jnp.asarray(data)


def _as_scores(info: AddInfo) -> dict[str, jax.Array]:
    return {"status": info.status, "value": info.value, "cell": info.cell}
