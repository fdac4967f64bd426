"""`qdgs demo`: the whole way on the shapes domain, from latent search to a repaired classifier."""

from __future__ import annotations

import itertools
import time
from pathlib import Path
from typing import Annotated

import typer

from qdgs_jax.cli import generate, init, search, train
from qdgs_jax.cli.console import say


def demo(
    out: Annotated[
        Path | None,
        typer.Option(help="Run folder to create.", show_default="a new one in runs/"),
    ] = None,
) -> None:
    """Search, generate, train and report on the packaged shapes domain, in a few minutes."""
    from qdgs_jax.domains import load_domain
    from qdgs_jax.report import build_report
    from qdgs_jax.runs.config import parse_run
    from qdgs_jax.runs.folder import RunFolder
    from qdgs_jax.runs.prepare import begin_run

    began = time.monotonic()

    def stage(text: str) -> None:
        say(f"[{time.monotonic() - began:5.0f} s] {text}", "bold")

    config = parse_run(init.packaged_run("shapes"), "shapes.toml")
    folder = RunFolder(out or _new_folder())
    folder.check_free()
    stage("loading the generator and CLIP")
    domain = load_domain(config)
    stage(f"searching latents with {config.search.algorithm}, then at random")
    search.finish(folder, begin_run(folder, config, domain, baseline=True))
    stage("generating both data sets")
    generate.write_data_sets(folder, domain)
    stage("training classifiers, and repairing them with each data set")
    train.make_experiments(folder)
    stage("writing the report")
    page = build_report(folder.path)
    search.show_searches(folder)
    train.show_results(folder)
    stage(f"report: {page}")


def _new_folder() -> Path:
    """Find a name that is free: runs/demo, runs/demo-2, ..."""
    names = itertools.chain(["demo"], (f"demo-{number}" for number in itertools.count(2)))
    return next(path for name in names if not (path := Path("runs") / name).exists())
