"""From a run folder to its data set: choose latents, label them, decode them, write shards.

A search gives its elites, balanced over classes and measure bins. Random sampling, with which a
search is compared, gives what the generator draws by itself, labelled in the same way. Where the
run file says so, latents become subjects, drawn under augmentations and aligned. What was chosen
lies in a plan beside the shards until the last is written, so that a stopped command can go on.
"""

from __future__ import annotations

import functools
import hashlib
import importlib.metadata
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from qdgs_jax import keys
from qdgs_jax.datasets.align import fit
from qdgs_jax.datasets.augment import Augmented, augmentations_of
from qdgs_jax.datasets.balance import measure_balance
from qdgs_jax.datasets.card import check_place
from qdgs_jax.datasets.distinct import distinct_subjects
from qdgs_jax.datasets.labels import LabelRule, label_rule, prompt_text
from qdgs_jax.datasets.manifest import DATA, MANIFEST, Manifest
from qdgs_jax.datasets.plan import Plan, clear_finished, planned
from qdgs_jax.datasets.selection import Labelled, groups_of, select_elites
from qdgs_jax.datasets.shards import write_shards
from qdgs_jax.datasets.subjects import Grouping, group_subjects
from qdgs_jax.datasets.thumbnails import laid_out, write_thumbnails
from qdgs_jax.domains.decoding import BATCH, batch_size, batches, decoded
from qdgs_jax.domains.protocol import Domain
from qdgs_jax.elites import Elites
from qdgs_jax.runs.config import RunConfig
from qdgs_jax.runs.folder import BASELINE, RunFolder
from qdgs_jax.runs.prepare import archive_of, flat_settings
from qdgs_jax.runs.provenance import check_weights
from qdgs_jax.runs.subjects_table import SubjectsConfig

OVERSAMPLED = 5  # samples drawn for each image of a baseline, so that enough have sure labels
SAMPLED_AT_ONCE = 2**26  # numbers of sampled latents, 268 MB
_TOLD_EACH = 20  # batches of samples
NOISY_SHARE = 0.05  # of the images with labels within noise that is worth a word
Progress = Callable[[int, int], None]  # images done, images in all
Tell = Callable[[str], None]  # what is being done, in words


