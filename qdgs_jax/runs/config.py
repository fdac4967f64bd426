"""Run files: TOML in, a validated and frozen `RunConfig` out.

Everything a run depends on stands in one file, so that a run folder can repeat it. Mistakes are
reported before any work starts, one line each: the file, the field, the value and what is allowed.
"""

from __future__ import annotations

import math
import os
import shlex
import tomllib
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, TypeVar

import tomli_w
from pydantic import Field, Strict, ValidationError, ValidationInfo, field_validator

from qdgs_jax.algorithms import archive_settings
from qdgs_jax.box import check_resolution, checked_ranges
from qdgs_jax.files import write_atomically
from qdgs_jax.ports.readers.stand_ins import is_address, stand_in
from qdgs_jax.runs.audit_tables import AuditTables
from qdgs_jax.runs.config_errors import (
    contradict,
    did_you_mean,
    error_lines,
    is_recipe,
    refuse,
    toml_value,
)
from qdgs_jax.runs.dataset_table import DatasetConfig
from qdgs_jax.runs.experiment_tables import ExperimentTables
from qdgs_jax.runs.table import Table
from qdgs_jax.runs.tables import (
    BASELINE,
    ArchiveConfig,
    EvaluationConfig,
    ExternalDomain,
    FacesDomain,
    MeasureConfig,
    ObjectiveConfig,
    SearchConfig,
    ShapesDomain,
)
from qdgs_jax.runs.toml_faults import toml_fault

EMBEDDED = "embedded:"  # prefix of the names of weights that the package carries
MAX_CELLS = 2**31 - 1  # cells are indexed with int32
NO_ADDRESS = "an address, and nothing is downloaded: fetch it, then give its path"
LEARNING_RATE, THRESHOLD_MIN = 0.02, 0.0  # of archives that anneal, unless the file says otherwise

TableKind = TypeVar("TableKind", bound=Table)
DomainConfig = ShapesDomain | FacesDomain | ExternalDomain


class ConfigError(ValueError):
    """A run file that cannot be used; the message names file, field, value and what is allowed."""


class SearchTables(Table):
    """The part of a run that its experiments do not add to."""

    name: str = Field(min_length=1, description="a name")
    seed: int = Field(default=0, ge=0, lt=2**31)
    domain: DomainConfig = Field(discriminator="kind", description="a table [domain]")
    objective: ObjectiveConfig = Field(description="a table [objective]")
    measures: Annotated[tuple[MeasureConfig, ...], Strict(False), Field(min_length=1)] = Field(
        description="one table [[measures]] per measure"
    )
    archive: ArchiveConfig = Field(default=ArchiveConfig(), validate_default=True)
    search: SearchConfig = SearchConfig()
    evaluation: EvaluationConfig = EvaluationConfig()
    dataset: DatasetConfig = Field(description="a table [dataset]")
    audit: AuditTables | None = None

    @field_validator("measures")
    @classmethod
    def _measures_fit_together(
        cls, measures: tuple[MeasureConfig, ...]
    ) -> tuple[MeasureConfig, ...]:
        twice = [name for name, n in Counter(m.name for m in measures).items() if n > 1]
        if twice:
            raise refuse(
                "two measures are named {name}: names must differ", name=toml_value(twice[0])
            )
        return measures

    @field_validator("archive")
    @classmethod
    def _cells_fit_into_a_grid(cls, archive: ArchiveConfig, info: ValidationInfo) -> ArchiveConfig:
        cells = math.prod(m.cells for m in info.data.get("measures", ()))
        if archive.cvt_cells is None and cells > MAX_CELLS:
            raise contradict(
                "measures: their cells multiply to {cells}: at most {limit} fit; give fewer, or "
                "cells around centroids by archive.cvt_cells",
                cells=cells,
                limit=MAX_CELLS,
            )
        _check_box(info.data.get("measures", ()), archive)
        return archive

    @field_validator("search")
    @classmethod
    def _algorithm_fits_archive(cls, search: SearchConfig, info: ValidationInfo) -> SearchConfig:
        archive = info.data.get("archive")
        if archive is not None:
            _check_archive(archive, search.algorithm)
        return search

    @field_validator("dataset")
    @classmethod
    def _dataset_fits_measures(cls, dataset: DatasetConfig, info: ValidationInfo) -> DatasetConfig:
        measures = info.data.get("measures")
        if measures is not None:
            _check_dataset(dataset, [m.name for m in measures])
        return dataset


