"""From a run folder to its data set: choose latents, label them, decode them, write shards.

A search gives its elites, balanced over classes and measure bins. Random sampling, with which a
search is compared, gives what the generator draws by itself, labelled in the same way.
"""

from __future__ import annotations

import functools
import importlib.metadata
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from qdgs_jax import keys
from qdgs_jax.datasets.balance import measure_balance
from qdgs_jax.datasets.card import check_place
from qdgs_jax.datasets.labels import LabelRule, label_rule, prompt_text
from qdgs_jax.datasets.manifest import DATA, Manifest
from qdgs_jax.datasets.selection import Labelled, label, select_elites
from qdgs_jax.datasets.shards import write_shards
from qdgs_jax.datasets.thumbnails import laid_out, write_thumbnails
from qdgs_jax.domains.decoding import batches, decoded
from qdgs_jax.domains.protocol import Domain
from qdgs_jax.elites import Elites
from qdgs_jax.runs.config import RunConfig
from qdgs_jax.runs.folder import BASELINE, RunFolder
from qdgs_jax.runs.prepare import archive_of

OVERSAMPLED = 5  # samples drawn for each image of a baseline, so that enough have sure labels
NOISY_SHARE = 0.05  # of the images with labels within noise that is worth a word
Progress = Callable[[int, int], None]  # images done, images in all


def generate_dataset(
    folder: RunFolder,
    domain: Domain[Any],
    progress: Progress = lambda done, total: None,
    *,
    out: Path | None = None,
    changes: Mapping[str, Any] | None = None,
    strict: bool = False,
) -> Manifest:
    """Write the data set of a finished run, and the thumbnails of its elites into its folder.

    The shards and their manifest get into a folder `DATA`, beside their card.

    Args:
        folder: the run.
        domain: its generator and CLIP.
        progress: told after each batch.
        out: folder of the card and of `DATA`; None for the run folder.
        changes: fields of the run file's table [dataset] to change: images, margin.
        strict: refuse a data set in which groups are short, before anything is written.

    Raises:
        ValueError: the search is not finished or there is a data set already.
        UnbalancedError: groups are short, and `strict` is set.
        OSError: the disk is full; no part of the data set is left behind.
    """
    folder.check_finished()
    root = out or folder.path
    check_place(root)
    config = _changed(folder.config(), changes or {})
    rule = label_rule(config)
    sampling = config.search.algorithm == BASELINE
    elites = folder.elites()
    rows = _sampled_rows(config, domain, rule) if sampling else _elite_rows(elites, config, rule)
    balance = measure_balance(config, rule, rows)
    if strict:
        balance.check()
    manifest = write_shards(
        root / DATA,
        rows,
        _told(decoded(domain, rows.elites.latents), len(rows), progress),
        label_names=rule.names,
        measure_names=[m.name for m in config.measures],
        shard_size=config.dataset.shard_size,
        source=_source(config),
        balance=balance,
        notes=doubts(config, domain, rule, rows),
        card=root,
    )
    decode = functools.partial(decoded, domain)
    write_thumbnails(folder.thumbnails_file, laid_out(elites, config), config.dims, decode)
    return manifest


def doubts(config: RunConfig, domain: Domain[Any], rule: LabelRule, rows: Labelled) -> list[str]:
    """What is doubtful about the labels of a data set, in sentences.

    A label measure that moves no further over the generator's own samples than noise does cannot
    tell classes apart; labels within noise are worth as little. A margin is suggested from the
    noise. A class without a single image is told too.
    """
    notes = []
    counts = np.bincount(rows.labels, minlength=len(rule.names))
    notes += [f"no image is labelled {rule.names[c]!r}." for c in np.flatnonzero(counts == 0)]
    key = keys.stream(keys.root(config.seed), "spread")
    spreads = domain.spread(domain.params, key)
    for index, cuts in zip(rule.measures, rule.cuts, strict=True):
        name, spread = config.measures[index].name, spreads[index]
        warning = spread.warning()
        if warning is not None:
            notes.append(f"the measure {name!r} {warning}.")
        column = rows.elites.measures[:, index]
        distance = np.abs(column[:, None] - np.asarray(cuts)).min(axis=1)
        share = float(np.mean(distance < spread.margin))
        if rule.margin < spread.margin and share > NOISY_SHARE:
            notes.append(
                f"{100 * share:.0f} % of the images lie so near to a boundary of {name!r} that "
                f"their label may be noise: --margin {spread.margin:.2g} leaves them out."
            )
    return notes


def _changed(config: RunConfig, changes: Mapping[str, Any]) -> RunConfig:
    return config.model_copy(update={"dataset": config.dataset.model_copy(update=dict(changes))})


def _source(config: RunConfig) -> dict[str, Any]:
    """Where a data set comes from; folders of weights by their names alone."""
    dataset, domain = config.dataset, config.domain
    pairs = [("objective", config.objective), *((m.name, m) for m in config.measures)]
    return {
        "version": importlib.metadata.version("qdgs-jax"),
        "run": config.name,
        "generator": Path(domain.generator).name,
        "clip": Path(domain.clip).name,
        "algorithm": config.search.algorithm,
        "evaluations": config.search.evaluations,
        "seed": config.seed,
        "prompts": [
            [name, prompt_text(pair.positive), prompt_text(pair.negative)] for name, pair in pairs
        ],
        "label": list(dataset.label_measures),
        "label_bins": [list(cuts) for cuts in dataset.label_bins or ()],
        "margin": dataset.margin,
        "bins": list(dataset.bins),
    }


def _elite_rows(elites: Elites, config: RunConfig, rule: LabelRule) -> Labelled:
    return select_elites(
        elites,
        rule,
        count=config.dataset.images,
        bins=config.dataset.bins,
        ranges=config.ranges,
    )


def _sampled_rows(config: RunConfig, domain: Domain[Any], rule: LabelRule) -> Labelled:
    """The first samples whose label is sure, of several times as many as are wanted."""
    key = keys.stream(keys.root(config.seed), "dataset")
    sample_key, score_key = jax.random.split(key)
    latents = np.asarray(
        domain.sample(domain.params, sample_key, OVERSAMPLED * config.dataset.images)
    )
    evaluate = jax.jit(functools.partial(domain.evaluate, state=domain.init_state()))
    scores = []
    for number, (batch, count) in enumerate(batches(latents)):
        key = jax.random.fold_in(score_key, number)
        evaluation = evaluate(domain.params, latents=batch, key=key)
        scores.append((evaluation.fitnesses[:count], evaluation.descriptors[:count]))
    objectives, measures = (np.concatenate(parts) for parts in zip(*scores, strict=True))
    archive = archive_of(config)(jnp.zeros(1))
    samples = Elites(
        cells=np.asarray(archive.cell_of(jnp.asarray(measures))),
        objectives=objectives,
        thresholds=np.full(len(objectives), np.nan, np.float32),
        measures=measures,
        latents=latents,
    )
    finite = np.isfinite(objectives) & np.isfinite(measures).all(axis=1)
    rows = label(samples.take(np.flatnonzero(finite)), rule)
    return rows.take(np.arange(min(config.dataset.images, len(rows))))


def _told(pictures: Iterator[np.ndarray], total: int, progress: Progress) -> Iterator[np.ndarray]:
    done = 0
    for batch in pictures:
        yield batch
        done += len(batch)
        progress(done, total)
