"""`qdgs demo`: the whole way on a world that the package carries, from latent search to report."""

from __future__ import annotations

import enum
import itertools
import shlex
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from qdgs_jax.cli import audit, generate, init, search, train
from qdgs_jax.cli.console import if_stopped, say

if TYPE_CHECKING:
    from qdgs_jax.runs.folder import RunFolder


class World(enum.StrEnum):
    """What is searched."""

    SHAPES = "shapes"
    FACES = "faces"


RUN_FILES = {World.SHAPES: "shapes", World.FACES: "drawn-faces"}
TRAINING = {
    World.SHAPES: "training classifiers, and repairing them with each data set",
    World.FACES: "training face recognition, pretrained on people of each kind and on none",
}
JUDGE = "embedded:faces-oracle"


def demo(
    world: Annotated[
        World,
        typer.Argument(help="shapes repairs classifiers; faces makes people and learns from them."),
    ] = World.SHAPES,
    out: Annotated[
        Path | None,
        typer.Option(help="Run folder to create.", show_default="a new one in runs/"),
    ] = None,
) -> None:
    """Search, generate and report on a packaged domain, in a few minutes.

    Shapes also train classifiers and repair them. Faces are grouped into people and audited, and
    networks that are pretrained on them learn to recognise others.
    """
    from qdgs_jax.runs.folder import RunFolder

    folder = RunFolder(out or _new_folder())
    folder.check_free()
    with if_stopped(lambda: _left(folder, world)):
        _make(folder, world)


def _make(folder: RunFolder, world: World) -> None:
    began = time.monotonic()

    def stage(text: str) -> None:
        say(f"[{time.monotonic() - began:5.0f} s] {text}", "bold")

    stage("loading the generator and CLIP")
    from qdgs_jax.datasets.manifest import PEOPLE
    from qdgs_jax.domains import load_domain
    from qdgs_jax.runs.config import parse_run
    from qdgs_jax.runs.prepare import begin_run

    name = RUN_FILES[world]
    config = parse_run(init.packaged_run(name), f"{name}.toml")
    domain = load_domain(config)
    stage(f"searching latents with {config.search.algorithm}, then at random")
    search.finish(folder, begin_run(folder, config, domain, baseline=True))
    stage("generating both data sets")
    missing = generate.missing_data_sets(folder)
    generate.write_data_sets(folder, domain, missing, changes={"subjects": None})
    if config.dataset.subjects is not None:
        stage("finding people among the latents, and drawing each several times")
        for each in (folder, folder.baseline):
            generate.write_data_sets(folder, domain, [each], out=each.path / PEOPLE)
    if config.audit:
        stage("counting groups of people, by CLIP and by an oracle")
        from qdgs_jax.experiments.audit_plan import plan_audit

        audit.count_groups(plan_audit(folder.path, (), judge=JUDGE))
    from qdgs_jax.experiments import experiments_of

    if experiments_of(config):
        stage(TRAINING[world])
        train.make_experiments(folder)
    stage("writing the report")
    from qdgs_jax.report import build_report

    page = build_report(folder.path)
    search.show_searches(folder)
    train.show_results(folder)
    stage(f"report: {page}")


def _left(folder: RunFolder, world: World) -> str:
    """How to go on with what a demo had not done yet."""
    if not folder.exists:
        return "nothing was written"
    from qdgs_jax.datasets.manifest import MANIFEST, PEOPLE

    run, random = (shlex.quote(str(each.path)) for each in (folder, folder.baseline))
    faces = world is World.FACES
    commands = [] if folder.finished and folder.baseline.finished else [folder.resume_command]
    if not (folder.baseline.data / MANIFEST).exists():
        commands.append(f"qdgs generate {run}{' --plain' if faces else ''}")
    for each, place in ((folder, run), (folder.baseline, random)):
        if faces and not (each.path / PEOPLE / "data" / MANIFEST).exists():
            commands.append(f"qdgs generate {place} --out {place}/{PEOPLE}")
    commands += [f"qdgs audit {run} --judge {JUDGE}"] if faces else []
    commands += [f"qdgs train {run}", f"qdgs report {run}"]
    return f"go on with {', '.join(f'`{command}`' for command in commands)}"


def _new_folder() -> Path:
    """Find a name that is free: runs/demo, runs/demo-2, ..."""
    names = itertools.chain(["demo"], (f"demo-{number}" for number in itertools.count(2)))
    return next(path for name in names if not (path := Path("runs") / name).exists())
