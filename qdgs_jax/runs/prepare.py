"""From a run file and a domain to searches that are ready to run, or to go on.

What is refused is refused here, before a folder is made or anything is compiled.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from qdgs_jax.domains.weights import fingerprints
from qdgs_jax.runs.config import (
    RunConfig,
    baseline_of,
    parse_run,
    resolve_folders,
    run_to_toml,
    write_run_file,
)
from qdgs_jax.runs.driver import SearchTask
from qdgs_jax.runs.folder import RunFolder, RunFolderError
from qdgs_jax.runs.provenance import check_weights, read_provenance
from qdgs_jax.runs.tables import BASELINE

if TYPE_CHECKING:
    import jax

    from qdgs_jax.archive import Archive
    from qdgs_jax.domains.protocol import Domain

# What may change between a search and its continuation: the budget, and what only rounding feels.
FREE_TABLES = frozenset({"name", "dataset", "audit"})
FREE_SETTINGS = frozenset({"evaluations", "chunk", "checkpoint_seconds"})


def begin_run(
    folder: RunFolder,
    config: RunConfig,
    domain: Domain[Any],
    baseline: bool = False,
    look: Callable[[], None] = lambda: None,
) -> list[tuple[RunFolder, SearchTask]]:
    """Create a run folder once it is sure to work, with one for its baseline inside if wanted.

    Args:
        folder: where to.
        config: the run.
        domain: its generator and CLIP.
        baseline: whether to sample at random, too.
        look: called before the folder is made; whoever is stopped there leaves nothing behind.

    Returns:
        The folders and what to search in each.

    Raises:
        RunFolderError: the place is taken.
        ValueError: the budget is too small.
    """
    parts = [(folder, config)]
    if baseline:
        parts.append((folder.baseline, baseline_of(config)))
    tasks = [(each, prepare_search(part, domain)) for each, part in parts]
    look()
    for each, part in parts:
        each.create(part)
    return tasks


def take_up_run(
    folder: RunFolder, evaluations: int | None = None, baseline: bool = False
) -> list[tuple[RunFolder, RunConfig]]:
    """Find what is left to search in a run folder, and write what is new into its run files.

    Args:
        folder: where a run was begun.
        evaluations: a larger budget; None is that of its run file, which may have grown there.
        baseline: add a baseline if there is none.

    Returns:
        The folders that are not finished, and the run of each.

    Raises:
        RunFolderError: there is no run, its run file has changed in more than the budget, or
            another process is searching there.
        ValueError: the budget is smaller than what was spent, or weights are not those of before.
    """
    config = folder.config()
    if evaluations is not None:
        search = config.search.model_copy(update={"evaluations": evaluations})
        config = config.model_copy(update={"search": search})
    parts = [(folder, config)]
    if baseline or folder.baseline.exists:
        parts.append((folder.baseline, baseline_of(config)))
    check_weights(folder.path, config.domain)
    for each, part in parts:
        check_budget(part)
        check_same_search(each, part)
        if each.last_step > part.search.steps:
            raise RunFolderError(
                f"search.evaluations = {part.search.evaluations} of {each.path} is less than what "
                "was spent already: give more, or begin another run."
            )
    for each, part in parts:
        if not each.exists:
            each.create(part)
        elif each.config() != part:
            with each.lock():
                write_run_file(part, each.run_file)
    return [
        (each, part)
        for each, part in parts
        if not (each.finished and each.last_step == part.search.steps)
    ]


def check_budget(config: RunConfig) -> None:
    """Refuse a budget that does not reach for the start latents and one step.

    Raises:
        ValueError: it does not.
    """
    settings = config.search
    if settings.steps < 1:
        raise ValueError(
            f"search.evaluations = {settings.evaluations}: the start latents take "
            f"{settings.start_evaluations} and a step {settings.step_evaluations}; give at least "
            f"{settings.start_evaluations + settings.step_evaluations}."
        )


def check_same_search(folder: RunFolder, config: RunConfig) -> None:
    """Refuse to go on with another search than the one that was begun.

    The budget, how often metrics and checkpoints come, the name, and the tables of the data set, of
    its audit and of experiments may change.

    Raises:
        RunFolderError: something else did; it is named.
    """
    from qdgs_jax.runs.checkpoint import DamagedCheckpointError, read_about
    from qdgs_jax.runs.checkpoint_writer import find_checkpoints

    for _, path in find_checkpoints(folder.checkpoints):
        try:
            text = read_about(path)["run"]
        except DamagedCheckpointError:
            continue
        begun = resolve_folders(parse_run(text, f"the run that {path} remembers"), folder.path)
        changed = _changes(_at_the_places_of(config, begun, folder), config)
        if changed:
            raise RunFolderError(
                f"{folder.run_file} is not the run that was begun: {'; '.join(changed)}. The "
                "budget can grow, and what does not concern the search can change; begin another "
                "run for the rest."
            )
        return


def _at_the_places_of(config: RunConfig, begun: RunConfig, folder: RunFolder) -> RunConfig:
    """What was begun, with its weights where they are now; `check_weights` tells them apart."""
    if begun.domain.kind != config.domain.kind:
        return begun
    kept = read_provenance(folder.path)
    places = {"folder", *(kept.last.weights if kept is not None else ())}
    now = {name: value for name, value in dict(config.domain).items() if name in places}
    return begun.model_copy(update={"domain": begun.domain.model_copy(update=now)})


def check_same_run(folder: RunFolder, config: RunConfig) -> None:
    """Refuse to take a run folder for that of a run which it is not.

    Raises:
        RunFolderError: they differ in what is searched, or the folder's budget is larger.
    """
    was = folder.config()
    changed = _changes(was, config)
    if was.search.evaluations > config.search.evaluations:
        budgets = was.search.evaluations, config.search.evaluations
        changed.append("search.evaluations was {} and is {}".format(*budgets))
    if changed:
        raise RunFolderError(
            f"{folder.path} already holds another run: {'; '.join(changed)}. Give another --out."
        )


def _changes(begun: RunConfig, config: RunConfig) -> list[str]:
    """What differs between two runs in what they search, by name."""
    from qdgs_jax.runs.experiment_tables import EXPERIMENT_TABLES

    was, now = (flat_settings(each.model_dump()) for each in (begun, config))
    free = FREE_TABLES | set(EXPERIMENT_TABLES)
    free_settings = {f"search.{name}" for name in FREE_SETTINGS}
    return [
        f"{name} was {was.get(name)!r} and is {now.get(name)!r}"
        for name in dict.fromkeys([*was, *now])
        if name.partition(".")[0] not in free
        and name not in free_settings
        and was.get(name) != now.get(name)
    ]


def flat_settings(table: Any, path: str = "") -> dict[str, Any]:
    """All values of nested tables by their full names."""
    if isinstance(table, Mapping):
        parts = [(f"{path}.{key}" if path else str(key), value) for key, value in table.items()]
    elif isinstance(table, list | tuple) and any(isinstance(entry, Mapping) for entry in table):
        parts = [(f"{path}[{number}]", value) for number, value in enumerate(table)]
    else:
        return {path: table}
    return {
        name: value for part, inner in parts for name, value in flat_settings(inner, part).items()
    }


def prepare_search(config: RunConfig, domain: Domain[Any]) -> SearchTask:
    """Put emitter, archive and domain of a run together.

    Args:
        config: the run.
        domain: its generator and CLIP.

    Raises:
        ValueError: the budget does not reach for the start latents and one step.
    """
    from qdgs_jax import keys
    from qdgs_jax.emitters.registry import build_emitter
    from qdgs_jax.emitters.space import clip
    from qdgs_jax.search import Search

    check_budget(config)
    settings = config.search
    emitter = build_emitter(
        settings.algorithm, settings, domain.latent_dim, len(config.measures), domain.sample
    )
    chunk = near_divisor(settings.steps, settings.chunk)
    search = Search(domain, emitter, chunk=chunk, create_archive=archive_of(config))
    sampling = settings.algorithm == BASELINE
    stream = "random" if sampling else "search"
    root = keys.root(config.seed)
    start_key = keys.stream(root, f"{stream}/start")

    def start_latents() -> jax.Array:
        if sampling:
            latents: jax.Array = domain.sample(domain.params, start_key, settings.emitters)
        else:
            latents = clip(domain.start_latents(domain.params, start_key), settings.bounds)
        return latents

    return SearchTask(
        search=search,
        params=domain.params,
        start_latents=start_latents,
        num_start=settings.emitters,
        key=keys.stream(root, stream),
        steps=settings.steps,
        step_evaluations=settings.step_evaluations,
        chunk=chunk,
        spent=settings.start_evaluations - settings.emitters,
        checkpoint_seconds=settings.checkpoint_seconds,
        seed=config.seed,
        run=run_to_toml(config),
        measures=tuple(measure.name for measure in config.measures),
        weights=fingerprints(config.domain),
    )


def archive_of(config: RunConfig) -> Callable[[jax.Array], Archive]:
    """What makes the empty archive of a run for one example latent Float[D].

    It is a grid over the measures, or has cells around centroids that follow from the run's seed.
    """
    from qdgs_jax import keys
    from qdgs_jax.archive import CVTArchive, GridArchive, cvt_centroids

    settings = config.grid
    if config.archive.cvt_cells is None:
        return functools.partial(GridArchive.create, **settings)
    del settings["dims"]
    key = keys.stream(keys.root(config.seed), "centroids")
    centroids = cvt_centroids(key, config.archive.cvt_cells, config.ranges)
    return functools.partial(CVTArchive.create, centroids=centroids, **settings)


def near_divisor(steps: int, chunk: int) -> int:
    """The divisor of a number of steps that is nearest to a chunk, for one program to serve all.

    Where none lies between half and twice the chunk, it stays: single steps make up the rest.
    """
    fitting = [d for d in range(-(-chunk // 2), 2 * chunk + 1) if steps % d == 0]
    return min(fitting, key=lambda d: abs(math.log(d / chunk)), default=chunk)
