"""A run folder: where everything that belongs to a run has its place.

It holds `run.toml` (as resolved), `metrics.csv`, `checkpoints/`, `archive.parquet` (once the search
is finished), `data/`, a folder for each experiment's results, and `report/`. The random sampling
that a run is compared with is a run folder of its own inside it.
"""

from __future__ import annotations

import contextlib
import csv
import dataclasses
import fcntl
import io
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from qdgs_jax.elites import Elites
from qdgs_jax.files import write_atomically
from qdgs_jax.runs.config import RunConfig, dump_run, load_run

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
            thresholds=archive.thresholds[cells],
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


def _line(values: Sequence[Any]) -> str:
    return ",".join(str(value) for value in values) + "\n"
