"""Which data sets an audit looks at, and what it counts there: all that can be refused is here.

No weights are loaded and no image but the first of foreign data sets is decoded.
"""

from __future__ import annotations

import dataclasses
import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path

from qdgs_jax.datasets.audit import FOLDER, PAPER
from qdgs_jax.datasets.manifest import MANIFEST, ShardError, read_manifest, shards_folder
from qdgs_jax.datasets.pictures import PictureSet, open_pictures
from qdgs_jax.domains.faces_oracle import GROUPS
from qdgs_jax.experiments.protocol import ExperimentError, arm_names
from qdgs_jax.runs.config import RunConfig, read_run_file
from qdgs_jax.runs.folder import RunFolder
from qdgs_jax.runs.provenance import check_weights
from qdgs_jax.runs.tables import BASELINE

CLIP, ORACLE, COLUMN = "CLIP", "oracle", "column"  # who tells groups


@dataclasses.dataclass(frozen=True)
class Place:
    """A data set to look at: how it is called, its role in the report, its pictures."""

    name: str
    role: str
    pictures: PictureSet


@dataclasses.dataclass(frozen=True)
class Plan:
    """What an audit will look at; see `plan_audit`.

    Attributes:
        config: the run whose CLIP, groups and measures are used.
        places: the data sets, the audited one first.
        columns: of classes, to be counted.
        cross: attributes whose product is counted; () for none.
        judge: name of an oracle's weights, or None.
        paper: whether published shares stand beside.
        target: folder for the results; None where they are not kept.
        hints: what would make the audit more useful, in sentences.
    """

    config: RunConfig
    places: tuple[Place, ...]
    columns: tuple[str, ...] = ()
    cross: tuple[str, ...] = ()
    judge: str | None = None
    paper: bool = False
    target: Path | None = None
    hints: tuple[str, ...] = ()

    @property
    def images(self) -> int:
        """Images in all data sets."""
        return sum(place.pictures.count for place in self.places)


def plan_audit(
    shards: Path,
    against: Sequence[Path] = (),
    *,
    run: Path | None = None,
    out: Path | None = None,
    columns: Sequence[str] = (),
    cross: Sequence[str] | None = None,
    judge: str | None = None,
    paper: bool = False,
) -> Plan:
    """Find the data sets, and refuse what cannot be audited, before any weights are loaded.

    Args:
        shards: a run folder, or a data set.
        against: further ones, or folders of Parquet files with images.
        run: a run folder or run file; None for the one that the data set belongs to.
        out: folder for the results; None for `FOLDER` in the run's folder.
        columns: of classes, to be counted.
        cross: attributes whose product is counted; None for those of the label measures.
        judge: `embedded:NAME` or the folder of an oracle.
        paper: whether published shares stand beside.

    Raises:
        ExperimentError: the run or something to count is missing, or a data set is given twice.
        ShardError: there is no data set, or its images cannot be compared.
        RunFolderError: the search is not finished.
        ValueError: the run was searched with other weights.
    """
    owner = _owner(shards)
    config, folder = _run(shards, run, owner)
    own = owner is not None and folder is not None and _same(owner.path, folder.path)
    places = _places(shards, against, folder, own)
    _check_sizes(places)
    for column in columns:
        places[0].pictures.class_names(column)
    if not (config.audit or columns or judge):
        raise ExperimentError(
            f"nothing says which groups to count: {run or (folder or RunFolder(shards)).run_file} "
            "has no table [audit]. Add one, such as [audit.skin], or give --column label or "
            "--judge FOLDER."
        )
    plan = Plan(
        config,
        places,
        columns=tuple(dict.fromkeys(columns)),
        judge=judge,
        paper=paper,
        target=out or (folder.path / FOLDER if own and folder else None),
        hints=(*_without_random(folder, places), *_aligned_otherwise(places, judge)),
    )
    if paper and not _is_published(plan):
        raise ExperimentError(
            "--paper has the shares of skin (light, mixed, dark) and of age (young, old), which "
            "nobody tells here: leave it out, or add a table [audit.skin] or [audit.age] with "
            "these groups."
        )
    return dataclasses.replace(plan, cross=_crossed(plan, cross))


def _owner(shards: Path) -> RunFolder | None:
    """The run that a data set, or the folder itself, belongs to."""
    if RunFolder(shards).exists:
        return RunFolder(shards)
    place = shards_folder(shards)
    folder = RunFolder(place.parent if place.is_dir() else shards)
    return folder if folder.exists and _same(folder.data, place) else None


def _run(
    shards: Path, run: Path | None, owner: RunFolder | None
) -> tuple[RunConfig, RunFolder | None]:
    if run is not None and run.is_file():
        return read_run_file(run), None
    folder = owner if run is None else RunFolder(run)
    if folder is None:
        open_pictures(shards)  # says what is wrong with the folder itself
        raise ExperimentError(
            f"{shards} belongs to no run, whose CLIP, groups and measures are needed: name one "
            "with --run, a run folder or a run file."
        )
    folder.check_finished()
    config = folder.config()
    check_weights(folder.path, config.domain)
    return config, folder