def generate_dataset(
    folder: RunFolder,
    domain: Domain[Any],
    progress: Progress = lambda done, total: None,
    *,
    out: Path | None = None,
    changes: Mapping[str, Any] | None = None,
    strict: bool = False,
    tell: Tell = lambda text: None,
) -> Manifest:
    """Write the data set of a finished run, and the thumbnails of its elites into its folder.

    The shards and their manifest get into a folder `DATA`, beside their card. If it is stopped,
    the same call goes on after the last complete shard, and what it writes is to the bit what it
    would have written undisturbed.

    Args:
        folder: the run.
        domain: its generator and CLIP.
        progress: told after each batch.
        out: folder of the card and of `DATA`; None for the run folder.
        changes: fields of the run file's table [dataset] to change: images, margin.
        strict: refuse a data set in which groups are short, before anything is written.
        tell: told what is being done, before there are images to count.

    Raises:
        ValueError: the search is not finished or was made with other weights, there is a data set
            already, or part of another.
        UnbalancedError: groups are short, and `strict` is set.
        OSError: the disk is full; the shards so far are kept.
    """
    folder.check_finished()
    root = out or folder.path
    target = root / DATA
    if (target / MANIFEST).exists():
        clear_finished(target)
    check_place(root)
    config = _changed(folder.config(), changes or {})
    check_weights(folder.path, config.domain)
    rule = label_rule(config)
    added = augmentations_of(config, domain.latent_dim)
    make = functools.partial(_plan, folder, config, domain, rule, added, strict, tell)
    with planned(target, _settings(folder, config, added), make) as (plan, left):
        balance = measure_balance(config, rule, plan.rows)
        if strict:
            balance.check()
        if not (left and folder.thumbnails_file.exists()):
            shown = laid_out(folder.elites(), config)
            decode = functools.partial(decoded, domain)
            write_thumbnails(folder.thumbnails_file, shown, config.dims, decode)
        rows = plan.rows if plan.augmentations is None else plan.rows.under(len(plan.augmentations))
        return write_shards(
            target,
            rows,
            functools.partial(_pictures, config, domain, plan, len(rows), progress, tell),
            label_names=rule.names,
            measure_names=[m.name for m in config.measures],
            shard_size=config.dataset.shard_size,
            source=_source(config, plan, _evaluations(folder)),
            balance=balance.times(len(rows) // len(plan.rows)),
            notes=plan.notes,
            card=root,
        )


def _plan(
    folder: RunFolder,
    config: RunConfig,
    domain: Domain[Any],
    rule: LabelRule,
    added: np.ndarray | None,
    strict: bool,
    tell: Tell,
) -> Plan:
    """Choose the rows of a data set, and find its subjects."""
    table = config.dataset.subjects
    sampled = config.search.algorithm == BASELINE
    distinct = table is not None and table.distinct and not sampled
    if sampled:
        rows = _sampled_rows(config, domain, rule, tell)
    else:
        rows = _elite_rows(folder.elites(), config, rule, all_of_them=distinct)
    if strict and not distinct:  # before subjects are looked for, which takes long
        measure_balance(config, rule, rows).check()
    if table is not None:
        key = keys.stream(keys.root(config.seed), "subjects")
        grouping = Grouping(table.size, table.restarts, table.iterations)
        rows = group_subjects(rows, grouping, key, names=rule.names, tell=tell)
        if distinct:
            kinds = groups_of(rows, config.dataset.bins, config.ranges)
            rows = distinct_subjects(rows, kinds, config.dataset.images)
        sizes = np.bincount(rows.subjects if rows.subjects is not None else [])
        tell(f"{len(rows):,} latents are {len(sizes):,} subjects of {sizes.min()} to {sizes.max()}")
    if strict:
        measure_balance(config, rule, rows).check()
    return Plan(rows, added, tuple(doubts(config, domain, rule, rows)))


def _pictures(
    config: RunConfig,
    domain: Domain[Any],
    plan: Plan,
    total: int,
    progress: Progress,
    tell: Tell,
    start: int,
) -> Iterator[np.ndarray]:
    """The pictures of a plan from the row `start` on."""
    if start:
        tell(f"going on after {start:,} of {total:,} images")
    latents = plan.rows.elites.latents
    table = config.dataset.subjects
    if plan.augmentations is None or table is None:
        pictures = decoded(domain, latents, start=start)
    else:
        fitted = functools.partial(fit, align=table.align, side=table.side)
        augmented = Augmented(latents, plan.augmentations)
        pictures = decoded(domain, augmented, start=start, fit=fitted)
    return _told(pictures, start, total, progress)


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
    for measure, spread in zip(config.measures, spreads, strict=True):
        beyond = spread.range_warning(*measure.range, measure.cells)
        notes += [] if beyond is None else [f"the measure {measure.name!r} {beyond}."]
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


def _settings(folder: RunFolder, config: RunConfig, added: np.ndarray | None) -> dict[str, Any]:
    """All that a data set follows from, by name; folders of weights by their own names alone."""
    names = {"seed", "domain", "objective", "measures", "archive", "evaluation", "dataset"}
    table = config.model_dump(include=names, mode="json")
    for field in ("generator", "clip", "folder"):
        if field in table["domain"]:
            table["domain"][field] = Path(table["domain"][field]).name
    if table["dataset"]["subjects"] is not None:
        table["dataset"]["subjects"].pop("augmentations")
        table["augmentations"] = hashlib.sha256(np.asarray(added).tobytes()).hexdigest()
    with folder.archive_file.open("rb") as file:
        table["archive"]["elites"] = hashlib.file_digest(file, "sha256").hexdigest()
    table["version"] = importlib.metadata.version("qdgs-jax")
    return flat_settings(table)


def _evaluations(folder: RunFolder) -> int:
    """How many a search made: whole steps, so not always its budget."""
    rows = folder.read_metrics()
    return int(rows[-1]["evaluations"]) if rows else folder.config().search.evaluations


def _source(config: RunConfig, plan: Plan, evaluations: int) -> dict[str, Any]:
    """Where a data set comes from; folders of weights by their names alone."""
    dataset, domain = config.dataset, config.domain
    pairs = [("objective", config.objective), *((m.name, m) for m in config.measures)]
    return {
        **_people(dataset.subjects, plan),
        "version": importlib.metadata.version("qdgs-jax"),
        "run": config.name,
        "generator": Path(domain.generator).name,
        "clip": Path(domain.clip).name,
        "algorithm": config.search.algorithm,
        "evaluations": evaluations,
        "seed": config.seed,
        "prompts": [
            [name, prompt_text(pair.positive), prompt_text(pair.negative)] for name, pair in pairs
        ],
        "label": list(dataset.label_measures),
        "label_bins": [list(cuts) for cuts in dataset.label_bins or ()],
        "margin": dataset.margin,
        "bins": list(dataset.bins),
    }


def _people(table: SubjectsConfig | None, plan: Plan) -> dict[str, Any]:
    """What a manifest says of subjects; nothing where there are none."""
    if table is None or plan.augmentations is None or plan.rows.subjects is None:
        return {}
    return {
        "subjects": int(plan.rows.subjects.max()) + 1,
        "subject_size": table.size,
        "distinct": table.distinct,
        "latents": len(plan.rows),
        "augmentations": len(plan.augmentations),
        "align": table.align,
    }


def _elite_rows(
    elites: Elites, config: RunConfig, rule: LabelRule, *, all_of_them: bool
) -> Labelled:
    return select_elites(
        elites,
        rule,
        count=len(elites) if all_of_them else config.dataset.images,
        bins=config.dataset.bins,
        ranges=config.ranges,
    )


def _sampled_rows(config: RunConfig, domain: Domain[Any], rule: LabelRule, tell: Tell) -> Labelled:
    """The first samples whose label is sure, of up to several times as many as are wanted.

    Latents are sampled part by part where all of them would take much memory.
    """
    key = keys.stream(keys.root(config.seed), "dataset")
    sample_key, score_key = jax.random.split(key)
    wanted, total = config.dataset.images, OVERSAMPLED * config.dataset.images
    at_once = min(total, max(1, SAMPLED_AT_ONCE // (BATCH * domain.latent_dim)) * BATCH)
    evaluate = jax.jit(functools.partial(domain.evaluate, state=domain.init_state()))
    chosen: list[tuple[np.ndarray, ...]] = []
    measured: list[np.ndarray] = []
    found = number = 0
    for start in range(0, total, at_once):
        if found >= wanted:
            break
        part_key = sample_key if at_once == total else jax.random.fold_in(sample_key, start)
        latents = np.asarray(domain.sample(domain.params, part_key, min(at_once, total - start)))
        for batch, count in batches(latents, batch_size(total)):
            if found >= wanted:
                break
            if number % _TOLD_EACH == 0 and number:
                tell(
                    f"samples: {number * BATCH:,} scored, {found:,} of {wanted:,} sure labels found"
                )
            key = jax.random.fold_in(score_key, number)
            number += 1
            scores = evaluate(domain.params, latents=batch, key=key)
            objectives, measures = (
                np.asarray(scores.fitnesses)[:count],
                np.asarray(scores.descriptors)[:count],
            )
            finite = np.isfinite(objectives) & np.isfinite(measures).all(axis=1)
            sure = finite & (rule.distances(measures) >= rule.margin)
            measured.append(measures[finite])
            rows = np.asarray(batch)[:count][sure]
            chosen.append((objectives[sure], measures[sure], rows))
            found += int(sure.sum())
    if not found:
        rule.sure(np.concatenate(measured))  # says that the margin is too large
    columns = [np.concatenate(parts)[:wanted] for parts in zip(*chosen, strict=True)]
    objectives, measures, latents = columns
    archive = archive_of(config)(jnp.zeros(1))
    samples = Elites(
        cells=np.asarray(archive.cell_of(jnp.asarray(measures))),
        objectives=objectives,
        thresholds=np.full(len(objectives), np.nan, np.float32),
        measures=measures,
        latents=latents,
    )
    return Labelled(samples, rule.labels(measures))


def _told(
    pictures: Iterator[np.ndarray], done: int, total: int, progress: Progress
) -> Iterator[np.ndarray]:
    for batch in pictures:
        yield batch
        done += len(batch)
        progress(done, total)
