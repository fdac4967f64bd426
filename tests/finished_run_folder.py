"""A finished run in runs/my whose pictures need no weights, for the documentation."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
from run_text import RUN

from qdgs_jax.domains import registry
from qdgs_jax.elites import Elites
from qdgs_jax.runs.config import parse_run
from qdgs_jax.runs.folder import COLUMNS, RunFolder


def grey(params, latents):
    """Pictures of any latents."""
    return np.full((len(latents), 8, 8, 3), 128, np.uint8)


def write_finished_run():
    """Write it into the current folder, and have its domain stand for that of shapes."""
    registry.DOMAINS["shapes"] = lambda config: SimpleNamespace(
        latent_dim=6, params=(), pictures=grey
    )
    config, folder = parse_run(RUN), RunFolder(Path("runs/my"))
    folder.create(config)
    folder.append_metrics(dict.fromkeys(COLUMNS, 1))
    numbers = np.arange(20, dtype=np.float32)
    Elites(
        cells=np.arange(20) * 51,
        objectives=numbers,
        thresholds=numbers,
        measures=np.tile(-0.098 + 0.004 * numbers, (2, 1)).T,
        latents=np.zeros((20, 6), np.float32),
        settings={
            "kind": "GridArchive",
            **config.grid,
            "learning_rate": 1.0,
            "threshold_min": -np.inf,
        },
    ).to_parquet(folder.archive_file)
