"""Recipes: how a face recognition network is trained, as TOML in and validated tables out.

The packaged `recognition.toml` is the published one: AdaFace's networks, head and schedule (Kim et
al. 2022, arXiv:2204.00964) with the batch sizes and rates of Chang et al. (2024, arXiv:2312.14369).
"""

from __future__ import annotations

import math
import os
import tomllib
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal

import optax
import tomli_w
from pydantic import Field, Strict, ValidationError, ValidationInfo, field_validator

from qdgs_jax.models.iresnet import UNITS, IResNetConfig
from qdgs_jax.ports.readers.stand_ins import stand_in
from qdgs_jax.runs.config_errors import error_lines, is_run_file, refuse
from qdgs_jax.runs.table import Table
from qdgs_jax.runs.toml_faults import toml_fault
from qdgs_jax.train.faces.heads import HeadConfig, HeadKind

PACKAGED = "recognition.toml"
EPOCHS, MILESTONES = 26, (12, 20, 24)  # published, as is the rate
RATE, RATE_BATCH = 0.1, 512  # published
RATE_POWER = math.log(10) / math.log(8)  # 0.01 at 64: a tenth of the rate for an eighth of images

_Share = Annotated[float, Field(ge=0.0, le=1.0)]
_Widths = Annotated[tuple[int, int, int, int], Strict(False)]
_Epochs = Annotated[tuple[int, ...], Strict(False)]


class RecipeError(ValueError):
    """A recipe that cannot be used; the message names file, field, value and what is allowed."""


class NetworkTable(Table):
    """The network; see `IResNetConfig`. `dtype` is that of activations and products."""

    depth: int = 101
    se: bool = False
    input_size: int = Field(default=112, ge=8)
    embed_dim: int = Field(default=512, ge=1)
    widths: _Widths | None = None
    dropout: float = Field(default=0.4, ge=0.0, lt=1.0)
    dtype: Literal["float32", "bfloat16"] = "float32"

    @field_validator("depth")
    @classmethod
    def _is_known(cls, depth: int) -> int:
        if depth not in UNITS:
            raise refuse("must be one of {known}", known=", ".join(map(str, UNITS)))
        return depth

    @field_validator("input_size")
    @classmethod
    def _is_halved(cls, size: int) -> int:
        if size % 8:
            raise refuse("must be a multiple of 8")
        return size

    @field_validator("widths")
    @classmethod
    def _are_widths(cls, widths: tuple[int, ...] | None) -> tuple[int, ...] | None:
        if widths is not None and min(widths) < 1:
            raise refuse("must be positive numbers")
        return widths

    def config(self) -> IResNetConfig:
        """The network's own config."""
        return IResNetConfig(**self.model_dump(exclude={"dtype"}))


class HeadTable(Table):
    """The head; see `HeadConfig`."""

    kind: HeadKind = "adaface"
    margin: float | None = Field(default=None, ge=0.0, lt=math.pi)
    scale: float = Field(default=64.0, gt=0.0)
    h: float = Field(default=0.333, gt=0.0)
    t_alpha: float = Field(default=0.01, gt=0.0, le=1.0)

    def config(self, embed_dim: int, num_classes: int, shards: int = 1) -> HeadConfig:
        """The head's own config, for so many identities."""
        return HeadConfig(embed_dim, num_classes, shards=shards, **self.model_dump())


def milestones_of(epochs: int) -> tuple[int, ...]:
    """Milestones at the same shares of some epochs as the published ones."""
    return tuple(sorted({round(epochs * at / EPOCHS) for at in MILESTONES} - {0, epochs}))


