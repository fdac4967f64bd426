"""The table [dataset] of a run file: how elites become a labelled data set."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Annotated

from pydantic import Field, Strict, field_validator, model_validator
from pydantic import PositiveInt as Count

from qdgs_jax.runs.config_errors import refuse
from qdgs_jax.runs.subjects_table import SubjectsConfig
from qdgs_jax.runs.table import Table

MOST_BINS = 10_000  # of a data set: each is counted, named and shown for each class
REACH = math.pi  # of a measure to both sides of 0: it is a difference of two angles
SIGN = (0.0,)  # the cut points of a measure whose sign is the label


class DatasetConfig(Table):
    """How elites become a labelled data set.

    Attributes:
        images: how many to make; with subjects, how many latents to draw under augmentations.
        label: the measure that tells the label, or several of them.
        label_bins: for each of these measures its ascending cut points; None cuts all at 0.
        margin: images nearer to a cut than this are too unsure to be used.
        bins: bins per measure over which images are balanced.
        shard_size: images per file.
        subjects: how they become people; None for images that show none.
    """

    images: Count = 1000
    label: str | tuple[str, ...] = Field(description="the name of a measure, or a list of names")
    label_bins: Annotated[tuple[tuple[float, ...], ...], Strict(False)] | None = None
    margin: Annotated[float, Strict(False)] = Field(
        default=0.0, ge=0, allow_inf_nan=False, description="a distance of label measures from cuts"
    )
    bins: Annotated[tuple[Count, ...], Strict(False)] = Field(description="a count per measure")
    shard_size: Count = 500
    subjects: SubjectsConfig | None = None

    @field_validator("label", mode="before")
    @classmethod
    def _names(cls, label: object) -> object:
        names = tuple(label) if isinstance(label, list | tuple) else (label,)
        if not names or not all(isinstance(name, str) for name in names):
            raise refuse("must be the name of a measure, or a list of names")
        return label if isinstance(label, str) else names

    @field_validator("label_bins", mode="before")
    @classmethod
    def _ascending(cls, bins: object) -> object:
        rows = bins if isinstance(bins, list | tuple) else (None,)
        for cuts in rows:
            numbers = isinstance(cuts, list | tuple) and all(_is_number(cut) for cut in cuts)
            if not numbers or not cuts or any(a >= b for a, b in itertools.pairwise(cuts)):
                raise refuse("must be a list of ascending cut points for each label measure")
        return tuple(tuple(map(float, cuts)) for cuts in rows)

    @field_validator("bins")
    @classmethod
    def _are_few(cls, bins: tuple[int, ...]) -> tuple[int, ...]:
        if math.prod(bins) > MOST_BINS:
            raise refuse(
                "makes {made} bins: give at most {most}, far fewer than images",
                made=f"{math.prod(bins):,}",
                most=f"{MOST_BINS:,}",
            )
        return bins

    @model_validator(mode="after")
    def _room_in_each_class(self) -> DatasetConfig:
        for cuts in self.label_bins or (SIGN,):
            try:
                check_room(cuts, self.margin)
            except ValueError as error:
                raise refuse("{why}", why=str(error).removesuffix(".")) from None
        return self

    @property
    def label_measures(self) -> tuple[str, ...]:
        """Names of the measures that tell the label."""
        return (self.label,) if isinstance(self.label, str) else self.label


def check_room(cuts: Sequence[float], margin: float) -> None:
    """Refuse cuts of a label measure between or beyond which no image can lie.

    Args:
        cuts: ascending.
        margin: distance from every cut that images keep.

    Raises:
        ValueError: a class can hold nothing; cuts and margin are named, with the largest margin.
    """
    for low, high in itertools.pairwise(cuts):
        if 2 * margin >= high - low:
            raise ValueError(
                f"margin = {margin:g} leaves no room for images between the cuts {low:g} and "
                f"{high:g} of label_bins: give less than {(high - low) / 2:.4g}, or cuts farther "
                "apart."
            )
    for cut, room in ((cuts[0], cuts[0] + REACH), (cuts[-1], REACH - cuts[-1])):
        if room <= 0:
            raise ValueError(
                f"label_bins has the cut {cut:g}: measures are differences of angles, and lie "
                f"between {-REACH:.2f} and {REACH:.2f}."
            )
        if margin >= room:
            raise ValueError(
                f"margin = {margin:g} leaves no room for images beyond the cut {cut:g}: measures "
                f"are differences of angles, and lie between {-REACH:.2f} and {REACH:.2f}; give "
                f"less than {room:.4g}."
            )


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
