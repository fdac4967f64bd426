"""A tiny search for the tests of run folders; as a program, a process for them to kill."""

import sys
import time
from pathlib import Path

import jax
import jax.numpy as jnp

from qdgs_jax.emitters.registry import build_emitter
from qdgs_jax.runs.config import SearchConfig
from qdgs_jax.runs.driver import SearchTask, run_search
from qdgs_jax.runs.folder import RunFolder
from qdgs_jax.search import Search

STEPS, CHUNK = 60, 3


def objective_and_measures(latents):
    """A sphere whose measures are its first two coordinates."""
    return 10.0 - jnp.sum(latents**2, axis=-1), latents[:, :2]


def task(steps=STEPS, algorithm="cma_maega"):
    """A search of a sphere in four dimensions, with a checkpoint after each chunk."""
    emitter = build_emitter(algorithm, SearchConfig(emitters=2), 4, 2, None)
    search = Search.from_function(
        objective_and_measures,
        4,
        emitter,
        dims=(10, 10),
        ranges=((-2.0, 2.0), (-2.0, 2.0)),
        learning_rate=0.1,
        threshold_min=0.0,
    )
    return SearchTask(
        search=search,
        params=(),
        start_latents=lambda: 0.1 * jnp.ones((2, 4)),
        num_start=2,
        key=jax.random.key(3),
        steps=steps,
        step_evaluations=8,
        chunk=CHUNK,
        spent=100,
        checkpoint_seconds=0.0,
    )


if __name__ == "__main__":  # slowly, so that there is time to disturb it
    run_search(RunFolder(Path(sys.argv[1])), task(int(sys.argv[2])), lambda row: time.sleep(0.02))