class OptimizerTable(Table):
    """Stochastic gradient descent with momentum, and its schedule in epochs."""

    epochs: int = Field(default=EPOCHS, ge=1)
    batch_size: int = Field(default=512, ge=2)
    accumulate: int = Field(default=1, ge=1)
    learning_rate: float | None = Field(default=None, gt=0.0)
    momentum: float = Field(default=0.9, ge=0.0, lt=1.0)
    weight_decay: float = Field(default=5e-4, ge=0.0)
    milestones: _Epochs = MILESTONES
    factor: float = Field(default=0.1, gt=0.0, le=1.0)

    @field_validator("accumulate")
    @classmethod
    def _divides_the_batch(cls, accumulate: int, info: ValidationInfo) -> int:
        batch = info.data.get("batch_size")
        if batch is not None and (batch % accumulate or batch // accumulate < 2):
            raise refuse(
                "must divide batch_size = {batch} into equal parts of at least two images",
                batch=batch,
            )
        return accumulate

    @field_validator("milestones")
    @classmethod
    def _rise(cls, milestones: tuple[int, ...]) -> tuple[int, ...]:
        if any(b <= a for a, b in zip((0, *milestones), milestones, strict=False)):
            raise refuse("must rise from 1, such as [12, 20, 24]")
        return milestones

    @property
    def rate(self) -> float:
        """Learning rate at the start."""
        if self.learning_rate is not None:
            return self.learning_rate
        return float(RATE * (self.batch_size / RATE_BATCH) ** RATE_POWER)

    @property
    def never_reached(self) -> str | None:
        """Which milestones lie after the training's end, in words; None if all are reached."""
        late = [epoch for epoch in self.milestones if epoch >= self.epochs]
        if not late:
            return None
        return (
            f"optimizer.milestones: the training is over after {self.epochs} epochs, and the "
            f"learning rate never falls at {', '.join(map(str, late))}; milestones = "
            f"{list(milestones_of(self.epochs))} stand where the published ones do"
        )

    def schedule(self, steps_per_epoch: int) -> optax.Schedule:
        """Learning rate by the number of the step, from 0; it falls where a milestone is over."""
        falls = {epoch * steps_per_epoch: self.factor for epoch in self.milestones}
        return optax.piecewise_constant_schedule(self.rate, falls)


class AugmentationTable(Table):
    """Probability of each augmentation, for each image."""

    flip: _Share = 0.5
    crop: _Share = 0.2
    low_resolution: _Share = 0.2
    colour: _Share = 0.2


class DataTable(Table):
    """How images are read: in what window they are shuffled, and threads that decode them."""

    window: int = Field(default=16384, ge=1)
    threads: int = Field(default=0, ge=0)


class CheckpointsTable(Table):
    """Seconds from one checkpoint to the next; 0 is as often as possible."""

    seconds: float = Field(default=600.0, ge=0.0)


class Recipe(Table):
    """A whole training."""

    seed: int = Field(default=0, ge=0, lt=2**31)
    network: NetworkTable = NetworkTable()
    head: HeadTable = HeadTable()
    optimizer: OptimizerTable = OptimizerTable()
    augmentation: AugmentationTable = AugmentationTable()
    data: DataTable = DataTable()
    checkpoints: CheckpointsTable = CheckpointsTable()

    @field_validator("network")
    @classmethod
    def _has_room_for_gates(cls, network: NetworkTable) -> NetworkTable:
        try:
            network.config()
        except ValueError as error:
            raise refuse("{reason}", reason=str(error)) from None
        return network


def parse_recipe(text: str, source: str = "recipe") -> Recipe:
    """Validate the text of a recipe.

    Args:
        text: TOML.
        source: what errors call the file.

    Raises:
        RecipeError: one line for each thing that is wrong.
    """
    try:
        table: dict[str, Any] = tomllib.loads(text.removeprefix("\ufeff"))
    except tomllib.TOMLDecodeError as error:
        raise RecipeError(f"{source}: not valid TOML: {toml_fault(text, error)}") from None
    if is_run_file(table):
        raise RecipeError(
            f"{source}: is a run file, not a recipe; `qdgs init recognition FILE` writes one"
        )
    try:
        return Recipe.model_validate(table)
    except ValidationError as error:
        lines = error_lines(error, Recipe)
        raise RecipeError("\n".join(f"{source}: {line}" for line in lines)) from None


def read_recipe(path: str | os.PathLike[str]) -> Recipe:
    """Read a recipe.

    Raises:
        RecipeError: the file does not exist, is not text, or is not a valid recipe.
    """
    file = Path(path)
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        what = error.strerror if isinstance(error, OSError) else "not a text file in UTF-8"
        raise RecipeError(f"{file}: {what}; `qdgs init recognition` writes a recipe") from None
    if text and (found := stand_in(text.encode(), len(text))) is not None:
        raise RecipeError(f"{file}: {found}")
    return parse_recipe(text, str(file))


def default_recipe() -> Recipe:
    """The packaged recipe, the published one."""
    return parse_recipe(packaged_recipe(), PACKAGED)


def packaged_recipe() -> str:
    """Text of the packaged recipe."""
    file = resources.files("qdgs_jax") / "assets" / PACKAGED
    return file.read_text(encoding="utf-8")


def recipe_to_toml(recipe: Recipe) -> str:
    """Write a recipe as TOML, every field spelled out; `parse_recipe` reads it back."""
    return tomli_w.dumps(recipe.model_dump(exclude_none=True))
