"""The search loop that fills a run folder, so that nothing is lost when it is killed.

A row of metrics follows each chunk of steps, and from time to time a checkpoint of the whole state:
taken up again, a search drops the rows beyond its checkpoint and goes on as if it had never
stopped. A finished search with a larger budget goes on in the same way.
"""

from __future__ import annotations

import contextlib
import dataclasses
import shutil
import time
import warnings
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from qdgs_jax.runs.folder import COUNTS, Row, RunFolder, RunFolderError

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
        chunk: steps from one row of metrics to the next.
        spent: evaluations that finding the start latents costs.
        checkpoint_seconds: time from one checkpoint to the next.
        seed: what `key` comes from.
        run: the run file that describes it, for its checkpoints to remember.
        measures: names of the measures, for warnings; their numbers if None.
        weights: fingerprints of generator and CLIP, for provenance.
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
    checkpoint_seconds: float = 120.0
    seed: int = 0
    run: str = ""
    measures: tuple[str, ...] | None = None
    weights: Mapping[str, str] = dataclasses.field(default_factory=dict)

    @property
    def budget(self) -> int:
        """Evaluations when the search is finished."""
        return self.spent + self.num_start + self.steps * self.step_evaluations

    def shapes(self) -> SearchState:
        """Shapes of the state, found without an evaluation."""
        import jax
        import jax.numpy as jnp

        shape = (self.num_start, self.search.problem.latent_dim)
        latents = jax.ShapeDtypeStruct(shape, jnp.float32)  # type: ignore[no-untyped-call]
        shapes: SearchState = jax.eval_shape(
            self.search.init, latents, self.key, params=self.params
        )
        return shapes


def run_search(
    folder: RunFolder,
    task: SearchTask,
    on_chunk: Callable[[Row], None] = lambda row: None,
    should_stop: Callable[[], bool] = lambda: False,
    tell: Callable[[str], None] = lambda text: None,
    warn: Callable[[str], None] = lambda text: None,
) -> bool:
    """Search in chunks until the budget is spent, from the folder's newest checkpoint if any.

    Args:
        folder: where a run was begun.
        task: what to search.
        on_chunk: told the metrics of the start and after each chunk.
        should_stop: asked before each chunk; True stops the search, which can be taken up again.
        tell: told in words what happens where it takes a while or is not as usual.
        warn: told in words what is doubtful, at the start and at the end.

    Returns:
        Whether the search is finished.

    Raises:
        RunFolderError: another process searches in the folder, or more was spent there already.
        ValueError: the checkpoint belongs to another search, or all checkpoints are damaged.
        OSError: a checkpoint could not be written.
    """
    with folder.lock():
        if folder.finished and folder.last_step == task.steps:
            return True
        found = _take_up(folder, task, tell)
        if found is None and folder.finished:
            raise RunFolderError(
                f"{folder.path} is finished and has no checkpoint left to go on from: begin "
                "another run with the larger budget."
            )
        if found is not None and found.step > task.steps:
            raise RunFolderError(
                f"{folder.path} is {found.step} steps far already and the budget is spent after "
                f"{task.steps}: give search.evaluations of at least "
                f"{task.budget + (found.step - task.steps) * task.step_evaluations}."
            )
        if folder.finished:  # with a smaller budget
            folder.archive_file.unlink()
            folder.thumbnails_file.unlink(missing_ok=True)
            if folder.data.exists():
                tell(
                    f"{folder.data} and what was made of it belong to the smaller budget: remove "
                    "them and generate again when the search is finished"
                )
        return _search(folder, task, found, on_chunk, should_stop, tell, warn)


@dataclasses.dataclass
class _Place:
    """Where a search is."""

    state: SearchState
    step: int
    seconds: float  # spent until here
    written: bool  # whether there is a checkpoint of it


