"""Run folders, and the search loop that fills them so that nothing is lost when it is killed.

A folder holds `run.toml` (as resolved), `metrics.csv`, `checkpoints/`, `archive.parquet` (once the
search is finished) and `report/`; the random sampling that a run is compared with is a run folder
of its own inside it. After each chunk of steps the metrics are written first, then a checkpoint of
the whole state: taken up again, a search drops the rows beyond its checkpoint and goes on as if it
had never stopped.
"""

from __future__ import annotations

import contextlib
import csv
import dataclasses
import fcntl
import io
import os
import re
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from qdgs_jax.config import RunConfig, dump_run, load_run
from qdgs_jax.files import write_atomically

if TYPE_CHECKING:
    import jax

    from qdgs_jax.problem import Params
    from qdgs_jax.search import Search, SearchState

COLUMNS = (
    "step",
    "evaluations",
    "coverage",
    "qd_score",
    "norm_qd_score",
    "best",
    "mean",
    "num_elites",
    "rejected",
    "seconds",
)
COUNTS = frozenset({"step", "evaluations", "num_elites", "rejected"})
BASELINE = "random"  # name of the folder and of the algorithm that a run is compared with

Row = dict[str, float]


class Elites(NamedTuple):
    """The elites of an archive, on the host, in the order of their cells' discovery.

    Attributes:
        cells: Int[N].
        latents: Float[N, D].
        objectives: Float[N].
        measures: Float[N, M].
    """

    cells: np.ndarray
    latents: np.ndarray
    objectives: np.ndarray
    measures: np.ndarray


class RunFolderError(ValueError):
    """A folder that cannot be used as asked; the message names it and says what to do."""


