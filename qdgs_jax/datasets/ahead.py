"""What the data sets of a run will need, looked at before its search.

Whatever follows from the run file, the generator and folders alone is refused or told here, rather
than by `qdgs generate` when hours of searching are over.
"""

from __future__ import annotations

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from qdgs_jax.datasets.align import fit
from qdgs_jax.datasets.augment import augmentations_of
from qdgs_jax.datasets.balance import measure_balance
from qdgs_jax.datasets.labels import LabelRule, label_rule
from qdgs_jax.datasets.selection import Labelled
from qdgs_jax.domains.protocol import Domain
from qdgs_jax.elites import Elites
from qdgs_jax.runs.config import RunConfig


def check_data_set(config: RunConfig, domain: Domain[Any]) -> list[str]:
    """Refuse a run whose data sets cannot be made.

    Args:
        config: the run.
        domain: its generator and CLIP.

    Returns:
        What its data sets will lack, in sentences.

    Raises:
        CheckpointError: the folder of augmentations is none.
        ValueError: augmentations are of another generator, or pictures cannot be aligned.
    """
    rule = label_rule(config)
    augmentations_of(config, domain.latent_dim)
    if config.dataset.subjects is not None:
        picture_side(config, domain)
    return [*_classes_beyond(config, rule), *_shortages(config, rule)]


def picture_side(config: RunConfig, domain: Domain[Any]) -> int:
    """Pixels of the shorter side of the pictures in a run's data sets; none is drawn.

    Raises:
        ValueError: they cannot be aligned.
    """
    latents = jax.ShapeDtypeStruct((1, domain.latent_dim), jnp.float32)  # type: ignore[no-untyped-call]
    pictures = jax.eval_shape(domain.pictures, domain.params, latents)
    table = config.dataset.subjects
    if table is not None:
        shown = functools.partial(fit, align=table.align, side=table.side)
        pictures = jax.eval_shape(shown, pictures)
    return min(pictures.shape[1:3])


def _classes_beyond(config: RunConfig, rule: LabelRule) -> list[str]:
    """Which classes lie where the archive has no cells of their own."""
    told: dict[str, None] = {}
    for label in range(len(rule.names)):
        for measure, (low, high) in rule.intervals(label).items():
            axis = config.measures[measure]
            first, last = axis.range
            if min(high, last) > max(low, first):
                continue
            where = f"from {low:g}" if high == math.inf else f"below {high:g}"
            if math.isfinite(low) and math.isfinite(high):
                where = f"from {low:g} to {high:g}"
            told[
                f"classes of {axis.name!r} {where} lie beyond its range [{first:g}, {last:g}], for "
                "which the archive has its outermost cells alone: expect few images of them or "
                "none; cut inside the range (label_bins, margin), or search a wider one"
            ] = None
    return list(told)


def _shortages(config: RunConfig, rule: LabelRule) -> list[str]:
    """Why a data set cannot have as many images as are asked for, or classes of one size."""
    dataset = config.dataset
    cells = config.archive.cvt_cells or math.prod(config.dims)
    found = []
    if dataset.images > cells:
        found.append(
            f"dataset.images = {dataset.images:,} is more than the {cells:,} cells of the archive, "
            "each of which keeps one elite: ask for fewer images, or search with more cells"
        )
    empty = np.zeros((0, 0), np.float32)
    none = Elites(
        cells=np.zeros(0, np.int32),
        objectives=np.zeros(0, np.float32),
        thresholds=np.zeros(0, np.float32),
        measures=np.zeros((0, len(config.measures)), np.float32),
        latents=empty,
    )
    balance = measure_balance(config, rule, Labelled(none, np.zeros(0, np.int64)))
    if len(balance.groups) > dataset.images:
        found.append(
            f"dataset.images = {dataset.images:,} is less than the {len(balance.groups):,} groups "
            f"of classes and bins: {balance.cure}"
        )
    if balance.uneven is not None:
        found.append(balance.uneven)
    return found