class RunConfig(ExperimentTables, SearchTables):
    """A whole run, as its run file describes it."""

    @property
    def dims(self) -> tuple[int, ...]:
        """Cells per measure."""
        return tuple(m.cells for m in self.measures)

    @property
    def ranges(self) -> tuple[tuple[float, float], ...]:
        """(low, high) per measure."""
        return tuple(m.range for m in self.measures)

    @property
    def grid(self) -> dict[str, Any]:
        """Settings of the archive: what the file says, else what the algorithm is meant for."""
        return {
            "dims": self.dims,
            "ranges": self.ranges,
            **_meant_for(self.archive, self.search.algorithm),
            "qd_score_offset": self.archive.qd_score_offset,
            "dtype": self.archive.dtype,
        }


def parse_run(text: str, source: str = "run file") -> RunConfig:
    """Validate the text of a run file.

    Args:
        text: TOML.
        source: what errors call the file.

    Raises:
        ConfigError: one line for each thing that is wrong.
    """
    try:
        table = tomllib.loads(text.removeprefix("\ufeff"))  # as some editors begin a file
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{source}: not valid TOML: {toml_fault(text, error)}") from None
    if is_recipe(table):
        raise ConfigError(
            f"{source}: is a recipe of `qdgs train DATA --config`, not a run file; "
            "`qdgs init shapes FILE` writes one to start from"
        )
    try:
        return RunConfig.model_validate(table)
    except ValidationError as error:
        lines = error_lines(error, RunConfig)
        raise ConfigError("\n".join(f"{source}: {line}" for line in lines)) from None


def read_run_file(path: str | os.PathLike[str], *, sizes_alone: bool = False) -> RunConfig:
    """Read a run file.

    Folders named in it are relative to the file; they come back absolute, so that the run can be
    used from anywhere. `write_run_file` makes them relative again.

    Args:
        path: the file.
        sizes_alone: whether folders may be missing, for a run whose weights are not read.

    Raises:
        ConfigError: the file does not exist, is not text, or is not a valid run.
    """
    file = Path(path)
    try:
        text = file.read_text(encoding="utf-8")
    except FileNotFoundError:
        if is_address(file):
            raise ConfigError(f"{file}: {NO_ADDRESS}") from None
        raise ConfigError(
            f"{file}: no such run file; `qdgs init shapes {shlex.quote(str(file))}` writes one to "
            "start from"
        ) from None
    except IsADirectoryError:
        raise ConfigError(
            f"{file}: is a folder, not a run file; a run folder's is run.toml in it, and "
            "`qdgs search --resume` goes on with the folder"
        ) from None
    except UnicodeDecodeError:
        raise ConfigError(f"{file}: not a text file in UTF-8") from None
    if text and (found := stand_in(text.encode(), len(text))) is not None:
        raise ConfigError(f"{file}: {found}")
    config = parse_run(text, str(file))
    resolved = resolve_folders(config, file.parent)
    given = _folders(config)
    for field, folder in _folders(resolved).items():
        if not (sizes_alone or Path(folder).is_dir()):
            named = f"{file}: {'.'.join(field)} = {toml_value(given[field])}"
            if is_address(given[field]):
                raise ConfigError(f"{named}: {NO_ADDRESS}")
            raise ConfigError(
                f"{named}: no folder {folder}; give one that `qdgs port` wrote, or {EMBEDDED}NAME"
            )
    return resolved


def resolve_folders(config: RunConfig, base: Path) -> RunConfig:
    """Make the folders of weights absolute, which were relative to a folder."""
    found = {
        field: os.path.abspath(base / value)  # noqa: PTH100 (keeps links)
        for field, value in _folders(config).items()
    }
    return _with_folders(config, found)


def write_run_file(config: RunConfig, path: str | os.PathLike[str]) -> None:
    """Write the resolved run file, every field spelled out; it appears by atomic rename.

    Folders of weights become relative to the file where they share a folder below the root with
    it, so that both can be moved together.
    """
    file = Path(path)
    base = os.path.abspath(file.parent)  # noqa: PTH100 (keeps links)
    found = {field: _relative(folder, base) for field, folder in _folders(config).items()}
    config = _with_folders(config, found)
    write_atomically(file, run_to_toml(config).encode())


def run_to_toml(config: RunConfig) -> str:
    """Write a run as TOML, every field spelled out; `parse_run` reads it back."""
    return tomli_w.dumps(config.model_dump(exclude_none=True))


def baseline_of(config: RunConfig) -> RunConfig:
    """Describe the random sampling that a run is compared with.

    All is the same but the algorithm and, with it, the thresholds of the archive, which sampling
    does not follow.
    """
    search = config.search.model_copy(update={"algorithm": BASELINE, "bounds": None})
    kept = config.archive.model_dump(include={"qd_score_offset", "cvt_cells", "dtype"})
    archive = ArchiveConfig(**kept)
    return config.model_copy(update={"search": search, "archive": archive})