def _places(
    shards: Path, against: Sequence[Path], folder: RunFolder | None, own: bool
) -> tuple[Place, ...]:
    names = arm_names(folder) if folder is not None else {}
    first = _data_of(shards)
    found = [Place(names["run"] if own else _name(shards), "run", open_pictures(first))]
    if folder is not None and (folder.baseline.data / MANIFEST).is_file():
        pictures = open_pictures(folder.baseline.data)
        if not _same(pictures.folder, found[0].pictures.folder):
            found.append(Place(names["baseline"], "baseline", pictures))
    beside = {place.pictures.folder.resolve() for place in found[1:]}
    for other in against:
        pictures = open_pictures(_data_of(other))
        place = pictures.folder.resolve()
        if _same(place, found[0].pictures.folder):
            raise ExperimentError(f"--against {other} is {shards} itself: give another data set.")
        if place in beside:
            continue  # a run's baseline, which stands there already, or the same again
        beside.add(place)
        taken = {each.name for each in found}
        name = _name(other)
        found.append(Place(str(other) if name in taken else name, "none", pictures))
    return tuple(found)


def _data_of(path: Path) -> Path:
    """A data set's folder; of a run folder that of its data set.

    Raises:
        RunFolderError, ShardError: the run is not finished, or has no data set.
    """
    run = RunFolder(path)
    if not run.exists:
        return path
    run.check_finished()
    if not (run.data / MANIFEST).is_file():
        command = f"qdgs generate {shlex.quote(str(path))}"
        raise ShardError(f"{run.data} holds no data set: write it with `{command}`.")
    return run.data


def _name(path: Path) -> str:
    whole = path.resolve()
    return whole.parent.name if whole.name == "data" else whole.name


def _same(one: Path, other: Path) -> bool:
    return one.resolve() == other.resolve()


def _check_sizes(places: Sequence[Place]) -> None:
    height, width = places[0].pictures.size
    for place in places[1:]:
        tall, wide = place.pictures.size
        if wide < width or wide * height != tall * width:
            raise ShardError(
                f"the images of {place.pictures.folder} have {wide} x {tall} pixels, those of "
                f"{places[0].pictures.folder} {width} x {height}: give images of the same shape "
                "and at least that size, which are averaged down to it."
            )


def _told(plan: Plan) -> dict[str, tuple[str, ...]]:
    """Names of the attributes, by who tells them."""
    told = {CLIP: tuple(plan.config.audit or ()), COLUMN: plan.columns}
    return told if plan.judge is None else {**told, ORACLE: tuple(GROUPS)}


def _is_published(plan: Plan) -> bool:
    told = [(name, set(groups)) for name, groups in (plan.config.audit or {}).items()]
    told += [(name, set(groups)) for name, groups in GROUPS.items()] if plan.judge else []
    published = {name: set(groups) for name, groups in PAPER[0].shares.items()}
    return any(published.get(name, set()) & groups for name, groups in told)


def _crossed(plan: Plan, cross: Sequence[str] | None) -> tuple[str, ...]:
    """The attributes whose product is counted.

    Raises:
        ExperimentError: it was asked for, and nobody tells them.
    """
    wanted = plan.config.dataset.label_measures if cross is None else tuple(cross)
    told = _told(plan)
    known = len(set(wanted)) == len(wanted) >= 2 and any(
        set(wanted) <= set(names) for names in told.values()
    )
    if cross is not None and not known:
        names = "; ".join(f"{by}: {', '.join(each)}" for by, each in told.items() if each)
        raise ExperimentError(
            f"--cross {','.join(cross)}: give two attributes or more, each once, that the same "
            f"judge tells. Here are {names}."
        )
    return tuple(wanted) if known else ()


def _aligned_otherwise(places: Sequence[Place], judge: str | None) -> Iterator[str]:
    """Which faces are cropped for recognition where others, or a judge's, are not."""
    aligned = [place for place in places if _align_of(place.pictures) == "arcface"]
    if not aligned or (judge is None and len(aligned) == len(places)):
        return
    names = " and ".join(place.name for place in aligned)
    others = "other data sets" if judge is None else "faces in FFHQ's alignment, as the judge knows"
    yield (
        f"the faces of {names} were aligned for recognition and are cropped otherwise than "
        f"{others}: their shares cannot be compared; `qdgs generate RUN --plain --out FOLDER` "
        "draws them as they are"
    )


def _align_of(pictures: PictureSet) -> object:
    """How a data set of ours was aligned; None of others."""
    return None if pictures.digest is None else read_manifest(pictures.folder).source.get("align")


def _without_random(folder: RunFolder | None, places: Sequence[Place]) -> Iterator[str]:
    """How to get the random sampling that a run's data set is not compared with."""
    if folder is None or any(place.role == "baseline" for place in places):
        return
    command = f"`qdgs generate {shlex.quote(str(folder.path))}`"
    if folder.baseline.finished:
        yield f"random sampling has no data set to compare with: {command} writes it"
    elif folder.config().search.algorithm != BASELINE:
        yield (
            "there is no random sampling to compare with: "
            f"`{folder.resume_command} --baseline`, then {command}"
        )
