"""The algorithms a run file can name, and what builds their emitters.

`algorithms` says what archive each wants, docs/algorithms.md what it is and when to use it. All
spend the same number of evaluations per step, `emitters * (1 + branches)`: those with gradients use
one per emitter for its parent, the others for one more candidate. SQUAD pairs them, and leaves one
out of an odd number.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, Protocol

from qdax.core.emitters.emitter import Emitter

from qdgs_jax.algorithms import SOLVERS, TRAITS, ArchiveKind, traits_of
from qdgs_jax.emitters import (
    DominatedNoveltyEmitter,
    EvoJaxEmitter,
    EvolutionStrategyEmitter,
    GaussianEmitter,
    GradientArborescenceEmitter,
    IsoLineEmitter,
    OMGMegaEmitter,
    RandomEmitter,
    SquadEmitter,
    checks,
)
from qdgs_jax.emitters.gradients import Normalization
from qdgs_jax.emitters.optimizer import Optimizer
from qdgs_jax.emitters.protocol import Prior
from qdgs_jax.emitters.ranking import Ranking
from qdgs_jax.emitters.restarts import RestartRule
from qdgs_jax.emitters.space import Bounds
from qdgs_jax.keywords import named

# Beyond this length of latents the full covariance matrices would outgrow the archive.
_MAX_FULL_DIM = 1024
_POPULATION = 1024  # of algorithms with a population


class EmitterSettings(Protocol):
    """What `build_emitter` reads of a run file's [search] table."""

    @property
    def emitters(self) -> int:
        """Number E of independent emitters."""

    @property
    def branches(self) -> int:
        """Candidates per emitter and step; a parent's own evaluation comes on top."""

    @property
    def sigma0(self) -> float:
        """Initial step size of the sampled coefficients or latents."""

    @property
    def step_size(self) -> float:
        """Learning rate of the parents' optimiser."""

    @property
    def restart(self) -> RestartRule:
        """When an emitter starts afresh."""

    @property
    def normalization(self) -> Normalization:
        """What branches make of a parent's gradients."""

    @property
    def bounds(self) -> Bounds:
        """(low, high) of every component of a latent, or None."""


class Task(NamedTuple):
    """What an emitter is built for."""

    settings: EmitterSettings
    latent_dim: int
    num_measures: int
    prior: Prior | None

    @property
    def step_evaluations(self) -> int:
        """Evaluations of one step."""
        return self.settings.emitters * (1 + self.settings.branches)


class Algorithm(NamedTuple):
    """An entry of the table.

    Attributes:
        build: Makes the emitter.
        archive: See `algorithms.Traits`.
        bounded: See there.
    """

    build: Callable[[Task], Emitter]
    archive: ArchiveKind
    bounded: bool


def _random(task: Task) -> Emitter:
    return RandomEmitter(task.step_evaluations, task.latent_dim, task.prior)


def _map_elites(task: Task) -> Emitter:
    return GaussianEmitter(task.step_evaluations, task.settings.sigma0, bounds=task.settings.bounds)


def _map_elites_line(task: Task) -> Emitter:
    return IsoLineEmitter(
        task.step_evaluations, iso_sigma=0.1 * task.settings.sigma0, bounds=task.settings.bounds
    )


def _cma_me(ranking: Ranking) -> Callable[[Task], Emitter]:
    def build(task: Task) -> Emitter:
        return EvolutionStrategyEmitter(
            num_emitters=task.settings.emitters,
            batch=1 + task.settings.branches,
            sigma0=task.settings.sigma0,
            ranking=ranking,
            restart=task.settings.restart,
            bounds=task.settings.bounds,
            form="full" if task.latent_dim <= _MAX_FULL_DIM else "separable",
        )

    return build


def _omg_mega(task: Task) -> Emitter:
    return OMGMegaEmitter(
        num_emitters=task.settings.emitters,
        branches=task.settings.branches,
        num_measures=task.num_measures,
        sigma=task.settings.sigma0,
        normalization=task.settings.normalization,
        bounds=task.settings.bounds,
    )


def _cma_mega(ranking: Ranking) -> Callable[[Task], Emitter]:
    def build(task: Task) -> Emitter:
        return GradientArborescenceEmitter(
            num_emitters=task.settings.emitters,
            branches=task.settings.branches,
            num_measures=task.num_measures,
            sigma0=task.settings.sigma0,
            optimizer=Optimizer("adam", task.settings.step_size),
            ranking=ranking,
            restart=task.settings.restart,
            bounds=task.settings.bounds,
            normalization=task.settings.normalization,
            objective_coefficient="nonnegative",
        )

    return build


def _dns(task: Task) -> Emitter:
    return DominatedNoveltyEmitter(
        task.step_evaluations, iso_sigma=0.1 * task.settings.sigma0, bounds=task.settings.bounds
    )


def _squad(task: Task) -> Emitter:
    # A member costs two evaluations, one with its Jacobian and one where it goes.
    members = max(1, task.step_evaluations // 2)
    return SquadEmitter(
        num_emitters=members,
        population=max(_POPULATION, members),
        spread=task.settings.sigma0,
        optimizer=Optimizer("adam", task.settings.step_size),
        bounds=task.settings.bounds,
    )


def _evojax(solver: str) -> Callable[[Task], Emitter]:
    def build(task: Task) -> Emitter:
        return EvoJaxEmitter(solver, task.step_evaluations, task.latent_dim, task.settings.sigma0)

    return build


_BUILDERS: dict[str, Callable[[Task], Emitter]] = {
    "random": _random,
    "map_elites": _map_elites,
    "map_elites_line": _map_elites_line,
    "cma_me": _cma_me("2imp"),
    "cma_me_opt": _cma_me("obj"),
    "cma_me_rd": _cma_me("2rd"),
    "cma_mae": _cma_me("imp"),
    "omg_mega": _omg_mega,
    "cma_mega": _cma_mega("2imp"),
    "cma_maega": _cma_mega("imp"),
    "dns": _dns,
    "squad": _squad,
    **{f"evojax:{solver}": _evojax(solver) for solver in SOLVERS},
}
ALGORITHMS = {name: Algorithm(_BUILDERS[name], *traits) for name, traits in TRAITS.items()}


@named
def build_emitter(
    name: str,
    settings: EmitterSettings,
    latent_dim: int,
    num_measures: int,
    prior: Prior | None = None,
) -> Emitter:
    """Build the emitter of an algorithm.

    Args:
        name: One of `ALGORITHMS`.
        settings: The run file's [search] table; from Python, `config.SearchConfig(emitters=15)`,
            which holds its defaults.
        latent_dim: Length D of a latent.
        num_measures: Number M of measures.
        prior: The generator's prior, (params, key, n) -> Float[n, D], with the problem's weights as
            `params`; the standard normal if None.

    Raises:
        ValueError: If the name is unknown, or a setting is missing or out of range.
    """
    traits_of(name)
    algorithm = ALGORITHMS[name]
    checks.check_positive(latent_dim=latent_dim, num_measures=num_measures)
    if not hasattr(settings, "emitters"):
        raise ValueError(
            f"settings is a {type(settings).__name__}: give a SearchConfig, such as "
            "SearchConfig(emitters=15), which holds the defaults."
        )
    if settings.bounds is not None and not algorithm.bounded:
        raise ValueError(f"{name!r} knows no bounds: leave them out, or choose another algorithm.")
    return algorithm.build(Task(settings, latent_dim, num_measures, prior))
