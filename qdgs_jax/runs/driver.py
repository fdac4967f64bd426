"""The search loop that fills a run folder, so that nothing is lost when it is killed.

After each chunk of steps the metrics are written first, then a checkpoint of the whole state: taken
up again, a search drops the rows beyond its checkpoint and goes on as if it had never stopped.
"""

from __future__ import annotations

import dataclasses
import shutil
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from qdgs_jax.runs.config import RunConfig
from qdgs_jax.runs.folder import BASELINE, COUNTS, Row, RunFolder

if TYPE_CHECKING:
    import jax

    from qdgs_jax.problem import Params
    from qdgs_jax.search import Search, SearchState


@dataclasses.dataclass(frozen=True)
class SearchTask:
    """A search with all that it needs to start, stop and go on.

    Attributes:
        search: the compiled loop.
        params: weights of its problem.
        start_latents: finds Float[n, D] to start from; not called when a search is taken up again.
        num_start: n.
        key: a JAX key; every random number of the search follows from it.
        steps: steps until the budget is spent.
        step_evaluations: evaluations of a step.
        chunk: steps per compiled call.
        spent: evaluations that finding the start latents costs.
    """

    search: Search
    params: Params
    start_latents: Callable[[], jax.Array]
    num_start: int
    key: jax.Array
    steps: int
    step_evaluations: int
    chunk: int
    spent: int = 0

    @property
    def budget(self) -> int:
        """Evaluations when the search is finished."""
        return self.spent + self.num_start + self.steps * self.step_evaluations

    def shapes(self) -> SearchState:
        """Shapes of the state, found without an evaluation."""
        import jax
        import jax.numpy as jnp

        latents = jnp.zeros((self.num_start, self.search.problem.latent_dim))
        shapes: SearchState = jax.eval_shape(self.search.init, self.params, latents, self.key)
        return shapes


def run_search(
    folder: RunFolder,
    task: SearchTask,
    on_chunk: Callable[[Row], None] = lambda row: None,
    should_stop: Callable[[], bool] = lambda: False,
) -> bool:
    """Search in chunks until the budget is spent, from the folder's newest checkpoint if any.

    Args:
        folder: where a run was begun.
        task: what to search.
        on_chunk: told the metrics after each chunk, when its checkpoint is written.
        should_stop: asked after each chunk; True stops the search, which can be taken up again.

    Returns:
        Whether the search is finished.

    Raises:
        RunFolderError: another process searches in the folder.
        ValueError: the checkpoint is damaged or belongs to another search.
    """
    with folder.lock():
        state, done, before = _begin(folder, task)
        began = time.monotonic()
        while done < task.steps and not should_stop():
            steps = min(task.chunk, task.steps - done)
            state, metrics = task.search.run(task.params, state, steps)
            done += steps
            row = _row(metrics, task)  # waits for the chunk to end
            row["seconds"] = round(before + time.monotonic() - began, 3)
            _keep(folder, state, row)
            on_chunk(row)
        if done >= task.steps:
            state.archive.to_parquet(folder.archive_file)
        return done >= task.steps


def _begin(folder: RunFolder, task: SearchTask) -> tuple[SearchState, int, float]:
    """Find the state to go on from, its step, and the seconds spent until there."""
    from qdgs_jax.runs.checkpoint import restore_state

    found = folder.newest_checkpoint()
    if found is not None:
        step, path = found
        return restore_state(path, task.shapes()), step, folder.drop_metrics_after(step)
    folder.metrics_file.unlink(missing_ok=True)
    began = time.monotonic()
    state = task.search.init(task.params, task.start_latents(), task.key)
    row = _row(task.search.metrics(state), task)
    row["seconds"] = round(time.monotonic() - began, 3)
    _keep(folder, state, row)
    return state, 0, row["seconds"]


def _keep(folder: RunFolder, state: SearchState, row: Row) -> None:
    """Write metrics, then the checkpoint; then the one before is not needed any more."""
    from qdgs_jax.runs.checkpoint import save_state

    folder.append_metrics(row)
    kept = folder.checkpoints / f"step-{row['step']:09d}"
    save_state(kept, state)
    for entry in folder.checkpoints.iterdir():
        if entry != kept:
            shutil.rmtree(entry, ignore_errors=True)


def _row(metrics: Mapping[str, Any], task: SearchTask) -> Row:
    row = {name: int(value) if name in COUNTS else float(value) for name, value in metrics.items()}
    return {**row, "evaluations": row["evaluations"] + task.spent}


def prepare_search(config: RunConfig, domain: Any) -> SearchTask:
    """Put emitter, archive and domain of a run together.

    Args:
        config: the run.
        domain: a `Domain`, see `qdgs_jax.domains`.

    Raises:
        ValueError: the budget does not reach for the start latents and one step.
    """
    import jax

    from qdgs_jax.emitters.registry import build_emitter
    from qdgs_jax.search import Search

    settings = config.search
    emitter = build_emitter(
        settings.algorithm,
        settings,
        domain.latent_dim,
        len(config.measures),
        lambda params, key, count: domain.sample_latents(key, count),
    )
    search = Search(
        domain,
        emitter,
        dims=config.dims,
        ranges=config.ranges,
        learning_rate=config.archive.learning_rate,
        threshold_min=config.archive.threshold_min,
        qd_score_offset=config.archive.qd_score_offset,
    )
    start_key, search_key = jax.random.split(jax.random.key(config.seed))
    sampling = settings.algorithm == BASELINE
    spent = 0 if sampling else settings.start_batches * settings.start_batch_size

    def start_latents() -> jax.Array:
        if sampling:
            latents: jax.Array = domain.sample_latents(start_key, settings.emitters)
        else:
            latents = domain.start_latents(domain.params, start_key)
        return latents

    steps = (settings.evaluations - spent - settings.emitters) // settings.step_evaluations
    if steps < 1:
        raise ValueError(
            f"search.evaluations = {settings.evaluations}: the start latents take "
            f"{spent + settings.emitters} and a step {settings.step_evaluations}; give at least "
            f"{spent + settings.emitters + settings.step_evaluations}."
        )
    return SearchTask(
        search=search,
        params=domain.params,
        start_latents=start_latents,
        num_start=settings.emitters,
        key=search_key,
        steps=steps,
        step_evaluations=settings.step_evaluations,
        chunk=settings.chunk,
        spent=spent,
    )


def baseline_of(config: RunConfig) -> RunConfig:
    """Describe the random sampling that a run is compared with: all the same but the algorithm."""
    search = config.search.model_copy(update={"algorithm": BASELINE})
    return config.model_copy(update={"search": search})
