"""`qdgs demo`: the whole way on the shapes domain, from latent search to a repaired classifier."""

from __future__ import annotations

import itertools
import shlex
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from qdgs_jax.cli import generate, init, search, train
from qdgs_jax.cli.console import if_stopped, say

if TYPE_CHECKING:
    from qdgs_jax.runs.folder import RunFolder


def demo(
    out: Annotated[
        Path | None,
        typer.Option(help="Run folder to create.", show_default="a new one in runs/"),
    ] = None,
) -> None:
    """Search, generate, train and report on the packaged shapes domain, in a few minutes."""
    from qdgs_jax.runs.folder import RunFolder

    folder = RunFolder(out or _new_folder())
    folder.check_free()
    with if_stopped(lambda: _left(folder)):
        _make(folder)


def _make(folder: RunFolder) -> None:
    began = time.monotonic()

    def stage(text: str) -> None:
        say(f"[{time.monotonic() - began:5.0f} s] {text}", "bold")

    stage("loading the generator and CLIP")
    from qdgs_jax.domains import load_domain
    from qdgs_jax.runs.config import parse_run
    from qdgs_jax.runs.prepare import begin_run

    config = parse_run(init.packaged_run("shapes"), "shapes.toml")
    domain = load_domain(config)
    stage(f"searching latents with {config.search.algorithm}, then at random")
    search.finish(folder, begin_run(folder, config, domain, baseline=True))
    stage("generating both data sets")
    generate.write_data_sets(folder, domain, generate.missing_data_sets(folder))
    stage("training classifiers, and repairing them with each data set")
    train.make_experiments(folder)
    stage("writing the report")
    from qdgs_jax.report import build_report

    page = build_report(folder.path)
    search.show_searches(folder)
    train.show_results(folder)
    stage(f"report: {page}")


def _left(folder: RunFolder) -> str:
    """How to go on with what a demo had not done yet."""
    if not folder.exists:
        return "nothing was written"
    place = shlex.quote(str(folder.path))
    searched = folder.finished and folder.baseline.finished
    first = [] if searched else [folder.resume_command]
    rest = [f"qdgs {command} {place}" for command in ("generate", "train", "report")]
    return f"go on with {', '.join(f'`{command}`' for command in (*first, *rest))}"


def _new_folder() -> Path:
    """Find a name that is free: runs/demo, runs/demo-2, ..."""
    names = itertools.chain(["demo"], (f"demo-{number}" for number in itertools.count(2)))
    return next(path for name in names if not (path := Path("runs") / name).exists())
