"""A finished run folder as an object: what was found, what it was found with, and how it looks.

    run = load_run("runs/my")
    run.elites.to_frame()
    run.images([0, 1, 2])

Files are read when they are asked for; weights are loaded for the first image.
"""

from __future__ import annotations

import dataclasses
import functools
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from qdgs_jax.elites import Elites
from qdgs_jax.runs.config import RunConfig
from qdgs_jax.runs.folder import COLUMNS, RunFolder, RunFolderError
from qdgs_jax.runs.provenance import Provenance, check_weights, read_provenance

if TYPE_CHECKING:
    import pandas as pd

    from qdgs_jax.archive import Archive
    from qdgs_jax.domains.protocol import Domain


def load_run(path: str | os.PathLike[str]) -> FinishedRun:
    """Open the folder of a finished run.

    Args:
        path: what `qdgs search --out` was given; the folder of a baseline, `random` inside it, is a
            run of its own.

    Raises:
        ValueError: that is no path.
        RunFolderError: there is no run, or its search is not finished.
        ConfigError: its run file is damaged, or names weights that are gone.
    """
    if not isinstance(path, str | os.PathLike):
        raise ValueError(f"path is {path!r:.60}: give the folder of a finished run.")
    folder = RunFolder(Path(path))
    if not folder.path.is_dir():
        what = "is a file" if folder.path.exists() else "does not exist"
        raise RunFolderError(f"{folder.path} {what}: give the folder of a finished run.")
    folder.check_finished()
    return FinishedRun(folder, folder.config())


@dataclasses.dataclass(frozen=True, eq=False)
class FinishedRun:
    """A run whose budget is spent; see `load_run`.

    Attributes:
        folder: where its files are.
        config: its run file, as resolved.
        main: the run that this one is the baseline of; it has the domain for both.
    """

    folder: RunFolder
    config: RunConfig
    main: FinishedRun | None = dataclasses.field(default=None, repr=False)

    def __repr__(self) -> str:
        return f"FinishedRun({str(self.folder.path)!r}, {self.config.search.algorithm})"

    @functools.cached_property
    def elites(self) -> Elites:
        """The elites as columns, N rows in the order of their discovery.

        Raises:
            ValueError: the file is damaged.
        """
        return self.folder.elites()

    @functools.cached_property
    def archive(self) -> Archive:
        """The elites in their archive, to be drawn by `qdgs_jax.visualize` or searched further."""
        from qdgs_jax.archive import CVTArchive, GridArchive

        kinds = {kind.__name__: kind for kind in (GridArchive, CVTArchive)}
        kind: type[Archive] = kinds.get(self.elites.settings["kind"], GridArchive)
        return kind.from_elites(self.elites)

    @functools.cached_property
    def metrics(self) -> pd.DataFrame:
        """A row per chunk of the search, oldest first, with the columns of `metrics.csv`."""
        import pandas as pd

        return pd.DataFrame(self.folder.read_metrics(), columns=list(COLUMNS))

    @functools.cached_property
    def provenance(self) -> Provenance | None:
        """Versions, device, seed and times of the search; None where nothing was kept.

        Raises:
            ValueError: the file is damaged.
        """
        return read_provenance(self.folder.path)

    @functools.cached_property
    def baseline(self) -> FinishedRun | None:
        """The random sampling that the run is compared with; None if there is none.

        Raises:
            RunFolderError: its search is not finished.
        """
        folder = self.folder.baseline
        if not folder.exists:
            return None
        folder.check_finished()
        return FinishedRun(folder, folder.config(), main=self)

    @functools.cached_property
    def domain(self) -> Domain[Any]:
        """Generator, CLIP and embedded prompts, loaded when they are first asked for.

        Raises:
            CheckpointError: weights are missing, damaged or of another model.
            ValueError: the elites were found with another generator, or with other weights.
        """
        if self.main is not None:
            return self.main.domain
        check_weights(self.folder.path, self.config.domain)
        from qdgs_jax.domains import load_domain

        domain = load_domain(self.config)
        length = self.elites.latents.shape[1]
        if length != domain.latent_dim:
            raise ValueError(
                f"the elites in {self.folder.archive_file} are latents of length {length} but the "
                f"generator of {self.folder.run_file} takes {domain.latent_dim}: they were found "
                "with another generator, whose weights the run file has to name."
            )
        return domain

    def decode(self, latents: Any) -> np.ndarray:
        """Pictures of latents.

        Args:
            latents: Float[B, D], as they are searched; B may be 0.

        Returns:
            UInt8[B, H, W, 3].

        Raises:
            ValueError: latents have another shape.
            CheckpointError: weights are missing, damaged or of another model.
        """
        from qdgs_jax.domains.decoding import decoded

        domain = self.domain
        try:
            rows = np.asarray(latents, np.float32)
        except (TypeError, ValueError):
            raise ValueError(f"latents is {latents!r:.60}: give numbers, Float[B, D].") from None
        if rows.ndim != 2 or rows.shape[1] != domain.latent_dim:
            raise ValueError(
                f"latents has shape {rows.shape}: give [B, {domain.latent_dim}], latents of this "
                "run's generator, such as run.elites.latents."
            )
        if not len(rows):
            return self.decode(np.zeros((1, domain.latent_dim)))[:0]
        return np.concatenate(list(decoded(domain, rows)))

    def images(self, indices: int | slice | Sequence[int] | np.ndarray | None = None) -> np.ndarray:
        """Pictures of elites.

        Args:
            indices: rows of `elites`: one, several, a slice or Bool[N]; all if None.

        Returns:
            UInt8[K, H, W, 3]; of a single index UInt8[H, W, 3].

        Raises:
            IndexError: there is no such row.
            CheckpointError: weights are missing, damaged or of another model.
        """
        latents = self.elites.latents
        try:
            rows = latents if indices is None else latents[_as_index(indices)]
        except IndexError:
            raise IndexError(
                f"indices is {indices!r:.60}, but the run has {len(latents)} elites: give whole "
                f"numbers from 0 to {len(latents) - 1}."
            ) from None
        return self.decode(rows) if rows.ndim == 2 else self.decode(rows[None])[0]


def _as_index(indices: Any) -> Any:
    """An empty list chooses nothing; NumPy would take it for numbers that are no indices."""
    if isinstance(indices, slice | int | np.integer):
        return indices
    chosen = np.asarray(indices)
    return chosen if chosen.size else chosen.astype(np.int64)
