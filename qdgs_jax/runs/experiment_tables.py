"""The tables of a run file that belong to experiments: what is done with a run's data sets.

A table is named like its experiment. A new experiment adds its class and a line to
`ExperimentTables`; the rest of the run file does not know of it.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, PositiveFloat, Strict
from pydantic import PositiveInt as Count

from qdgs_jax.runs.table import Table


class ShapesRepairConfig(Table):
    """The classifiers that are trained on biased drawings and repaired with the data set.

    Attributes:
        image_size: pixels per side, a multiple of 8.
        biases: share of the training drawings that follow the bias, each in [0.5, 1].
        seeds: classifiers per bias.
        train_images: biased drawings to train on.
        train_epochs: epochs on these.
        repair_epochs: epochs on the data set.
        test_images: balanced drawings to test on.
    """

    image_size: int = Field(default=32, ge=8, multiple_of=8)
    biases: Annotated[
        tuple[Annotated[float, Field(ge=0.5, le=1.0)], ...], Strict(False), Field(min_length=1)
    ] = (0.98, 0.95, 0.90, 0.85, 0.80)
    seeds: Count = 5
    train_images: Count = 1000
    train_epochs: Count = 20
    repair_epochs: Count = 30
    test_images: Count = 5000


class RecognitionConfig(Table):
    """The networks that learn to recognise drawn faces, pretrained on the run's people or not.

    Attributes:
        seeds: networks of each kind of pretraining.
        side: pixels per side of the images that networks see, a multiple of 8 up to 112.
        widths: channels of the four stages.
        embed_dim: length of an embedding.
        people: drawn people to learn from, in FFHQ's proportions.
        pictures: of each.
        test_people: drawn people to verify, of each skin group.
        test_pictures: of each.
        pairs: to verify, of each skin group; even.
        pretrain_epochs: epochs on generated people.
        epochs: epochs on drawn people.
        batch_size: images per step.
        learning_rate: at the start of both trainings.
    """

    seeds: Count = 5
    side: int = Field(default=32, ge=16, le=112, multiple_of=8)
    widths: Annotated[tuple[Count, Count, Count, Count], Strict(False)] = (8, 16, 32, 64)
    embed_dim: Count = 64
    people: int = Field(default=60, ge=2)
    pictures: int = Field(default=6, ge=2)
    test_people: int = Field(default=180, ge=2)
    test_pictures: int = Field(default=6, ge=2)
    pairs: int = Field(default=3500, ge=20, multiple_of=2)
    pretrain_epochs: Count = 15
    epochs: Count = 15
    batch_size: int = Field(default=32, ge=2)
    learning_rate: PositiveFloat = 0.05


class ExperimentTables(Table):
    """One field per experiment; None where the run file has no such table."""

    repair: ShapesRepairConfig | None = None
    recognition: RecognitionConfig | None = None


EXPERIMENT_TABLES: dict[str, type[Table]] = {
    "recognition": RecognitionConfig,
    "repair": ShapesRepairConfig,
}
