"""`qdgs search`: from a run file to a run folder, and further in a run folder."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from qdgs_jax.cli.console import INTERRUPTED, Stopping, say, search_progress

if TYPE_CHECKING:
    from qdgs_jax.runs.config import RunConfig
    from qdgs_jax.runs.driver import SearchTask
    from qdgs_jax.runs.folder import RunFolder

MAX_SEED = 2**31 - 1


def search(
    source: Annotated[
        Path, typer.Argument(help="A run file; with --resume, the run folder.", metavar="RUN")
    ],
    out: Annotated[
        Path | None,
        typer.Option(help="Run folder to create.", show_default="runs/NAME, or runs/NAME-seed-N"),
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on in a run folder from its checkpoint.")
    ] = False,
    baseline: Annotated[
        bool, typer.Option("--baseline", help="Also sample at random with the same budget.")
    ] = False,
    seed: Annotated[
        int | None, typer.Option(min=0, max=MAX_SEED, help="Instead of the run file's seed.")
    ] = None,
    evaluations: Annotated[
        int | None, typer.Option(min=1, help="Budget, instead of the run file's.")
    ] = None,
    plan: Annotated[
        bool, typer.Option("--plan", help="Say what the search would cost, and write nothing.")
    ] = False,
) -> None:
    """Search a generator's latent space and write a run folder."""
    from qdgs_jax.runs.folder import RunFolder

    if plan:
        if out is not None or resume:
            raise ValueError("--plan writes nothing: leave out --out and --resume.")
        show_plans(_configured(source, seed, evaluations), baseline)
        return
    if resume:
        if out is not None or seed is not None:
            raise ValueError("--resume goes on with a run as it is: leave out --out and --seed.")
        folder = RunFolder(source)
        tasks = _take_up(folder, evaluations, baseline)
    else:
        folder, tasks = _begin(source, out, baseline, seed, evaluations)
    finish(folder, tasks)
    show_searches(folder)


def _begin(
    source: Path, out: Path | None, baseline: bool, seed: int | None, evaluations: int | None
) -> tuple[RunFolder, list[tuple[RunFolder, SearchTask]]]:
    """Create the run folder of a run file."""
    from qdgs_jax.runs.folder import RunFolder
    from qdgs_jax.runs.prepare import begin_run, check_budget

    config = _configured(source, seed, evaluations)
    name = config.name if seed is None else f"{config.name}-seed-{seed}"
    folder = RunFolder(out or Path("runs") / name)
    folder.check_free()
    check_budget(config)
    domain = load(config)
    tasks = begin_run(folder, config, domain, baseline)
    warn_of_measures(config, domain)
    return folder, tasks


def _configured(source: Path, seed: int | None, evaluations: int | None) -> RunConfig:
    """Read a run file, with another seed or budget if one is given."""
    from qdgs_jax.runs.config import load_run

    config = load_run(source)
    if seed is not None:
        config = config.model_copy(update={"seed": seed})
    if evaluations is not None:
        search = config.search.model_copy(update={"evaluations": evaluations})
        config = config.model_copy(update={"search": search})
    return config


def show_plans(config: RunConfig, baseline: bool) -> None:
    """Print what a search, and that of its baseline, would cost."""
    from qdgs_jax.runs.config import baseline_of
    from qdgs_jax.runs.plan import plan_search
    from qdgs_jax.runs.prepare import check_budget

    parts = [config, baseline_of(config)] if baseline else [config]
    for part in parts:
        check_budget(part)
    domain = load(config)
    for part in parts:
        for line in plan_search(part, domain).lines():
            say(line)


def _take_up(
    folder: RunFolder, evaluations: int | None, baseline: bool
) -> list[tuple[RunFolder, SearchTask]]:
    """Prepare what is left to search in a run folder."""
    from qdgs_jax.runs.prepare import prepare_search, take_up_run

    left = take_up_run(folder, evaluations, baseline)
    if not left:
        say(f"{folder.path} is finished; --evaluations gives it a larger budget")
        return []
    domain = load(left[0][1])
    return [(each, prepare_search(config, domain)) for each, config in left]


def load(config: RunConfig) -> Any:
    """Load a run's domain, and say so."""
    from qdgs_jax.domains import load_domain

    say(f"{config.name}: loading the generator and CLIP")
    return load_domain(config)


def warn_of_measures(config: RunConfig, domain: Any) -> None:
    """Say where a measure hardly moves over the generator's own images."""
    from qdgs_jax import keys

    if not hasattr(domain, "spread"):
        return
    spreads = domain.spread(domain.params, keys.stream(keys.root(config.seed), "spread"))
    for measure, spread in zip(config.measures, spreads, strict=True):
        warning = spread.warning()
        if warning is not None:
            say(f"warning: the measure {measure.name!r} {warning}", "yellow")


def finish(folder: RunFolder, tasks: Sequence[tuple[RunFolder, SearchTask]]) -> None:
    """Search until the budgets of a run and of its baseline are spent.

    Raises:
        typer.Exit: somebody stopped it; it says how to go on.
    """
    from qdgs_jax.runs.driver import run_search

    try:
        with Stopping() as stopping:
            for each, task in tasks:
                algorithm = each.config().search.algorithm
                with search_progress(algorithm, task.budget) as progress:
                    done = run_search(each, task, progress.show, stopping.requested, progress.tell)
                if not done:
                    raise KeyboardInterrupt
    except KeyboardInterrupt:
        say(f"stopped; go on with `{folder.resume_command}`")
        raise typer.Exit(INTERRUPTED) from None


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
