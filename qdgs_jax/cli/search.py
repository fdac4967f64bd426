"""`qdgs init` and `qdgs search`: a run file to start from, and the run folder it leads to."""

from __future__ import annotations

import importlib.resources
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from qdgs_jax.cli.console import INTERRUPTED, Stopping, say, search_progress

if TYPE_CHECKING:
    from qdgs_jax.runs.config import RunConfig
    from qdgs_jax.runs.folder import RunFolder


def packaged_run(name: str) -> str:
    """Read a run file that the package carries.

    Raises:
        ValueError: there is none of that name.
    """
    assets = importlib.resources.files("qdgs_jax") / "assets"
    known = sorted(a.name.removesuffix(".toml") for a in assets.iterdir() if a.name[-5:] == ".toml")
    if name not in known:
        raise ValueError(f"no packaged run file {name!r}: there are {', '.join(known)}.")
    return (assets / f"{name}.toml").read_text(encoding="utf-8")


def init(
    name: Annotated[str, typer.Argument(help="Which packaged run file, for example shapes.")],
    file: Annotated[Path, typer.Argument(help="Where to write it.")],
) -> None:
    """Copy a packaged run file, to be edited and searched."""
    text = packaged_run(name)
    try:
        with file.open("x", encoding="utf-8") as stream:
            stream.write(text)
    except FileExistsError:
        raise ValueError(f"{file} exists already: give another name.") from None
    say(f"wrote {file}; search it with `qdgs search {file}`")


def search(
    source: Annotated[
        Path, typer.Argument(help="A run file; with --resume, the run folder.", metavar="RUN")
    ],
    out: Annotated[
        Path | None, typer.Option(help="Run folder to create.", show_default="runs/NAME")
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on in a run folder from its checkpoint.")
    ] = False,
    baseline: Annotated[
        bool, typer.Option("--baseline", help="Also sample at random with the same budget.")
    ] = False,
) -> None:
    """Search a generator's latent space and write a run folder."""
    from qdgs_jax.domains import load_domain
    from qdgs_jax.runs.config import load_run
    from qdgs_jax.runs.folder import RunFolder

    if resume:
        folder = RunFolder(source)
        domain = load_domain(folder.config())
    else:
        config = load_run(source)
        folder = RunFolder(out or Path("runs") / config.name)
        folder.check_free()
        domain = load_domain(config)
        begin(folder, config, domain, baseline)
    finish(folder, domain)
    show_searches(folder)


def begin(folder: RunFolder, config: RunConfig, domain: Any, baseline: bool) -> None:
    """Create a run folder once it is sure to work, with one for its baseline inside if wanted."""
    from qdgs_jax.runs.driver import baseline_of, prepare_search

    prepare_search(config, domain)
    folder.create(config)
    if baseline:
        folder.baseline.create(baseline_of(config))


def finish(folder: RunFolder, domain: Any) -> None:
    """Search until the budgets of a run and of its baseline are spent.

    Raises:
        typer.Exit: somebody stopped it; it says how to go on.
    """
    from qdgs_jax.runs.driver import prepare_search, run_search

    with Stopping() as stopping:
        for each in (folder, folder.baseline):
            if each.finished or not each.exists:
                continue
            config = each.config()
            task = prepare_search(config, domain)
            with search_progress(config.search.algorithm, task.budget) as progress:
                done = run_search(each, task, progress.show, stopping.requested)
            if not done:
                say(f"stopped; go on with `qdgs search --resume {folder.path}`")
                raise typer.Exit(INTERRUPTED)


def show_searches(folder: RunFolder) -> None:
    """Print what the search of a run found, and that of its baseline."""
    for each in (folder, folder.baseline):
        if each.finished:
            row = each.read_metrics()[-1]
            say(
                f"{each.config().search.algorithm}: QD-score {row['qd_score']:,.0f}, coverage "
                f"{100 * row['coverage']:.1f} %, {row['evaluations']:,} evaluations in "
                f"{row['seconds']:.0f} s -> {each.path}"
            )