def _folders(config: RunConfig) -> dict[tuple[str, ...], str]:
    """The fields that name a folder of weights, and what they say."""
    external = isinstance(config.domain, ExternalDomain)
    fields = ("folder", "clip") if external else ("generator", "clip")
    named: dict[tuple[str, ...], str] = {
        ("domain", field): str(getattr(config.domain, field)) for field in fields
    }
    subjects = config.dataset.subjects
    if subjects is not None and subjects.augmentations is not None:
        named["dataset", "subjects", "augmentations"] = subjects.augmentations
    return {field: name for field, name in named.items() if not name.startswith(EMBEDDED)}


def _with_folders(config: RunConfig, folders: Mapping[tuple[str, ...], str]) -> RunConfig:
    """The run with other values of the fields that name folders."""
    for path, folder in folders.items():
        config = _replaced(config, path, folder)
    return config


def _replaced(table: TableKind, path: Sequence[str], value: object) -> TableKind:
    """A table with another value of a field in it or in a table below."""
    field, *rest = path
    inner = _replaced(getattr(table, field), rest, value) if rest else value
    return table.model_copy(update={field: inner})


def _relative(folder: str, base: str) -> str:
    try:
        shared = os.path.commonpath([folder, base])
    except ValueError:  # on another drive, or not absolute
        return folder
    return folder if shared == Path(shared).anchor else os.path.relpath(folder, base)


def _meant_for(archive: ArchiveConfig, algorithm: str) -> dict[str, float]:
    rate, start = archive.learning_rate, archive.threshold_min
    return archive_settings(
        algorithm,
        LEARNING_RATE if rate is None else rate,
        THRESHOLD_MIN if start is None else start,
    )


def _check_box(measures: Sequence[MeasureConfig], archive: ArchiveConfig) -> None:
    """Refuse ranges, or cells of a grid, that float32 cannot tell apart."""
    try:
        box = checked_ranges([m.range for m in measures])
        if archive.cvt_cells is None:
            check_resolution(tuple(m.cells for m in measures), box)
    except ValueError as error:
        raise contradict("measures: {why}", why=str(error).removesuffix(".")) from None


def _check_archive(archive: ArchiveConfig, algorithm: str) -> None:
    """Refuse settings of the archive that are not those the algorithm works on."""
    meant = _meant_for(archive, algorithm)
    for field, value in meant.items():
        given = getattr(archive, field)
        if given is not None and given != value:
            raise contradict(
                "archive.{field} = {given} contradicts search.algorithm = {algorithm}, which works "
                "on an archive with learning_rate = {rate} and threshold_min = {start}: leave the "
                "field out, or choose an algorithm that anneals, such as {other}",
                field=field,
                given=toml_value(given),
                algorithm=toml_value(algorithm),
                rate=toml_value(meant["learning_rate"]),
                start=toml_value(meant["threshold_min"]),
                other=toml_value("cma_maega"),
            )
    if meant["threshold_min"] == -math.inf and meant["learning_rate"] != 1.0:
        raise contradict(
            "archive.learning_rate = {rate} with threshold_min = -inf: only learning_rate = 1.0 "
            "can start from -inf, so give a finite threshold_min",
            rate=meant["learning_rate"],
        )


def _check_dataset(dataset: DatasetConfig, names: list[str]) -> None:
    """Refuse a data set that does not fit the names of the measures."""
    for label in dataset.label_measures:
        if label not in names:
            raise refuse(
                "label = {label} names no measure{hint}; the measures are {names}",
                label=toml_value(label),
                hint=did_you_mean(label, names),
                names=", ".join(map(toml_value, names)),
            )
    if len(set(dataset.label_measures)) != len(dataset.label_measures):
        raise refuse("label = {label} names a measure twice", label=toml_value(dataset.label))
    cuts, wanted = dataset.label_bins, len(dataset.label_measures)
    if cuts is not None and len(cuts) != wanted:
        raise refuse(
            "label_bins = {cuts} has {got} entries for {want} label measures: give a list of cut "
            "points for each",
            cuts=toml_value(cuts),
            got=len(cuts),
            want=wanted,
        )
    if len(dataset.bins) != len(names):
        raise refuse(
            "bins = {bins} has {got} entries for {want} measures: give one count per measure",
            bins=str(list(dataset.bins)),
            got=len(dataset.bins),
            want=len(names),
        )
