"""What a search will cost, told before it begins: arithmetic, memory, disk and time.

Arithmetic is counted by XLA in a step that is lowered and not run. Memory is what the compiler says
of the compiled step. Time is that of a few steps from samples of the generator with made-up scores,
which nothing is kept of.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from qdgs_jax.runs.config import RunConfig

if TYPE_CHECKING:
    import jax

    from qdgs_jax.runs.driver import SearchTask
    from qdgs_jax.search import SearchState

TRIAL_SECONDS = 2.0  # that steps are tried for, after one to warm up
CHECKPOINTS = 3  # on the disk at most: two, and the one that is being written


@dataclasses.dataclass(frozen=True)
class Plan:
    """What a search will cost.

    Attributes:
        algorithm: its name.
        steps: until the budget is spent.
        evaluations: of the whole budget.
        step_flop: floating-point operations of a step.
        flop: of the whole search, finding start latents included.
        memory: bytes on the device: weights, state and what a step needs in between; None where
            the compiler does not tell.
        archive: bytes of these that the archive takes.
        checkpoint: bytes of a checkpoint when as many cells are occupied as can be.
        elites: bytes of `archive.parquet` then.
        occupied: that number of cells.
        step_seconds: measured.
        tried: steps that were measured.
        device: what they ran on.
    """

    algorithm: str
    steps: int
    evaluations: int
    step_flop: float
    flop: float
    memory: int | None
    archive: int
    checkpoint: int
    elites: int
    occupied: int
    step_seconds: float
    tried: int
    device: str

    @property
    def seconds(self) -> float:
        """Time of the whole search, at the speed measured."""
        return self.step_seconds * self.flop / self.step_flop

    @property
    def disk(self) -> int:
        """Bytes on the disk at most."""
        return CHECKPOINTS * self.checkpoint + self.elites

    def lines(self) -> list[str]:
        """The plan in sentences."""
        memory = "not told by the compiler" if self.memory is None else _size(self.memory)
        return [
            f"{self.algorithm}: {self.steps:,} steps, {self.evaluations:,} evaluations",
            f"arithmetic: {self.step_flop / 1e9:,.4g} GFLOP a step, {self.flop / 1e9:,.0f} in all",
            f"memory: {memory} on the device, {_size(self.archive)} of it the archive; a "
            f"checkpoint is copied to the host, up to {_size(self.checkpoint)}",
            f"disk: up to {_size(CHECKPOINTS * self.checkpoint)} of checkpoints and "
            f"{_size(self.elites)} of archive.parquet, if {self.occupied:,} cells are filled",
            f"time: {_duration(self.seconds)} at {self.step_seconds:.3g} s a step, measured over "
            f"{self.tried} on {self.device}; compiling comes on top",
        ]


def plan_seeds(plans: Sequence[Plan], count: int) -> str:
    """What as many seeds of some searches will cost, one after the other, in a sentence."""
    seconds = count * sum(plan.seconds for plan in plans)
    disk = count * sum(plan.disk for plan in plans)
    each = f"{count} times this" if len(plans) == 1 else f"{count} times these {len(plans)}"
    return f"{count} seeds: {each}, {_duration(seconds)} and up to {_size(disk)} on the disk in all"


def plan_search(config: RunConfig, domain: Any, seconds: float = TRIAL_SECONDS) -> Plan:
    """Plan the search of a run; nothing is written.

    Args:
        config: the run.
        domain: its generator, CLIP and prompts.
        seconds: how long steps are tried for; one is tried in any case.

    Raises:
        ValueError: the budget is too small for the start latents and one step.
    """
    import jax

    from qdgs_jax.compiler_options import compile_long
    from qdgs_jax.runs.prepare import prepare_search

    config = _of_single_steps(config)
    task = prepare_search(config, domain)
    shapes = task.shapes()
    lowered = task.search.lower(shapes, params=task.params)
    whole = _in_one_batch(domain)
    counted = lowered if whole is domain else None  # what XLA counts right already
    step_flop, start_flop = _count(prepare_search(config, whole), counted)
    compiled = compile_long(lowered)
    step_seconds, tried = _try_steps(task, compiled, seconds)
    archive, state = _bytes(shapes.archive), _bytes(shapes)
    cells = shapes.archive.centroids.shape[0]
    occupied = min(cells, task.budget)
    columns = task.search.problem.latent_dim + len(config.measures) + 3
    return Plan(
        algorithm=config.search.algorithm,
        steps=task.steps,
        evaluations=task.budget,
        step_flop=step_flop,
        flop=start_flop + task.steps * step_flop,
        memory=_memory(compiled),
        archive=archive,
        checkpoint=state - archive + archive * occupied // cells,
        elites=4 * columns * occupied,
        occupied=occupied,
        step_seconds=step_seconds,
        tried=tried,
        device=jax.devices()[0].device_kind,
    )


def count_operations(config: RunConfig, domain: Any) -> tuple[float, float]:
    """Floating-point operations of a step, and of finding start latents; nothing is compiled."""
    from qdgs_jax.runs.prepare import prepare_search

    return _count(prepare_search(_of_single_steps(config), _in_one_batch(domain)))


def _count(task: SearchTask, lowered: jax.stages.Lowered | None = None) -> tuple[float, float]:
    """Operations of a step, which may be lowered already, and of finding start latents."""
    if lowered is None:
        lowered = task.search.lower(task.shapes(), params=task.params)
    return _flop(lowered), task.spent * _flop_of_evaluation(task)


def _of_single_steps(config: RunConfig) -> RunConfig:
    """The run in programs of one step, of which XLA counts all there is."""
    search = config.search.model_copy(update={"chunk": 1})
    return config.model_copy(update={"search": search})


def _in_one_batch(domain: Any) -> Any:
    """The domain without loops over latents, whose turns XLA does not count."""
    from qdgs_jax.domains.prompted import PromptedDomain

    if not isinstance(domain, PromptedDomain) or not domain.computation.batch:
        return domain
    return dataclasses.replace(domain, computation=domain.computation._replace(batch=0))


def _flop(lowered: jax.stages.Lowered) -> float:
    """Floating-point operations of a program; loops count once. At least 1."""
    analysis: Any = lowered.cost_analysis()
    return max(1.0, float((analysis or {}).get("flops", 0.0)))


def _flop_of_evaluation(task: SearchTask) -> float:
    """Floating-point operations of one evaluation without a Jacobian."""
    import jax
    import jax.numpy as jnp

    problem = task.search.problem
    latents = jax.eval_shape(lambda: jnp.zeros((1, problem.latent_dim)))
    state = jax.eval_shape(problem.init_state)
    lowered = jax.jit(problem.evaluate).lower(task.params, state, latents, task.key)
    return _flop(lowered)


def _try_steps(
    task: SearchTask, compiled: jax.stages.Compiled, seconds: float
) -> tuple[float, int]:
    """Do steps from samples of the generator: seconds for one, and how many were done."""
    state = compiled(task.params, made_up_state(task))
    state.step.block_until_ready()
    began, tried = time.perf_counter(), 0
    while tried < 1 or (time.perf_counter() - began < seconds and tried < task.steps):
        state = compiled(task.params, state)
        state.step.block_until_ready()  # with all that the program gives
        tried += 1
    return (time.perf_counter() - began) / tried, tried


def made_up_state(task: SearchTask) -> SearchState:
    """A state to start from whose scores are made up: the true ones take a program of their own."""
    import jax.numpy as jnp

    from qdgs_jax.problem import FunctionProblem
    from qdgs_jax.search import Search

    problem: Any = task.search.problem

    def score(latents: jax.Array) -> tuple[jax.Array, jax.Array]:
        return latents[:, 0], jnp.zeros((len(latents), problem.num_measures))

    start = Search(
        FunctionProblem(score, problem.latent_dim, problem.num_measures),
        task.search.emitter,
        create_archive=task.search.create_archive,
    )
    latents = problem.sample(task.params, task.key, task.num_start)
    state: SearchState = start.init(latents, task.key).replace(problem=problem.init_state())
    return state


def _memory(compiled: jax.stages.Compiled) -> int | None:
    """Bytes that a program needs, its arguments and results included."""
    told: Any = compiled.memory_analysis()
    if told is None:
        return None
    results = told.output_size_in_bytes - told.alias_size_in_bytes
    return int(told.argument_size_in_bytes + results + told.temp_size_in_bytes)


def _bytes(shapes: Any) -> int:
    """Bytes of the arrays of a tree."""
    import jax

    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(shapes))


def _size(count: float) -> str:
    """A number of bytes in words."""
    unit, name = 1e3, "KB"
    if count >= 1e6:
        unit, name = (1e9, "GB") if count >= 1e9 else (1e6, "MB")
    return f"{count / unit:,.1f} {name}"


def _duration(seconds: float) -> str:
    """A time in words."""
    unit, name = 1, "s"
    if seconds >= 120:
        unit, name = (3600, "h") if seconds >= 7200 else (60, "min")
    return f"{seconds / unit:,.1f} {name}"
