"""From a run folder to its data set: choose latents, label them, decode them, write shards.

A search gives its elites, balanced over measure bins. Random sampling, with which QDGS is compared,
gives what the generator draws by itself, labelled in the same way.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from qdgs_jax.archive import GridArchive
from qdgs_jax.datasets.selection import Rows, labels_of, select_elites, sure_labels
from qdgs_jax.datasets.shards import Manifest, refuse_other_dataset, to_uint8, write_shards
from qdgs_jax.runs.config import RunConfig
from qdgs_jax.runs.folder import BASELINE, RunFolder

BATCH = 50  # latents decoded or scored together
Progress = Callable[[int, int], None]  # images done, images in all


def generate_dataset(
    folder: RunFolder, domain: Any, progress: Progress = lambda done, total: None
) -> Manifest:
    """Write the data set of a finished run into its folder.

    Args:
        folder: the run.
        domain: its `PromptedDomain`.
        progress: told after each batch.

    Raises:
        ValueError: the search is not finished or there is a data set already.
        OSError: the disk is full; no part of the data set is left behind.
    """
    folder.check_finished()
    refuse_other_dataset(folder.data)
    config = folder.config()
    label = label_index(config)
    sampling = config.search.algorithm == BASELINE
    rows = _sampled_rows(config, domain, label) if sampling else _elite_rows(folder, config, label)
    measure = config.measures[label]
    return write_shards(
        folder.data,
        rows,
        _told(decoded(domain, rows.latents), len(rows), progress),
        label_names=(" | ".join(measure.positive), " | ".join(measure.negative)),
        measure_names=[m.name for m in config.measures],
        shard_size=config.dataset.shard_size,
        source={"run": config.name, "algorithm": config.search.algorithm, "seed": config.seed},
    )


def label_index(config: RunConfig) -> int:
    """Find the measure whose sign is the label."""
    return [m.name for m in config.measures].index(config.dataset.label)


def decoded(domain: Any, latents: np.ndarray | None) -> Iterator[np.ndarray]:
    """Decode latents Float[N, D] to pictures UInt8[B, H, W, 3], batch by batch."""
    for batch, count in _batches(np.asarray(latents)):
        yield to_uint8(np.asarray(_decoder(domain)(domain.params, batch)))[:count]


@functools.lru_cache(maxsize=1)
def _decoder(domain: Any) -> Callable[..., jax.Array]:
    """Compile the generator once for both data sets and the report's atlas."""
    return jax.jit(domain.decode)


def _elite_rows(folder: RunFolder, config: RunConfig, label: int) -> Rows:
    elites = folder.elites()
    return select_elites(
        cells=elites.cells,
        latents=elites.latents,
        objectives=elites.objectives,
        measures=elites.measures,
        count=config.dataset.images,
        bins=config.dataset.bins,
        ranges=config.ranges,
        label_measure=label,
        margin=config.dataset.margin,
    )


def _sampled_rows(config: RunConfig, domain: Any, label: int) -> Rows:
    """The first samples whose label is sure, of five times as many as are wanted."""
    sample_key, score_key = jax.random.split(jax.random.fold_in(jax.random.key(config.seed), 1))
    latents = np.asarray(domain.sample_latents(sample_key, 5 * config.dataset.images))
    evaluate = jax.jit(functools.partial(domain.evaluate, state=domain.init_state()))
    scores = []
    for number, (batch, count) in enumerate(_batches(latents)):
        key = jax.random.fold_in(score_key, number)
        evaluation = evaluate(domain.params, latents=batch, key=key)
        scores.append((evaluation.fitnesses[:count], evaluation.descriptors[:count]))
    objectives, measures = (np.concatenate(parts) for parts in zip(*scores, strict=True))
    grid = GridArchive.create(jnp.zeros(1), dims=config.dims, ranges=config.ranges)
    finite = np.isfinite(objectives) & np.isfinite(measures).all(axis=1)
    rows = np.flatnonzero(finite & sure_labels(measures, label, config.dataset.margin))
    rows = rows[: config.dataset.images]
    return Rows(
        cells=np.asarray(grid.cell_of(jnp.asarray(measures[rows]))),
        labels=labels_of(measures[rows], label),
        objectives=objectives[rows],
        measures=measures[rows],
        latents=latents[rows],
    )


def _batches(latents: np.ndarray) -> Iterator[tuple[jax.Array, int]]:
    """Cut latents into batches of one size, the last one filled up; and how many of each count."""
    for start in range(0, len(latents), BATCH):
        part = latents[start : start + BATCH]
        yield jnp.asarray(np.pad(part, ((0, BATCH - len(part)), (0, 0)))), len(part)


def _told(pictures: Iterator[np.ndarray], total: int, progress: Progress) -> Iterator[np.ndarray]:
    done = 0
    for batch in pictures:
        yield batch
        done += len(batch)
        progress(done, total)
