"""A finished run where the page has one, with elites and pictures that need no weights."""

from pathlib import Path
from types import SimpleNamespace

import matplotlib as mpl
import numpy as np
from run_text import RUN

from qdgs_jax.domains import registry
from qdgs_jax.elites import Elites
from qdgs_jax.runs.config import parse_run
from qdgs_jax.runs.folder import COLUMNS, RunFolder

mpl.use("agg")


def grey(params, latents):
    return np.full((len(latents), 8, 8, 3), 128, np.uint8)


registry.DOMAINS["shapes"] = lambda config: SimpleNamespace(latent_dim=6, params=(), pictures=grey)
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
    settings={"kind": "GridArchive", **config.grid, "learning_rate": 1.0, "threshold_min": -np.inf},
).to_parquet(folder.archive_file)
