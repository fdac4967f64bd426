"""From a run folder to what its report shows. Nothing is computed again and no weights are read."""

from __future__ import annotations

import dataclasses
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from urllib.parse import quote

import numpy as np

from qdgs_jax.datasets.audit import FOLDER, Audit, read_audit
from qdgs_jax.datasets.labels import prompt_text
from qdgs_jax.datasets.manifest import MANIFEST, read_manifest, unlike, written_anew
from qdgs_jax.datasets.shards import read_rows
from qdgs_jax.datasets.thumbnails import places_on_map, read_thumbnails
from qdgs_jax.experiments import experiments_of, freshness
from qdgs_jax.experiments.audit_section import audit_section
from qdgs_jax.experiments.protocol import Section, arm_names
from qdgs_jax.report.atlas import atlases
from qdgs_jax.report.contents import Arm, Link, MeasureAxis, ReportData
from qdgs_jax.runs.config import RunConfig
from qdgs_jax.runs.folder import RunFolder
from qdgs_jax.runs.provenance import Provenance, read_provenance


def collect(run_dir: Path) -> ReportData:
    """Read a finished run, and its baseline if that is finished too.

    Args:
        run_dir: the run folder.

    Raises:
        ValueError: the folder holds no finished run, or a file is damaged.
    """
    folder = RunFolder(run_dir)
    folder.check_finished()
    config = folder.config()
    names = arm_names(folder)
    arms = [_arm(names["run"], folder, folder.path)]
    if folder.baseline.finished:
        arms.append(_arm(names["baseline"], folder.baseline, folder.path))
        differ = unlike(folder.data, folder.baseline.data)
        if differ is not None:
            arms[1] = dataclasses.replace(arms[1], notes=(*arms[1].notes, differ))
    return ReportData(
        name=config.name,
        measures=_measures(config),
        arms=tuple(arms),
        run_file=folder.run_file.read_text(encoding="utf-8"),
        provenance=made_with(folder, names),
        atlases=atlases(arms[0].elites, config.dims, arms[0].pictures),
        sections=sections_of(folder, config, names),
        qd_score_offset=config.archive.qd_score_offset,
    )


def _measures(config: RunConfig) -> tuple[MeasureAxis, ...]:
    return tuple(
        MeasureAxis(m.name, *m.range, m.cells, prompt_text(m.positive), prompt_text(m.negative))
        for m in config.measures
    )


def _arm(name: str, folder: RunFolder, root: Path) -> Arm:
    rows = folder.read_metrics()
    generated = (folder.data / MANIFEST).is_file()
    manifest = read_manifest(folder.data) if generated else None
    config, elites = folder.config(), folder.elites()
    rows_shown, places = places_on_map(elites, config)
    own = dict(zip(places.tolist(), elites.cells[rows_shown].tolist(), strict=True))
    cells = config.archive.cvt_cells
    return Arm(
        name=name,
        elites=dataclasses.replace(elites.take(rows_shown), cells=places),
        occupied=None if cells is None else (len(elites), cells),
        own_cells=None if cells is None else own,
        evaluations=np.array([row["evaluations"] for row in rows]),
        qd_scores=np.array([row["qd_score"] for row in rows]),
        coverages=np.array([row["coverage"] for row in rows]),
        seconds=rows[-1]["seconds"] if rows else 0.0,
        data=read_rows(folder.data) if generated else None,
        balance=manifest.balance if manifest else None,
        notes=manifest.notes if manifest else (),
        pictures=read_thumbnails(folder.thumbnails_file) or {},
        files=links(folder, root, [shard.file for shard in manifest.shards] if manifest else []),
    )


def links(folder: RunFolder, root: Path, shards: Sequence[str]) -> tuple[Link, ...]:
    """The files of a run that are there, as seen from its report.

    Args:
        folder: of the run or of its baseline.
        root: the run's folder, in which the report has a folder of its own.
        shards: names of the data set's files.
    """
    data = [folder.data / name for name in (*shards, MANIFEST, "README.md")]
    wanted = [folder.archive_file, folder.metrics_file, folder.run_file, *data]
    found = [path for path in wanted if path.is_file()]
    names = [path.relative_to(root).as_posix() for path in found]
    return tuple(
        Link(name, f"../{quote(name)}", path.stat().st_size)
        for name, path in zip(names, found, strict=True)
    )


def made_with(folder: RunFolder, names: Mapping[str, str]) -> dict[str, str]:
    """What the run was made with, and its baseline where that differs, as they kept it."""
    kept = read_provenance(folder.path)
    if kept is None:
        return {}
    own = _machines(kept)
    beside = read_provenance(folder.baseline.path) if "baseline" in names else None
    others = {} if beside is None else _machines(beside)
    differ = {
        f"{name} of {names['baseline']}": value
        for name, value in others.items()
        if value != own.get(name)
    }
    return {
        **own,
        **differ,
        "seed": str(kept.seed),
        "command": " ".join(kept.command),
        "started": kept.started,
        "finished": kept.finished or "",
        "seconds": f"{kept.wall_seconds:,.0f}",
    }


def _machines(kept: Provenance) -> dict[str, str]:
    """Versions, platform and device by name; of a run that was gone on with elsewhere, all."""
    tables = [
        {
            **stint.versions,
            "platform": stint.platform,
            "device": f"{stint.device_count} x {stint.device}",
        }
        for stint in kept.stints
    ]
    fields = dict.fromkeys(name for table in tables for name in table)
    return {
        name: ", then ".join(dict.fromkeys(table[name] for table in tables if name in table))
        for name in fields
    }


def sections_of(
    folder: RunFolder, config: RunConfig, names: Mapping[str, str]
) -> tuple[Section, ...]:
    """What experiments and an audit of a run have to show, as far as they were made.

    Raises:
        ValueError: a file is damaged.
    """
    found = []
    for experiment in experiments_of(config):
        result = experiment.results(folder)
        if result is not None:
            section = experiment.section(result, names)
            stale = freshness.written_anew(folder, experiment.name)
            found.append(_of_former_data(section, [names[arm] for arm in stale], folder))
    audit = read_audit(folder.path / FOLDER)
    if audit is not None:
        found.append(audit_section(audit, _written_anew(audit)))
    return tuple(found)


def _of_former_data(section: Section, stale: Sequence[str], folder: RunFolder) -> Section:
    """A section of results, without figures for the head where data sets were written anew."""
    if not stale:
        return section
    command = f"qdgs train {shlex.quote(str(folder.path))}"
    told = " ".join(f"The data set of {name} was written anew after this." for name in stale)
    words = f"{section.words} {told} `{command}` makes the experiment again."
    return dataclasses.replace(section, words=words, cards=())


def _written_anew(audit: Audit) -> list[str]:
    """Names of the data sets whose manifest is another one than the audit saw."""
    return [
        each.name
        for each in audit.data_sets
        if each.digest and written_anew(Path(each.path) / MANIFEST, each.digest)
    ]