def _search(
    folder: RunFolder,
    task: SearchTask,
    place: _Place | None,
    on_chunk: Callable[[Row], None],
    should_stop: Callable[[], bool],
    tell: Callable[[str], None],
    warn: Callable[[str], None],
) -> bool:
    """The loop; the folder is locked."""
    from qdgs_jax.runs.checkpoint_writer import CheckpointWriter
    from qdgs_jax.runs.provenance import begin_stint, note_time

    stint = begin_stint(folder.path, task.seed, task.weights)
    began = time.monotonic()

    def before_checkpoint() -> None:
        folder.sync_metrics()
        note_time(folder.path, stint, time.monotonic() - began)

    if place is None:
        tell("looking for start latents")
        place = _start(folder, task, on_chunk)
        _warn(place.state, task, warn)
    before = place.seconds - (0.0 if place.written else time.monotonic() - began)
    writer = CheckpointWriter(
        folder.checkpoints,
        task.checkpoint_seconds,
        {"run": task.run},
        before_checkpoint,
        place.step if place.written else None,
    )
    if place.step < task.steps:
        tell("compiling the search")
    state, done = place.state, place.step
    place = None  # the state is donated
    try:
        while done < task.steps and not should_stop():
            steps = min(task.chunk - done % task.chunk, task.steps - done)
            state, metrics = task.search.run(state, steps, params=task.params)
            done += steps
            row = _row(metrics, task)  # waits for the chunk to end
            row["seconds"] = round(before + time.monotonic() - began, 3)
            folder.append_metrics(row)
            on_chunk(row)
            if done < task.steps:
                writer.offer(done, state, int(row["num_elites"]))
        writer.finish(done, state)
    except Exception:
        with contextlib.suppress(OSError):
            writer.wait()
        raise
    if done >= task.steps:
        _warn(state, task, warn)
        state.archive.to_parquet(folder.archive_file)
    note_time(folder.path, stint, time.monotonic() - began, ended=True)
    return done >= task.steps


def _take_up(folder: RunFolder, task: SearchTask, tell: Callable[[str], None]) -> _Place | None:
    """Find the place to go on from; None where there is no checkpoint.

    A damaged checkpoint is told of and removed once an older one was read.
    """
    from qdgs_jax.runs.checkpoint import DamagedCheckpointError, restore_state
    from qdgs_jax.runs.checkpoint_writer import find_checkpoints

    damaged = []
    for step, path in find_checkpoints(folder.checkpoints):
        try:
            state = restore_state(path, task.shapes())
        except DamagedCheckpointError as error:
            damaged.append((path, error))
            continue
        for broken, problem in damaged:
            tell(f"{problem} Going on from step {step} instead.")
            shutil.rmtree(broken)
        return _Place(state, step, folder.drop_metrics_after(step), written=True)
    if damaged:
        raise damaged[0][1]
    return None


def _start(folder: RunFolder, task: SearchTask, on_chunk: Callable[[Row], None]) -> _Place:
    """Find start latents and evaluate them."""
    folder.metrics_file.unlink(missing_ok=True)
    began = time.monotonic()
    from qdgs_jax.search_doubts import SearchWarning

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SearchWarning)  # told by the caller, with names
        state = task.search.init(task.start_latents(), task.key, params=task.params)
    row = _row(task.search.metrics(state), task)
    row["seconds"] = round(time.monotonic() - began, 3)
    folder.append_metrics(row)
    on_chunk(row)
    return _Place(state, 0, row["seconds"], written=False)


def _warn(state: SearchState, task: SearchTask, warn: Callable[[str], None]) -> None:
    """Tell what is doubtful about a state."""
    from qdgs_jax.search_doubts import doubts

    for doubt in doubts(state, task.measures):
        warn(doubt)


def _row(metrics: Mapping[str, Any], task: SearchTask) -> Row:
    row = {name: int(value) if name in COUNTS else float(value) for name, value in metrics.items()}
    return {**row, "evaluations": row["evaluations"] + task.spent}
