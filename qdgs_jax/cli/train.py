"""`qdgs train`: a run's experiments, a classifier of one data set, or a face network."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from qdgs_jax.cli.console import PLAIN_EVERY, console, if_stopped, say, show_table
from qdgs_jax.cli.generate import counting

if TYPE_CHECKING:
    from qdgs_jax.runs.folder import RunFolder
    from qdgs_jax.train.faces.fit import Progress

EPOCHS = 30  # on a data set


def train(
    source: Annotated[
        Path, typer.Argument(help="A run folder, or a data set's folder.", metavar="RUN|DATA")
    ],
    out: Annotated[
        Path | None, typer.Option(help="Model folder for the network of a data set.")
    ] = None,
    epochs: Annotated[
        int | None,
        typer.Option(min=1, help="Epochs on a data set.", show_default=str(EPOCHS)),
    ] = None,
    seed: Annotated[
        int | None, typer.Option(min=0, help="Seed on a data set.", show_default="0")
    ] = None,
    image_size: Annotated[
        int | None,
        typer.Option(min=8, help="Pixels per side that the classifier of a data set sees."),
    ] = None,
    config: Annotated[
        Path | None,
        typer.Option(
            help="Recipe of a face recognition network, which has epochs and seed of its own; "
            "`qdgs init recognition FILE` writes one."
        ),
    ] = None,
    start: Annotated[
        Path | None,
        typer.Option(help="With --config: model folder whose weights the network begins with."),
    ] = None,
) -> None:
    """Make a run's experiments with its data sets, or train a network on one data set.

    With --config it recognises the people of a run's data set, or of shards; a training that was
    stopped goes on when the command is repeated.
    """
    say(f"{source}: reading the data")
    from qdgs_jax.datasets.manifest import MANIFEST, shards_folder
    from qdgs_jax.runs.folder import RunFolder

    alone = {"epochs": epochs, "seed": seed, "image-size": image_size}
    if config is not None:
        _refuse(alone, f"the recipe {config} says it")
        _train_faces(source, config, start, out or source.resolve().with_name("recognition"))
        return
    if start is not None:
        raise typer.BadParameter("--start needs a recipe: give --config", param_hint="start")
    folder = RunFolder(source)
    if not folder.exists and (shards_folder(source) / MANIFEST).is_file():
        target = out or source.resolve().with_name("classifier")
        with if_stopped(lambda: f"{target} was not written; the same command begins again"):
            _train_one(source, target, epochs or EPOCHS, seed or 0, image_size)
        return
    if folder.exists:
        _refuse({**alone, "out": out}, f"a run's experiments follow {folder.run_file}")
    with if_stopped(lambda: "no results were written; the same command begins again"):
        make_experiments(folder)
    show_results(folder)


def _refuse(options: Mapping[str, object], why: str) -> None:
    """Refuse options that would be ignored."""
    given = next((name for name, value in options.items() if value is not None), None)
    if given is not None:
        raise typer.BadParameter(f"--{given} is for one data set: {why}", param_hint=given)


def make_experiments(folder: RunFolder) -> None:
    """Make the experiments of a run's file with its data sets."""
    from qdgs_jax.experiments import check_experiments, run_experiments

    check_experiments(folder)
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


def _train_faces(data: Path, config: Path, start: Path | None, out: Path) -> None:
    """Train a face network, or go on with it; Ctrl-C keeps what was done."""
    from qdgs_jax.cli.console import Stopping, stopped
    from qdgs_jax.kept_memory import keep_freed_memory
    from qdgs_jax.train.faces.recipe import read_recipe

    keep_freed_memory()  # before XLA's threads begin, which keep to what they began with
    recipe = read_recipe(config)
    late = recipe.optimizer.never_reached
    if late is not None:
        say(f"warning: {late}", "yellow")
    from qdgs_jax.train.faces.fit import train_faces, training_folder

    kept = training_folder(out)
    with (
        if_stopped(lambda: f"{kept} has the newest checkpoint; the same command goes on"),
        Stopping("after this step, with a checkpoint") as stopping,
        steps_shown(out.name) as shown,
    ):
        result = train_faces(
            recipe,
            data,
            out,
            start=start,
            progress=shown,
            should_stop=stopping.requested,
            told=say,
        )
    if not result.finished:
        done = f"{result.step:,} of {result.steps:,} steps are kept in {kept}"
        raise stopped(f"{done}; the same command goes on")
    say(f"face network after {result.steps:,} steps -> {out}")


@contextmanager
def steps_shown(name: str) -> Iterator[Callable[[Progress], None]]:
    """Show how far a training of steps is: a bar on a terminal, a line now and then elsewhere."""
    screen = console()
    last = -PLAIN_EVERY

    def figures(now: Progress) -> str:
        rate = f"{now.images_per_second:,.0f} images/s  " if now.images_per_second > 0 else ""
        return f"{rate}epoch {now.epoch}  loss {now.loss:.3f}  lr {now.learning_rate:.2g}"

    def line(now: Progress) -> None:
        nonlocal last
        if now.step == now.steps or time.monotonic() - last >= PLAIN_EVERY:
            last = time.monotonic()
            say(f"{name}: {now.step:,}/{now.steps:,} steps  {figures(now)}")

    if not screen.is_terminal:
        yield line
        return
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn
    from rich.progress import Progress as Bar

    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TextColumn("{task.fields[figures]}"),
    )
    with Bar(*columns, console=screen) as bar:
        task = bar.add_task(name, total=None, figures="")
        yield lambda now: bar.update(
            task, completed=now.step, total=now.steps, figures=figures(now)
        )
