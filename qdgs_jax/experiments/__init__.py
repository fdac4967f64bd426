"""Experiments: what is done with a data set. Each is a plug-in, see `protocol`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from qdgs_jax.experiments import freshness
from qdgs_jax.experiments.protocol import Experiment, ExperimentError
from qdgs_jax.runs.config import RunConfig
from qdgs_jax.runs.folder import RunFolder


def _shapes_repair() -> Experiment[Any]:
    from qdgs_jax.experiments.shapes_repair import ShapesRepair

    return ShapesRepair()


def _recognition() -> Experiment[Any]:
    from qdgs_jax.experiments.recognition import Recognition

    return Recognition()


EXPERIMENTS: dict[str, Callable[[], Experiment[Any]]] = {  # by their table
    "repair": _shapes_repair,
    "recognition": _recognition,
}


def experiments_of(config: RunConfig) -> list[Experiment[Any]]:
    """The experiments whose table a run file has."""
    return [make() for name, make in EXPERIMENTS.items() if getattr(config, name, None) is not None]


def check_experiments(folder: RunFolder) -> list[Experiment[Any]]:
    """The experiments of a run, all of which can be made with it.

    Raises:
        ExperimentError: the run has no experiment, or one cannot be made with it.
    """
    wanted = experiments_of(folder.config())
    if not wanted:
        raise ExperimentError(
            f"{folder.run_file} has no table of an experiment ({', '.join(EXPERIMENTS)}): add one, "
            f"or give the folder of one data set, such as {folder.data}, to learn that alone."
        )
    for experiment in wanted:
        experiment.check(folder)
    return wanted


def run_experiments(folder: RunFolder, progress: Callable[[int, int], None]) -> None:
    """Make all experiments of a run; all are checked before the first one starts.

    Raises:
        ExperimentError: the run has no experiment, or one cannot be made with it.
    """
    for experiment in check_experiments(folder):
        seen = freshness.look(folder, experiment.data_sets(folder))
        experiment.run(folder, progress)
        freshness.keep(folder.path / experiment.name, seen)


__all__ = [
    "EXPERIMENTS",
    "Experiment",
    "ExperimentError",
    "check_experiments",
    "experiments_of",
    "run_experiments",
]
