"""`qdgs search`: from a run file to a run folder per seed, and further in a run folder."""

from __future__ import annotations

import functools
import math
import shlex
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from qdgs_jax.cli.console import Stopping, if_stopped, say, search_progress, show_table

if TYPE_CHECKING:
    from qdgs_jax.domains.protocol import Domain
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
        typer.Option(
            help="Run folder to create; of several seeds, each in OUT-seed-N.",
            show_default="runs/NAME, or runs/NAME-seed-N",
        ),
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on in a run folder from its checkpoint.")
    ] = False,
    baseline: Annotated[
        bool, typer.Option("--baseline", help="Also sample at random with the same budget.")
    ] = False,
    seed: Annotated[
        list[str] | None,
        typer.Option(
            "--seed",
            "--seeds",
            metavar="N[,N...]",
            help="Instead of the run file's seed; several, 0,1,2 or one by one, make a run each.",
        ),
    ] = None,
    evaluations: Annotated[
        int | None, typer.Option(min=1, help="Budget, instead of the run file's.")
    ] = None,
    plan: Annotated[
        bool, typer.Option("--plan", help="Say what the search would cost, and write nothing.")
    ] = False,
) -> None:
    """Search a generator's latent space and write a run folder."""
    say(f"{source}: reading {'what was found so far' if resume else 'the run file'}")
    from qdgs_jax.runs.folder import RunFolder

    seeds = parse_seeds(seed or [])
    if plan:
        if out is not None or resume:
            raise ValueError(
                "--plan writes nothing, and is of a whole search: leave out --out and --resume, "
                "and give a run file; that of a run folder is run.toml in it."
            )
        show_plans(source, evaluations, baseline, seeds)
        return
    if resume:
        if out is not None or seeds:
            raise ValueError("--resume goes on with a run as it is: leave out --out and --seed.")
        folder = RunFolder(source)
        with if_stopped(lambda: f"go on with `{folder.resume_command}`"):
            finish(folder, _take_up(folder, evaluations, baseline))
        show_searches(folder)
        return
    runs = _runs(source, out, seeds, evaluations)
    same = _command(source, out, baseline, seeds, evaluations)
    unseen: Path | None = source  # what follows from the run file is looked at once
    for number, (folder, config) in enumerate(runs):
        if len(runs) > 1:
            say(f"seed {config.seed}, {number + 1} of {len(runs)}", "bold")
        with if_stopped(functools.partial(_way_on, folder, same, len(runs) > 1)):
            if folder.exists:
                finish(folder, _take_up(folder, config.search.evaluations, baseline))
            else:
                finish(folder, _begin(folder, config, baseline, unseen))
                unseen = None
        show_searches(folder)
    if len(runs) > 1:
        show_summary([folder for folder, _ in runs])


def parse_seeds(texts: Sequence[str]) -> list[int]:
    """Read the values of --seed, each a number or several with commas between.

    Raises:
        ValueError: a seed is no number or out of range, or stands there twice.
    """
    words = [word.strip() for text in texts for word in text.split(",")]
    for word in words:
        if not (word.isascii() and word.isdigit() and int(word) <= MAX_SEED):
            raise ValueError(
                f"--seed {','.join(texts)}: {word!r} is no whole number from 0 to {MAX_SEED}; give "
                "one, or several such as 0,1,2."
            )
    seeds = [int(word) for word in words]
    twice = next((seed for seed in seeds if seeds.count(seed) > 1), None)
    if twice is not None:
        raise ValueError(f"--seed gives {twice} twice: a seed makes one run.")
    return seeds


def _command(
    source: Path, out: Path | None, baseline: bool, seeds: Sequence[int], evaluations: int | None
) -> str:
    """What was called, to be pasted into a shell."""
    words = ["qdgs", "search", str(source)]
    words += ["--out", str(out)] if out is not None else []
    words += ["--baseline"] if baseline else []
    words += ["--seed", ",".join(map(str, seeds))] if seeds else []
    words += ["--evaluations", str(evaluations)] if evaluations else []
    return shlex.join(words)


def _way_on(folder: RunFolder, same: str, several: bool) -> str:
    """How to go on once a search was stopped; of several seeds the same call does."""
    if several:
        return f"go on with `{same}`, which passes over what is finished"
    if folder.exists:
        return f"go on with `{folder.resume_command}`"
    return f"nothing was written; begin with `{same}`"


def _numbered(path: Path, seed: int) -> Path:
    return path.with_name(f"{path.name}-seed-{seed}")


def _runs(
    source: Path, out: Path | None, seeds: Sequence[int], evaluations: int | None
) -> list[tuple[RunFolder, RunConfig]]:
    """The run of each seed and where it will be.

    All places are free, but that several seeds may have been begun by an earlier call.
    """
    from qdgs_jax.runs.folder import RunFolder
    from qdgs_jax.runs.prepare import check_budget, check_same_run

    config = _configured(source, evaluations)
    base = out or Path("runs") / config.name
    runs = [(RunFolder(base), config)]
    if seeds:
        alone = out is not None and len(seeds) == 1
        runs = [
            (
                RunFolder(base if alone else _numbered(base, seed)),
                config.model_copy(update={"seed": seed}),
            )
            for seed in seeds
        ]
    check_budget(config)
    for folder, each in runs:
        if len(runs) > 1 and folder.exists:
            check_same_run(folder, each)
        else:
            folder.check_free()
    return runs


def _begin(
    folder: RunFolder, config: RunConfig, baseline: bool, source: Path | None
) -> list[tuple[RunFolder, SearchTask]]:
    """Create a run folder, once the generator was looked at.

    What follows the search is looked at, too, where `source` says what run file it is in.
    """
    from qdgs_jax.runs.config import baseline_of
    from qdgs_jax.runs.prepare import begin_run

    say_budgets([config, baseline_of(config)] if baseline else [config])
    domain = load(config)
    if source is not None:
        check_what_follows(config, domain, source)
    return begin_run(folder, config, domain, baseline, lambda: warn_of_measures(config, domain))


