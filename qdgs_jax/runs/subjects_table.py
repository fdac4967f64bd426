"""The table [dataset.subjects] of a run file: how latents become people."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, PositiveFloat, PositiveInt, model_validator

from qdgs_jax.runs.config_errors import refuse
from qdgs_jax.runs.table import Table

MOST = 4096  # pictures of a latent, and pixels of their sides
COUNT, SCALE = 9, 0.18  # of augmentations that are drawn: as many and as long as the published ones


class SubjectsConfig(Table):
    """How latents become people, each with several pictures.

    Attributes:
        size: latents of a subject, on average.
        restarts: clusterings of each class, of which the tightest is taken.
        iterations: most rounds of each.
        distinct: whether the subjects least alike are taken, of all elites with sure labels, rather
            than those of the best elites. Random samples are taken as they come.
        augmentations: folder of latent augmentations that `qdgs port latents` wrote, or
            `embedded:NAME`; None draws some.
        augmentation_count: pictures of each latent, where augmentations are drawn, the latent's own
            included.
        augmentation_scale: their deviation, in units of the searched latents.
        align: "arcface" moves faces in FFHQ's alignment to ArcFace's template; "none" resizes.
        side: of the pictures, in pixels.
    """

    size: PositiveInt = 2
    restarts: PositiveInt = 10
    iterations: PositiveInt = 2000
    distinct: bool = False
    augmentations: str | None = Field(
        default=None, min_length=1, description="embedded:NAME or a folder"
    )
    augmentation_count: PositiveInt | None = Field(default=None, le=MOST)
    augmentation_scale: PositiveFloat | None = None
    align: Literal["arcface", "none"] = "arcface"
    side: PositiveInt = Field(default=112, le=MOST)

    @model_validator(mode="after")
    def _read_or_drawn(self) -> SubjectsConfig:
        if self.augmentations is not None and (self.augmentation_count or self.augmentation_scale):
            raise refuse(
                "augmentations are read from a folder: leave out augmentation_count and "
                "augmentation_scale, or the folder, and some are drawn"
            )
        return self

    @property
    def drawn(self) -> tuple[int, float]:
        """Count and scale of augmentations that are drawn."""
        return self.augmentation_count or COUNT, self.augmentation_scale or SCALE
