"""Run files: TOML in, a validated and frozen `RunConfig` out.

Everything a run depends on stands in one file, so that a run folder can repeat it. Mistakes are
reported before any work starts, one line each: the file, the field, the value and what is allowed.
"""

from __future__ import annotations

import difflib
import json
import math
import os
import tomllib
import types
import typing
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

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
from pydantic_core import ErrorDetails, PydanticCustomError

from qdgs_jax.files import write_atomically

EMBEDDED = "embedded:"  # prefix of the names of weights that the package carries
RESTARTS = ("basic", "no_improvement")
MAX_CELLS = 2**31 - 1  # cells are indexed with int32

ALLOWED = {  # what to say for each kind of error that pydantic finds; others keep its own words
    "int_type": "must be an integer",
    "float_type": "must be a number",
    "string_type": "must be a text in quotes",
    "tuple_type": "must be a list",
    "model_type": "must be a table",
    "finite_number": "must be a finite number",
    "greater_than": "must be more than {gt}",
    "greater_than_equal": "must be at least {ge}",
    "less_than": "must be less than {lt}",
    "less_than_equal": "must be at most {le}",
    "literal_error": "must be {expected}",
    "string_too_short": "must not be empty",
    "too_short": "must have at least {min_length} entries",
    "too_long": "must have at most {max_length} entries",
}


class ConfigError(ValueError):
    """A run file that cannot be used; the message names file, field, value and what is allowed."""


class Table(BaseModel):
    """A table of the run file: immutable, no unknown fields, no silent conversion of types."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


def _refuse(message: str, **context: Any) -> PydanticCustomError:
    """Make an error whose text is a template over `context`."""
    return PydanticCustomError("refused", message, context or None)


class Prompts(Table):
    """A pair of prompts that spans an axis; each is one text or several separated by `|`."""

    positive: str = Field(description="a text, or several separated by |")
    negative: str = Field(description="a text, or several separated by |")

    @field_validator("positive", "negative")
    @classmethod
    def _no_empty_text(cls, prompt: str) -> str:
        from qdgs_jax.scoring import split_prompt

        if not all(split_prompt(prompt)):
            raise _refuse("must be a text, or several separated by |, none of them empty")
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
            raise _refuse("must be [low, high], two numbers")
        return bounds

    @field_validator("range")
    @classmethod
    def _low_below_high(cls, bounds: tuple[float, float]) -> tuple[float, float]:
        if bounds[0] >= bounds[1]:
            raise _refuse("must be [low, high] with low < high")
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
            raise _refuse("must be a finite number or -inf")
        return value

    @model_validator(mode="after")
    def _annealing_needs_a_start(self) -> ArchiveConfig:
        if self.threshold_min == -math.inf and self.learning_rate != 1.0:
            raise _refuse(
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
    start_batches: Count = 32
    start_batch_size: Count = 16
    chunk: Count = 25

    @field_validator("algorithm")
    @classmethod
    def _known_algorithm(cls, name: str) -> str:
        from qdgs_jax.algorithms import ALGORITHMS

        if name not in ALGORITHMS:
            raise _refuse(
                "unknown algorithm{hint}; known are {names}",
                hint=_did_you_mean(name, ALGORITHMS),
                names=", ".join(map(_toml_value, sorted(ALGORITHMS))),
            )
        return name

    @field_validator("restart", mode="before")
    @classmethod
    def _restart_rule(cls, rule: object) -> object:
        is_count = isinstance(rule, int) and not isinstance(rule, bool) and rule >= 1
        if not is_count and rule not in RESTARTS:
            raise _refuse('must be "basic", "no_improvement" or a number of steps of at least 1')
        return rule

    @property
    def step_evaluations(self) -> int:
        """Evaluations of one step, the parents' own included."""
        return self.emitters * (1 + self.branches)


class DatasetConfig(Table):
    """How elites become a labelled data set."""

    images: Count = 1000
    label: str = Field(description="the name of a measure")
    bins: Annotated[tuple[Count, ...], Strict(False)] = Field(description="a count per measure")
    shard_size: Count = 500


