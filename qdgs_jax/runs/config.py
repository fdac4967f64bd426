"""Run files: TOML in, a validated and frozen `RunConfig` out.

Everything a run depends on stands in one file, so that a run folder can repeat it. Mistakes are
reported before any work starts, one line each: the file, the field, the value and what is allowed.
"""

from __future__ import annotations

import math
import os
import tomllib
from collections import Counter
from pathlib import Path
from typing import Annotated, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    Strict,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic import NonNegativeFloat as NonNegative
from pydantic import PositiveFloat as Positive
from pydantic import PositiveInt as Count

from qdgs_jax.files import write_atomically
from qdgs_jax.runs.config_errors import did_you_mean, error_lines, refuse
from qdgs_jax.runs.toml_text import to_toml, toml_value

EMBEDDED = "embedded:"  # prefix of the names of weights that the package carries
RESTARTS = ("basic", "no_improvement")
MAX_CELLS = 2**31 - 1  # cells are indexed with int32


class ConfigError(ValueError):
    """A run file that cannot be used; the message names file, field, value and what is allowed."""


class Table(BaseModel):
    """A table of the run file: immutable, no unknown fields, no silent conversion of types."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


class Prompts(Table):
    """A pair of prompts that spans an axis; each is one text or several separated by `|`."""

    positive: str = Field(description="a text, or several separated by |")
    negative: str = Field(description="a text, or several separated by |")

    @field_validator("positive", "negative")
    @classmethod
    def _no_empty_text(cls, prompt: str) -> str:
        from qdgs_jax.domains.scoring import split_prompt

        if not all(split_prompt(prompt)):
            raise refuse("must be a text, or several separated by |, none of them empty")
        return prompt


class DomainConfig(Table):
    """Which generator makes the images and which CLIP judges them.

    Attributes:
        kind: family of the generator.
        generator: `embedded:NAME`, or the folder of a ported checkpoint.
        clip: `embedded:NAME`, or the folder of a ported CLIP.
        cutouts: random cutouts scored per image; 0 scores the whole image.
    """

    kind: Literal["shapes"] = Field(description='"shapes"')
    generator: str = Field(min_length=1, description="embedded:NAME or a folder")
    clip: str = Field(min_length=1, description="embedded:NAME or a folder")
    cutouts: int = Field(default=0, ge=0)


class ObjectiveConfig(Prompts):
    """What a good image is: near the positive texts, far from the negative ones."""

    norm_penalty: NonNegative = 0.0
    uniqueness: NonNegative = 0.0


class MeasureConfig(Prompts):
    """An axis of diversity: small near the positive texts, large near the negative ones."""

    name: str = Field(min_length=1, description="a name")
    range: Annotated[tuple[float, float], Strict(False)] = Field(description="[low, high]")
    cells: Count = 50

    @field_validator("range", mode="before")
    @classmethod
    def _two_numbers(cls, bounds: object) -> object:
        if not isinstance(bounds, list | tuple) or len(bounds) != 2:
            raise refuse("must be [low, high], two numbers")
        return bounds

    @field_validator("range")
    @classmethod
    def _low_below_high(cls, bounds: tuple[float, float]) -> tuple[float, float]:
        if bounds[0] >= bounds[1]:
            raise refuse("must be [low, high] with low < high")
        return bounds


class ArchiveConfig(Table):
    """How the archive's thresholds anneal; (1, -inf) is MAP-Elites."""

    learning_rate: float = Field(default=0.02, ge=0.0, le=1.0)
    threshold_min: Annotated[float, Field(allow_inf_nan=True)] = 0.0
    qd_score_offset: float = 0.0

    @field_validator("threshold_min")
    @classmethod
    def _finite_or_minus_inf(cls, value: float) -> float:
        if math.isnan(value) or value == math.inf:
            raise refuse("must be a finite number or -inf")
        return value

    @model_validator(mode="after")
    def _annealing_needs_a_start(self) -> ArchiveConfig:
        if self.threshold_min == -math.inf and self.learning_rate != 1.0:
            raise refuse(
                "learning_rate = {rate} with threshold_min = -inf: only learning_rate = 1.0 can "
                "start from -inf, so give a finite threshold_min",
                rate=self.learning_rate,
            )
        return self


class SearchConfig(Table):
    """The algorithm, its budget and its settings (one step evaluates emitters x (1 + branches))."""

    algorithm: str = Field(default="cma_maega", description="the name of an algorithm")
    evaluations: Count = 20_000
    emitters: Count = 8
    branches: Count = 3
    sigma0: Positive = 0.5
    step_size: Positive = 0.5
    restart: Literal["basic", "no_improvement"] | int = "basic"
    normalization: Literal["none", "unit", "orthonormal"] = "unit"
    start_batches: Count = 32
    start_batch_size: Count = 16
    chunk: Count = 25

    @field_validator("algorithm")
    @classmethod
    def _known_algorithm(cls, name: str) -> str:
        from qdgs_jax.emitters.registry import ALGORITHMS

        if name not in ALGORITHMS:
            raise refuse(
                "unknown algorithm{hint}; known are {names}",
                hint=did_you_mean(name, ALGORITHMS),
                names=", ".join(map(toml_value, sorted(ALGORITHMS))),
            )
        return name

    @field_validator("restart", mode="before")
    @classmethod
    def _restart_rule(cls, rule: object) -> object:
        is_count = isinstance(rule, int) and not isinstance(rule, bool) and rule >= 1
        if not is_count and rule not in RESTARTS:
            raise refuse('must be "basic", "no_improvement" or a number of steps of at least 1')
        return rule

    @property
    def step_evaluations(self) -> int:
        """Evaluations of one step, the parents' own included."""
        return self.emitters * (1 + self.branches)


