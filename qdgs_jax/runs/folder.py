"""A run folder: where everything that belongs to a run has its place.

It holds `run.toml` (as resolved), `provenance.json`, `metrics.csv`, `checkpoints/`,
`archive.parquet` (once the search is finished), `data/`, results of experiments and `report/`. The
random sampling that a run is compared with is a run folder of its own inside it.
"""

from __future__ import annotations

import contextlib
import csv
import dataclasses
import io
import os
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import filelock

from qdgs_jax.files import csv_text, sweep, write_atomically
from qdgs_jax.runs.config import RunConfig, read_run_file, write_run_file
from qdgs_jax.runs.tables import BASELINE

if TYPE_CHECKING:
    from qdgs_jax.elites import Elites

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
FILES = (
    r"run\.toml|provenance\.json|metrics\.csv|(archive|thumbnails)\.parquet"  # written by rename
)

Row = dict[str, float]


class RunFolderError(ValueError):
    """A folder that cannot be used as asked; the message names it and says what to do."""


@dataclasses.dataclass(frozen=True)
class RunFolder:
    """The files of a run.

    Attributes:
        path: the folder, also given as text; it may not exist yet.
    """

    path: Path

    def __post_init__(self) -> None:
        object.__setattr__(self, "path", Path(self.path))

    @property
    def resume_command(self) -> str:
        """What goes on with the search, to be pasted into a shell."""
        return f"qdgs search --resume {shlex.quote(str(self.path))}"

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
        """Folder of the newest checkpoints."""
        return self.path / "checkpoints"

    @property
    def archive_file(self) -> Path:
        """The elites, written when the search is finished."""
        return self.path / "archive.parquet"

    @property
    def thumbnails_file(self) -> Path:
        """Small pictures of elites, kept when a data set is made."""
        return self.path / "thumbnails.parquet"

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
            cure = f"continue it with `{self.resume_command}`, or give another --out"
            if self.finished and (self.baseline.finished or not self.baseline.exists):
                cure = f"extend it with `{self.resume_command} --evaluations N`, "
                if not self.baseline.exists:
                    cure += "add a baseline with --baseline in place of --evaluations, "
                cure += "or give another --out"
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
        write_run_file(config, self.run_file)

    def config(self) -> RunConfig:
        """Read the run's file.

        Raises:
            RunFolderError: no run was begun here.
        """
        if not self.exists:
            raise RunFolderError(self._no_run())
        return read_run_file(self.run_file)

    def _no_run(self) -> str:
        """Why there is no run here."""
        if self.path.is_file():
            return f"{self.path} is a file: give the run folder, which `qdgs search` writes."
        if not self.path.exists():
            return f"{self.path} does not exist: give a run folder, which `qdgs search` writes."
        return f"{self.path} holds no run: begin one with `qdgs search`."

    def check_finished(self) -> None:
        """Refuse a folder whose search has not spent its budget.

        Raises:
            RunFolderError: it has not, or there is no run.
        """
        self.config()
        if not self.finished:
            raise RunFolderError(
                f"the search in {self.path} is not finished: continue it with "
                f"`{self.resume_command}`."
            )

    def elites(self) -> Elites:
        """Read the elites of a finished search.

        Raises:
            ValueError: the file is damaged.
        """
        from qdgs_jax.elites import Elites

        return Elites.from_parquet(self.archive_file)

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """Keep other processes from searching here; the lock goes when the process does.

        Whoever holds it clears away what killed processes left half written.

        Raises:
            RunFolderError: another process holds it.
        """
        lock = filelock.FileLock(self.path / ".lock", timeout=0)
        try:
            lock.acquire()
        except filelock.Timeout:
            raise RunFolderError(f"another process is searching in {self.path}.") from None
        try:
            sweep(self.path, FILES)
            sweep(self.checkpoints)
            yield
        finally:
            lock.release()

    def read_metrics(self) -> list[Row]:
        """Read the whole rows of the metrics, oldest first; a torn last row is left out."""
        if not self.metrics_file.exists():
            return []
        text = self.metrics_file.read_text(encoding="utf-8")
        whole = text[: text.rfind("\n") + 1]
        rows = csv.DictReader(io.StringIO(whole, newline=""))
        return [
            {name: int(row[name]) if name in COUNTS else float(row[name]) for name in COLUMNS}
            for row in rows
        ]

    @property
    def last_step(self) -> int:
        """Step of the newest row of metrics; 0 before there is one."""
        rows = self.read_metrics()
        return int(rows[-1]["step"]) if rows else 0

    def append_metrics(self, row: Row) -> None:
        """Append one row; `sync_metrics` puts it on the disk."""
        rows = [row[name] for name in COLUMNS]
        new = not self.metrics_file.exists()
        with self.metrics_file.open("a", encoding="utf-8", newline="") as file:
            file.write(csv_text([COLUMNS, rows] if new else [rows]))

    def sync_metrics(self) -> None:
        """Put the rows so far on the disk."""
        with self.metrics_file.open("rb") as file:
            os.fsync(file.fileno())

    def drop_metrics_after(self, step: int) -> float:
        """Forget the rows beyond a step, and return the seconds spent until there."""
        rows = [row for row in self.read_metrics() if row["step"] <= step]
        lines = [COLUMNS, *([row[name] for name in COLUMNS] for row in rows)]
        write_atomically(self.metrics_file, csv_text(lines).encode())
        return rows[-1]["seconds"] if rows else 0.0
