"""The tables of a run file that belong to experiments: what is done with a run's data sets.

A table is named like its experiment. A new experiment adds its class and a line to
`ExperimentTables`; the rest of the run file does not know of it.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, Strict
from pydantic import PositiveInt as Count

from qdgs_jax.runs.table import Table


class ShapesRepairConfig(Table):
    """The classifiers that are trained on biased drawings and repaired with the data set.

    Attributes:
        image_size: pixels per side, at least 8.
        biases: share of the training drawings that follow the bias, each in [0.5, 1].
        seeds: classifiers per bias.
        train_images: biased drawings to train on.
        train_epochs: epochs on these.
        repair_epochs: epochs on the data set.
        test_images: balanced drawings to test on.
    """

    image_size: int = Field(default=32, ge=8)
    biases: Annotated[
        tuple[Annotated[float, Field(ge=0.5, le=1.0)], ...], Strict(False), Field(min_length=1)
    ] = (0.98, 0.95, 0.90, 0.85, 0.80)
    seeds: Count = 5
    train_images: Count = 1000
    train_epochs: Count = 20
    repair_epochs: Count = 30
    test_images: Count = 5000


class ExperimentTables(Table):
    """One field per experiment."""

    repair: ShapesRepairConfig = ShapesRepairConfig()


EXPERIMENT_TABLES: dict[str, type[Table]] = {
    name: type(getattr(ExperimentTables(), name)) for name in ExperimentTables.model_fields
}
