"""`qdgs generate`, `qdgs train` and `qdgs report`: what follows a search."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from qdgs_jax.cli.console import console, say

if TYPE_CHECKING:
    from qdgs_jax.runs.folder import RunFolder

Run = Annotated[Path, typer.Argument(help="A run folder.", metavar="RUN")]


def generate(run: Run) -> None:
    """Decode a finished run's elites into a labelled, balanced data set."""
    from qdgs_jax.domains import load_domain
    from qdgs_jax.runs.folder import RunFolder

    folder = RunFolder(run)
    folder.check_finished()
    write_data_sets(folder, load_domain(folder.config()))


def train(
    source: Annotated[
        Path, typer.Argument(help="A run folder, or a data set's folder.", metavar="RUN|DATA")
    ],
    out: Annotated[
        Path | None, typer.Option(help="Folder for the classifier of a data set.")
    ] = None,
    epochs: Annotated[int, typer.Option(min=1, help="Epochs on a data set.")] = 30,
    seed: Annotated[int, typer.Option(min=0, help="Seed on a data set.")] = 0,
) -> None:
    """Train classifiers: repair biased ones with a run's data sets, or learn one data set."""
    from qdgs_jax.datasets.shards import MANIFEST
    from qdgs_jax.runs.folder import RunFolder

    if (source / MANIFEST).is_file():
        _train_one(source, out or source.with_name("classifier"), epochs, seed)
        return
    folder = RunFolder(source)
    folder.config()
    repair_classifiers(folder)
    show_results(folder)


def report(run: Run) -> None:
    """Write a finished run's report, one HTML file that needs no network."""
    from qdgs_jax.report import build_report

    say(f"report: {build_report(run)}")


def write_data_sets(folder: RunFolder, domain: Any) -> None:
    """Write the data sets of a run and of its baseline."""
    from qdgs_jax.datasets.generate import generate_dataset
    from qdgs_jax.datasets.shards import refuse_other_dataset

    finished = [each for each in (folder, folder.baseline) if each.finished]
    for each in finished:
        refuse_other_dataset(each.data)
    for each in finished:
        with counting(f"images of {each.config().search.algorithm}") as progress:
            manifest = generate_dataset(each, domain, progress)
        counts = zip(manifest.label_counts, manifest.label_names, strict=True)
        labels = ", ".join(f"{count} of {name!r}" for count, name in counts)
        say(f"{each.data}: {manifest.count} images, {labels}")


def repair_classifiers(folder: RunFolder) -> None:
    """Run the repair experiment on a run's data sets, and let the oracle look at them."""
    from qdgs_jax.experiments.shapes_repair import run_experiment

    with counting("classifiers") as progress:
        run_experiment(folder, progress)


def show_results(folder: RunFolder) -> None:
    """Print the accuracy table and the groups' shares."""
    from rich.table import Table

    from qdgs_jax.experiments.shapes_repair import load_groups, load_repair

    result = load_repair(folder)
    if result is not None:
        table = Table(title="Balanced accuracy, % (mean ± standard error)", title_justify="left")
        for name in result.table_header():
            table.add_column(name, justify="right")
        for row in result.table_rows():
            table.add_row(*row)
        console().print(table)
    groups = load_groups(folder)
    if groups is not None:
        table = Table(title="Share of each group, % (by the oracle)", title_justify="left")
        table.add_column("group")
        for arm in groups.shares:
            table.add_column(arm, justify="right")
        for name in next(iter(groups.shares.values())):
            shares = (f"{100 * shares[name]:.1f}" for shares in groups.shares.values())
            table.add_row(name, *shares)
        console().print(table)


@contextlib.contextmanager
def counting(what: str) -> Iterator[Callable[[int, int], None]]:
    """Show how much is done: a bar on a terminal, nothing elsewhere."""
    screen = console()
    if not screen.is_terminal:
        yield lambda done, total: None
        return
    from rich.progress import Progress

    with Progress(console=screen, transient=True) as bar:
        task = bar.add_task(what, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def _train_one(data: Path, out: Path, epochs: int, seed: int) -> None:
    from qdgs_jax.ports.model_folder import check_destination, save_model
    from qdgs_jax.train.classify import train_classifier

    check_destination(out)
    trained = train_classifier(data, epochs=epochs, seed=seed)
    save_model(out, trained.config(), trained.params)
    for name, accuracy in zip(trained.label_names, trained.test_accuracy, strict=True):
        say(f"{name}: {100 * accuracy:.1f} % of its images held back are recognised")
    say(f"classifier of {trained.train_count} images -> {out}")