class ClassifierConfig(Table):
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
    classifier: ClassifierConfig = ClassifierConfig()

    @field_validator("measures")
    @classmethod
    def _measures_fit_together(
        cls, measures: tuple[MeasureConfig, ...]
    ) -> tuple[MeasureConfig, ...]:
        twice = [name for name, n in Counter(m.name for m in measures).items() if n > 1]
        if twice:
            raise _refuse(
                "two measures are named {name}: names must differ", name=_toml_value(twice[0])
            )
        cells = math.prod(m.cells for m in measures)
        if cells > MAX_CELLS:
            raise _refuse(
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
        if dataset.label not in names:
            raise _refuse(
                "label = {label} names no measure{hint}; the measures are {names}",
                label=_toml_value(dataset.label),
                hint=_did_you_mean(dataset.label, names),
                names=", ".join(map(_toml_value, names)),
            )
        if len(dataset.bins) != len(names):
            raise _refuse(
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
        details = [d for d in error.errors() if not _follows_from_others(d)]
        raise ConfigError("\n".join(f"{source}: {_line(d)}" for d in details)) from None


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
                    f"{file}: domain.{field} = {_toml_value(value)}: no folder {folder}; give a "
                    f"folder written by `qdgs port`, or {EMBEDDED}NAME"
                )
            folders[field] = str(folder)
    return config.model_copy(update={"domain": config.domain.model_copy(update=folders)})


def dump_run(config: RunConfig, path: str | os.PathLike[str]) -> None:
    """Write the resolved run file, every field spelled out; it appears by atomic rename."""
    write_atomically(Path(path), run_to_toml(config).encode())


def run_to_toml(config: RunConfig) -> str:
    """Write a run as TOML, every field spelled out; `parse_run` reads it back."""
    return "\n".join(_toml_lines(config.model_dump())) + "\n"


def _toml_lines(table: Mapping[str, Any]) -> Iterator[str]:
    tables = {k: v for k, v in table.items() if isinstance(v, Mapping)}
    arrays = {k: v for k, v in table.items() if _is_array_of_tables(v)}
    for key, value in table.items():
        if key not in tables and key not in arrays:
            yield f"{key} = {_toml_value(value)}"
    for key, value in table.items():
        for row in (value,) if key in tables else arrays.get(key, ()):
            yield ""
            yield f"[{key}]" if key in tables else f"[[{key}]]"
            yield from _toml_lines(row)


def _is_array_of_tables(value: object) -> bool:
    return isinstance(value, list | tuple) and bool(value) and isinstance(value[0], Mapping)


def _toml_value(value: object) -> str:
    if isinstance(value, str):  # JSON's escapes are TOML's, but for the delete character
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    if isinstance(value, float):
        return repr(value)
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_toml_value, value))}]"
    return json.dumps(value)


def _did_you_mean(name: str, known: Sequence[str] | Mapping[str, Any]) -> str:
    close = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    return f'; did you mean "{close[0]}"?' if close else ""


def _follows_from_others(detail: ErrorDetails) -> bool:
    """Whether a list is called too short only because its entries were refused."""
    return detail["type"] == "too_short" and len(detail["input"]) >= detail["ctx"]["min_length"]


def _line(detail: ErrorDetails) -> str:
    """One error of pydantic's in our words: field, value, what is allowed."""
    path = _path(detail["loc"])
    kind = detail["type"]
    if kind == "missing":
        field = _field(detail["loc"])
        wanted = getattr(field, "description", None)
        return f"{path} is missing" + (f": give {wanted}" if wanted else "")
    if kind == "extra_forbidden":
        *parents, name = detail["loc"]
        known = getattr(_table(parents), "model_fields", {})
        hint = _did_you_mean(str(name), known) or f"; known are {', '.join(known)}"
        return f"{path}: unknown field{hint}"
    allowed = ALLOWED.get(kind, detail["msg"]).format_map(detail.get("ctx", {}))
    if isinstance(detail["input"], Mapping):  # said of a whole table: the text names the field
        return f"{path}.{allowed}" if path else allowed
    if kind == "refused" and _is_array_of_tables(detail["input"]):
        return f"{path}: {allowed}"
    return f"{path} = {_toml_value(detail['input'])}: {allowed}"


def _path(location: Sequence[int | str]) -> str:
    path = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in location)
    return path.removeprefix(".")


def _table(location: Sequence[int | str]) -> Any:
    """Find the model class that describes the table at a location."""
    here: Any = RunConfig
    for part in location:
        if isinstance(part, str):
            here = here.model_fields[part].annotation
        arguments = [a for a in typing.get_args(here) if isinstance(a, type)]
        if isinstance(here, types.GenericAlias) and arguments:
            here = arguments[0]
    return here


def _field(location: Sequence[int | str]) -> Any:
    """Find what describes the field at a location; None if nothing does."""
    return getattr(_table(location[:-1]), "model_fields", {}).get(location[-1])