class DatasetConfig(Table):
    """How elites become a labelled data set."""

    images: Count = 1000
    label: str | tuple[str, ...] = Field(description="the name of a measure, or a list of names")
    label_bins: (
        Annotated[tuple[Annotated[tuple[float, ...], Strict(False)], ...], Strict(False)] | None
    ) = None
    margin: Annotated[float, Strict(False)] = Field(
        default=0.0, ge=0, allow_inf_nan=False, description="a distance of the label measure from 0"
    )
    bins: Annotated[tuple[Count, ...], Strict(False)] = Field(description="a count per measure")
    shard_size: Count = 500

    @field_validator("label", mode="before")
    @classmethod
    def _names(cls, label: object) -> object:
        return tuple(label) if isinstance(label, list) else label

    @property
    def label_measures(self) -> tuple[str, ...]:
        """Names of the measures that tell the label."""
        return (self.label,) if isinstance(self.label, str) else self.label


class ShapesRepairConfig(Table):
    """The classifiers that are trained on biased drawings and repaired with the data set."""

    image_size: int = Field(default=32, ge=8)
    biases: Annotated[
        tuple[Annotated[float, Field(ge=0.5, le=1.0)], ...], Strict(False), Field(min_length=1)
    ] = (0.98, 0.95, 0.90, 0.85, 0.80)
    seeds: Count = 5
    train_images: Count = 1000
    train_epochs: Count = 20
    repair_epochs: Count = 30
    test_images: Count = 5000


class RunConfig(Table):
    """A whole run, as its run file describes it."""

    name: str = Field(min_length=1, description="a name")
    seed: int = Field(default=0, ge=0, lt=2**31)
    domain: DomainConfig = Field(description="a table [domain]")
    objective: ObjectiveConfig = Field(description="a table [objective]")
    measures: Annotated[tuple[MeasureConfig, ...], Strict(False), Field(min_length=1)] = Field(
        description="one table [[measures]] per measure"
    )
    archive: ArchiveConfig = ArchiveConfig()
    search: SearchConfig = SearchConfig()
    dataset: DatasetConfig = Field(description="a table [dataset]")
    repair: ShapesRepairConfig | None = None

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
        cells = math.prod(m.cells for m in measures)
        if cells > MAX_CELLS:
            raise refuse(
                "their cells multiply to {cells}: at most {limit} fit", cells=cells, limit=MAX_CELLS
            )
        return measures

    @field_validator("dataset")
    @classmethod
    def _dataset_fits_measures(cls, dataset: DatasetConfig, info: ValidationInfo) -> DatasetConfig:
        measures = info.data.get("measures")
        if measures is None:
            return dataset
        names = [m.name for m in measures]
        for label in dataset.label_measures:
            if label not in names:
                raise refuse(
                    "label = {label} names no measure{hint}; the measures are {names}",
                    label=toml_value(label),
                    hint=did_you_mean(label, names),
                    names=", ".join(map(toml_value, names)),
                )
        if len(dataset.bins) != len(names):
            raise refuse(
                "bins = {bins} has {got} entries for {want} measures: give one count per measure",
                bins=str(list(dataset.bins)),
                got=len(dataset.bins),
                want=len(names),
            )
        return dataset

    @property
    def dims(self) -> tuple[int, ...]:
        """Cells per measure."""
        return tuple(m.cells for m in self.measures)

    @property
    def ranges(self) -> tuple[tuple[float, float], ...]:
        """(low, high) per measure."""
        return tuple(m.range for m in self.measures)


def parse_run(text: str, source: str = "run file") -> RunConfig:
    """Validate the text of a run file.

    Args:
        text: TOML.
        source: what errors call the file.

    Raises:
        ConfigError: one line for each thing that is wrong.
    """
    try:
        table = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{source}: not valid TOML: {error}") from None
    try:
        return RunConfig.model_validate(table)
    except ValidationError as error:
        lines = error_lines(error, RunConfig)
        raise ConfigError("\n".join(f"{source}: {line}" for line in lines)) from None


def load_run(path: str | os.PathLike[str]) -> RunConfig:
    """Read a run file.

    Folders named in it are relative to the file; they come back absolute, so that the resolved run
    can be used from anywhere.

    Raises:
        ConfigError: the file does not exist, is not text, or is not a valid run.
    """
    file = Path(path)
    try:
        config = parse_run(file.read_text(encoding="utf-8"), str(file))
    except FileNotFoundError:
        raise ConfigError(
            f"{file}: no such run file; `qdgs init shapes {file}` writes one to start from"
        ) from None
    except IsADirectoryError:
        raise ConfigError(f"{file}: is a folder, not a run file") from None
    except UnicodeDecodeError:
        raise ConfigError(f"{file}: not a text file in UTF-8") from None
    folders = {}
    for field in ("generator", "clip"):
        value = getattr(config.domain, field)
        if not value.startswith(EMBEDDED):
            folder = Path(os.path.abspath(file.parent / value))  # noqa: PTH100 (keeps links)
            if not folder.is_dir():
                raise ConfigError(
                    f"{file}: domain.{field} = {toml_value(value)}: no folder {folder}; give a "
                    f"folder written by `qdgs port`, or {EMBEDDED}NAME"
                )
            folders[field] = str(folder)
    return config.model_copy(update={"domain": config.domain.model_copy(update=folders)})


def dump_run(config: RunConfig, path: str | os.PathLike[str]) -> None:
    """Write the resolved run file, every field spelled out; it appears by atomic rename."""
    write_atomically(Path(path), run_to_toml(config).encode())


def run_to_toml(config: RunConfig) -> str:
    """Write a run as TOML, every field spelled out; `parse_run` reads it back."""
    return to_toml(config.model_dump(exclude_none=True))
