"""`qdgs train`: a run's experiments, or a classifier of one data set."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from qdgs_jax.cli.console import if_stopped, say, show_table
from qdgs_jax.cli.generate import counting

if TYPE_CHECKING:
    from qdgs_jax.runs.folder import RunFolder


def train(
    source: Annotated[
        Path, typer.Argument(help="A run folder, or a data set's folder.", metavar="RUN|DATA")
    ],
    out: Annotated[
        Path | None, typer.Option(help="Model folder for the classifier of a data set.")
    ] = None,
    epochs: Annotated[int, typer.Option(min=1, help="Epochs on a data set.")] = 30,
    seed: Annotated[int, typer.Option(min=0, help="Seed on a data set.")] = 0,
    image_size: Annotated[
        int | None,
        typer.Option(min=8, help="Pixels per side that the classifier of a data set sees."),
    ] = None,
) -> None:
    """Make a run's experiments with its data sets, or train a classifier on one data set."""
    say(f"{source}: reading the data")
    from qdgs_jax.datasets.manifest import MANIFEST, shards_folder
    from qdgs_jax.runs.folder import RunFolder

    folder = RunFolder(source)
    if not folder.exists and (shards_folder(source) / MANIFEST).is_file():
        target = out or source.resolve().with_name("classifier")
        with if_stopped(lambda: f"{target} was not written"):
            _train_one(source, target, epochs, seed, image_size)
        return
    with if_stopped(lambda: "no results were written; the same command begins again"):
        make_experiments(folder)
    show_results(folder)


def make_experiments(folder: RunFolder) -> None:
    """Make the experiments of a run's file with its data sets."""
    from qdgs_jax.experiments import run_experiments

    with counting("classifiers") as progress:
        run_experiments(folder, progress)


def show_results(folder: RunFolder) -> None:
    """Print the tables of a run's experiments."""
    from qdgs_jax.experiments import experiments_of
    from qdgs_jax.experiments.protocol import arm_names

    names = arm_names(folder)
    for experiment in experiments_of(folder.config()):
        result = experiment.results(folder)
        for shown in experiment.tables(result, names) if result is not None else ():
            show_table(shown.title, shown.header, shown.rows)


def _train_one(data: Path, out: Path, epochs: int, seed: int, image_size: int | None) -> None:
    from qdgs_jax.ports.model_folder import check_destination
    from qdgs_jax.train import train_classifier

    check_destination(out)
    trained = train_classifier(data, epochs=epochs, seed=seed, image_size=image_size)
    trained.save(out)
    show_table(
        f"held back: {trained.test_count} of {trained.train_count + trained.test_count} images",
        ["label", "learnt from", "held back", "of these recognised"],
        [
            [name, f"{learnt}", f"{held}", f"{100 * share:.1f} %" if held else "-"]
            for name, learnt, held, share in zip(
                trained.label_names,
                trained.train_counts,
                trained.test_counts,
                trained.test_accuracy,
                strict=True,
            )
        ],
    )
    say(f"classifier of {trained.train_count} images -> {out}")