@dataclasses.dataclass(frozen=True)
class RunFolder:
    """The files of a run.

    Attributes:
        path: the folder; it may not exist yet.
    """

    path: Path

    @property
    def run_file(self) -> Path:
        """The resolved run file."""
        return self.path / "run.toml"

    @property
    def metrics_file(self) -> Path:
        """A row of `COLUMNS` per chunk."""
        return self.path / "metrics.csv"

    @property
    def checkpoints(self) -> Path:
        """Folder of the newest checkpoint."""
        return self.path / "checkpoints"

    @property
    def archive_file(self) -> Path:
        """The elites, written when the search is finished."""
        return self.path / "archive.parquet"

    @property
    def data(self) -> Path:
        """Folder of the data set made of the archive."""
        return self.path / "data"

    @property
    def results(self) -> Path:
        """Folder of what the repair experiment found."""
        return self.path / "classifiers"

    @property
    def repair_file(self) -> Path:
        """Accuracies of the classifiers."""
        return self.results / "repair.json"

    @property
    def groups_file(self) -> Path:
        """What the oracle sees in the data sets."""
        return self.results / "groups.json"

    @property
    def baseline(self) -> RunFolder:
        """The run folder of random sampling with the same budget."""
        return RunFolder(self.path / BASELINE)

    @property
    def exists(self) -> bool:
        """Whether a run was begun here."""
        return self.run_file.is_file()

    @property
    def finished(self) -> bool:
        """Whether the search has spent its budget."""
        return self.archive_file.is_file()

    def check_free(self) -> None:
        """Refuse a place that holds something already.

        Raises:
            RunFolderError: it does.
        """
        if self.exists:
            cure = "give another --out"
            if not self.finished:
                cure = f"continue it with `qdgs search --resume {self.path}`, or {cure}"
            raise RunFolderError(f"{self.path} already holds a run: {cure}.")
        if self.path.is_dir() and any(self.path.iterdir()):
            raise RunFolderError(f"{self.path} is not empty: give another --out.")
        if self.path.exists() and not self.path.is_dir():
            raise RunFolderError(f"{self.path} is a file: give a folder as --out.")

    def create(self, config: RunConfig) -> None:
        """Begin a run here.

        Raises:
            RunFolderError: the place is taken.
        """
        self.check_free()
        self.path.mkdir(parents=True, exist_ok=True)
        dump_run(config, self.run_file)

    def config(self) -> RunConfig:
        """Read the run's file.

        Raises:
            RunFolderError: no run was begun here.
        """
        if not self.exists:
            raise RunFolderError(f"{self.path} holds no run: begin one with `qdgs search`.")
        return load_run(self.run_file)

    def check_finished(self) -> None:
        """Refuse a folder whose search has not spent its budget.

        Raises:
            RunFolderError: it has not, or there is no run.
        """
        self.config()
        if not self.finished:
            raise RunFolderError(
                f"the search in {self.path} is not finished: continue it with "
                f"`qdgs search --resume {self.path}`."
            )

    def elites(self) -> Elites:
        """Read the elites of a finished search.

        Raises:
            ValueError: the file is damaged.
        """
        import jax

        from qdgs_jax.archive import GridArchive

        archive = jax.device_get(GridArchive.from_parquet(self.archive_file))
        cells = archive.occupied_cells[: int(archive.num_elites)]
        return Elites(
            cells=cells,
            latents=archive.genotypes[cells],
            objectives=archive.fitnesses[cells, 0],
            measures=archive.descriptors[cells],
        )

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """Keep other processes from searching here; the lock goes when the process does.

        Raises:
            RunFolderError: another process holds it.
        """
        handle = os.open(self.path, os.O_RDONLY)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(handle)
            raise RunFolderError(f"another process is searching in {self.path}.") from None
        try:
            yield
        finally:
            os.close(handle)

    def read_metrics(self) -> list[Row]:
        """Read the whole rows of the metrics, oldest first; a torn last row is left out."""
        if not self.metrics_file.exists():
            return []
        text = self.metrics_file.read_text(encoding="utf-8")
        whole = text[: text.rfind("\n") + 1]
        rows = csv.DictReader(io.StringIO(whole))
        return [
            {name: int(row[name]) if name in COUNTS else float(row[name]) for name in COLUMNS}
            for row in rows
        ]

    def append_metrics(self, row: Row) -> None:
        """Append one row, on the disk when this returns."""
        new = not self.metrics_file.exists()
        with self.metrics_file.open("a", encoding="utf-8") as file:
            file.write((_line(COLUMNS) if new else "") + _line([row[name] for name in COLUMNS]))
            file.flush()
            os.fsync(file.fileno())

    def drop_metrics_after(self, step: int) -> float:
        """Forget the rows beyond a step, and return the seconds spent until there."""
        rows = [row for row in self.read_metrics() if row["step"] <= step]
        lines = [_line(COLUMNS), *(_line([row[name] for name in COLUMNS]) for row in rows)]
        write_atomically(self.metrics_file, "".join(lines).encode())
        return rows[-1]["seconds"] if rows else 0.0

    def newest_checkpoint(self) -> tuple[int, Path] | None:
        """Find the newest checkpoint: its step and its folder."""
        found = []
        if self.checkpoints.is_dir():
            for entry in self.checkpoints.iterdir():
                if match := re.fullmatch(r"step-(\d+)", entry.name):
                    found.append((int(match[1]), entry))
        return max(found, default=None)


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
    from qdgs_jax.state_io import restore_state

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
    from qdgs_jax.state_io import save_state

    folder.append_metrics(row)
    kept = folder.checkpoints / f"step-{row['step']:09d}"
    save_state(kept, state)
    for entry in folder.checkpoints.iterdir():
        if entry != kept:
            shutil.rmtree(entry, ignore_errors=True)


def _row(metrics: Mapping[str, Any], task: SearchTask) -> Row:
    row = {name: int(value) if name in COUNTS else float(value) for name, value in metrics.items()}
    return {**row, "evaluations": row["evaluations"] + task.spent}


def _line(values: Sequence[Any]) -> str:
    return ",".join(str(value) for value in values) + "\n"


def prepare_search(config: RunConfig, domain: Any) -> SearchTask:
    """Put emitter, archive and domain of a run together.

    Args:
        config: the run.
        domain: a `Domain`, see `qdgs_jax.domains`.

    Raises:
        ValueError: the budget does not reach for the start latents and one step.
    """
    import jax

    from qdgs_jax.algorithms import build_emitter
    from qdgs_jax.search import Search

    settings = config.search
    emitter = build_emitter(
        settings.algorithm,
        settings,
        domain.latent_dim,
        len(config.measures),
        domain.sample_latents,
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
