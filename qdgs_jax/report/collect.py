"""From a run folder to what its report shows."""

from __future__ import annotations

import importlib.metadata
import itertools
import platform
from pathlib import Path
from typing import Any

import numpy as np

from qdgs_jax.experiments.shapes_repair import Groups, load_groups, load_repair
from qdgs_jax.report.atlas import choose, sprite
from qdgs_jax.report.contents import Accuracy, Arm, Atlas, MeasureAxis, ReportData
from qdgs_jax.runs.config import RunConfig
from qdgs_jax.runs.folder import BASELINE, RunFolder

PACKAGES = ("qdgs-jax", "jax", "jaxlib", "flax", "qdax", "numpy")
ARM_NAMES = {"none": "No repair", "rand": "Random sampling", "qdgs": "QDGS"}
MAX_ATLASES = 6  # of pairs of measures


def collect(run_dir: Path, domain: Any | None = None) -> ReportData:
    """Read a finished run, and its baseline if there is one.

    Args:
        run_dir: the run folder.
        domain: its `PromptedDomain`, if it is loaded already.

    Raises:
        ValueError: the folder holds no finished run.
    """
    folder = RunFolder(run_dir)
    folder.check_finished()
    config = folder.config()
    groups = load_groups(folder)
    arms = [_arm("qdgs", folder, groups)]
    if folder.baseline.finished:
        arms.append(_arm("rand", folder.baseline, groups))
    return ReportData(
        name=config.name,
        measures=_measures(config),
        arms=tuple(arms),
        run_file=folder.run_file.read_text(encoding="utf-8"),
        versions=_versions(),
        atlases=_atlases(folder, config, domain),
        accuracy=_accuracy(folder),
    )


def _measures(config: RunConfig) -> tuple[MeasureAxis, ...]:
    return tuple(
        MeasureAxis(m.name, *m.range, m.cells, " | ".join(m.positive), " | ".join(m.negative))
        for m in config.measures
    )


def _arm(key: str, folder: RunFolder, groups: Groups | None) -> Arm:
    from qdgs_jax.datasets.shards import MANIFEST, read_rows
    from qdgs_jax.train.shapes.repair import GROUPS

    seen = groups.shares.get(key, {}) if groups else {}
    rows = folder.read_metrics()
    elites = folder.elites()
    algorithm = folder.config().search.algorithm
    return Arm(
        name=ARM_NAMES["rand" if algorithm == BASELINE else key],
        algorithm=algorithm,
        cells=elites.cells,
        objectives=elites.objectives,
        evaluations=np.array([row["evaluations"] for row in rows]),
        qd_scores=np.array([row["qd_score"] for row in rows]),
        coverages=np.array([row["coverage"] for row in rows]),
        seconds=rows[-1]["seconds"] if rows else 0.0,
        dataset_measures=(
            read_rows(folder.data).measures if (folder.data / MANIFEST).is_file() else None
        ),
        shares={name: seen[name] for name in GROUPS} if seen else None,
        unclear=seen.get("unclear", 0.0),
    )


def _atlases(folder: RunFolder, config: RunConfig, domain: Any | None) -> tuple[Atlas, ...]:
    from qdgs_jax.datasets.generate import decoded

    if domain is None:
        from qdgs_jax.domains import load_domain

        domain = load_domain(config)
    elites = folder.elites()
    pairs = itertools.combinations(range(len(config.measures)), 2)
    made = []
    for pair in itertools.islice(pairs, MAX_ATLASES):
        rows, places, size = choose(elites.cells, elites.objectives, config.dims, pair)
        images = np.concatenate(list(decoded(domain, elites.latents[rows])))
        made.append(sprite(images, places, size, pair))
    return tuple(made)


def _accuracy(folder: RunFolder) -> Accuracy | None:
    from qdgs_jax.train.shapes.repair import ARMS

    result = load_repair(folder)
    if result is None:
        return None
    return Accuracy(
        biases=result.biases,
        arms=tuple(ARM_NAMES[arm] for arm in ARMS),
        mean=np.stack([result.mean(arm) for arm in ARMS], axis=1),
        standard_error=np.stack([result.standard_error(arm) for arm in ARMS], axis=1),
        seeds=result.accuracy[ARMS[0]].shape[1],
    )


def _versions() -> dict[str, str]:
    import jax

    versions = {name: importlib.metadata.version(name) for name in PACKAGES}
    device = jax.devices()[0]
    return {**versions, "Python": platform.python_version(), "device": device.device_kind}