def _configured(source: Path, evaluations: int | None) -> RunConfig:
    """Read a run file, with another budget if one is given."""
    from qdgs_jax.runs.config import read_run_file

    config = read_run_file(source)
    if evaluations is not None:
        search = config.search.model_copy(update={"evaluations": evaluations})
        config = config.model_copy(update={"search": search})
    return config


def show_plans(source: Path, evaluations: int | None, baseline: bool, seeds: Sequence[int]) -> None:
    """Print what a search, that of its baseline, and those of several seeds would cost."""
    from qdgs_jax.runs.config import baseline_of
    from qdgs_jax.runs.plan import TRIAL_SECONDS, plan_search, plan_seeds
    from qdgs_jax.runs.prepare import check_budget

    config = _configured(source, evaluations)
    if seeds:
        config = config.model_copy(update={"seed": seeds[0]})
    parts = [config, baseline_of(config)] if baseline else [config]
    for part in parts:
        check_budget(part)
    say_budgets(parts)
    domain = load(config)
    check_what_follows(config, domain, source)
    plans = []
    for part in parts:
        name = part.search.algorithm
        say(f"{name}: compiling a step, then trying it for about {TRIAL_SECONDS:.0f} s")
        plans.append(plan_search(part, domain))
        for line in plans[-1].lines():
            say(line)
    if len(seeds) > 1:
        say(plan_seeds(plans, len(seeds)))


def _take_up(
    folder: RunFolder, evaluations: int | None, baseline: bool
) -> list[tuple[RunFolder, SearchTask]]:
    """Prepare what is left to search in a run folder."""
    from qdgs_jax.runs.prepare import prepare_search, take_up_run

    left = take_up_run(folder, evaluations, baseline)
    if not left:
        say(
            f"{folder.path} is finished; --evaluations gives it a larger budget"
            + ("" if folder.baseline.exists else ", --baseline a baseline")
        )
        return []
    say_budgets([config for _, config in left])
    domain = load(left[0][1])
    try:
        check_what_follows(folder.config(), domain, folder.run_file)
    except ValueError as error:  # what is searched already is not lost for it
        say(f"warning: {error}", "yellow")
    return [(each, prepare_search(config, domain)) for each, config in left]


def say_budgets(configs: Sequence[RunConfig]) -> None:
    """Say where a budget is no whole number of steps, or a handful of steps that adapt nothing."""
    for config in configs:
        budget = config.search
        if budget.left_over is not None:
            say(f"{budget.algorithm}: {budget.left_over}")
        if budget.few_steps is not None:
            say(f"warning: {budget.algorithm}: {budget.few_steps}", "yellow")


def load(config: RunConfig) -> Domain[Any]:
    """Load a run's domain, and say so."""
    from qdgs_jax.domains import load_domain

    say(f"{config.name}: loading the generator and CLIP")
    return load_domain(config)


def check_what_follows(config: RunConfig, domain: Domain[Any], place: Path) -> None:
    """Refuse what could not become data sets and an audit, and say what is doubtful."""
    from qdgs_jax.experiments.ahead import look_ahead

    for doubt in look_ahead(config, domain, place):
        say(f"warning: {doubt}", "yellow")


def warn_of_measures(config: RunConfig, domain: Domain[Any]) -> None:
    """Say where a measure hardly moves over the generator's own images, or its range is far off."""
    from qdgs_jax import keys

    say(f"{config.name}: looking at the generator's own images")
    spreads = domain.spread(domain.params, keys.stream(keys.root(config.seed), "spread"))
    for measure, spread in zip(config.measures, spreads, strict=True):
        warning = spread.warning()
        beyond = spread.range_warning(*measure.range, measure.cells)
        for doubt in (warning, beyond):
            if doubt is not None:
                say(f"warning: the measure {measure.name!r} {doubt}", "yellow")


def finish(folder: RunFolder, tasks: Sequence[tuple[RunFolder, SearchTask]]) -> None:
    """Search until the budgets of a run and of its baseline are spent.

    Raises:
        KeyboardInterrupt: somebody stopped it; the run can be taken up again.
    """
    from qdgs_jax.runs.driver import run_search

    with Stopping() as stopping:
        for each, task in tasks:
            algorithm = each.config().search.algorithm
            with search_progress(algorithm, task.budget) as progress:
                wished = stopping.requested
                done = run_search(each, task, progress.show, wished, progress.tell, progress.warn)
            if not done:
                raise KeyboardInterrupt


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


def show_summary(folders: Sequence[RunFolder]) -> None:
    """Print what the searches of several seeds found on average, and their baselines."""
    rows = []
    for arm in (folders, [folder.baseline for folder in folders]):
        if all(each.finished for each in arm):
            ends = [each.read_metrics()[-1] for each in arm]
            rows.append(
                [
                    arm[0].config().search.algorithm,
                    mean_and_error([row["qd_score"] for row in ends]),
                    mean_and_error([100 * row["coverage"] for row in ends]),
                    mean_and_error([row["best"] for row in ends]),
                ]
            )
    title = f"mean ± standard error of {len(folders)} seeds"
    show_table(title, ["algorithm", "QD-score", "coverage, %", "best objective"], rows)


def mean_and_error(values: Sequence[float]) -> str:
    """Mean and standard error of at least two numbers, as a text."""
    error = statistics.stdev(values) / math.sqrt(len(values))
    return f"{statistics.mean(values):,.2f} ± {error:,.2f}"
