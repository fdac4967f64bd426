"""The algorithms a run file can name, each a table entry that builds its emitter.

docs/algorithms.md says what each is and when to use it.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable
from typing import Protocol

import jax
from qdax.core.emitters.emitter import Emitter

from qdgs_jax.emitters import GradientArborescenceEmitter, RandomEmitter
from qdgs_jax.emitters.restarts import RestartRule
from qdgs_jax.optimizers import Optimizer

Prior = Callable[[jax.Array, int], jax.Array]  # (key, n) -> latents Float[n, D]


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


def _cma_maega(
    settings: EmitterSettings, latent_dim: int, num_measures: int, prior: Prior | None
) -> Emitter:
    return GradientArborescenceEmitter(
        num_emitters=settings.emitters,
        branches=settings.branches,
        num_measures=num_measures,
        sigma0=settings.sigma0,
        optimizer=Optimizer("adam", settings.step_size),
        ranking="imp",
        restart=settings.restart,
        objective_coefficient="nonnegative",
    )


def _random(
    settings: EmitterSettings, latent_dim: int, num_measures: int, prior: Prior | None
) -> Emitter:
    # As many candidates as a gradient algorithm evaluates with its parents.
    batch = settings.emitters * (1 + settings.branches)
    return RandomEmitter(batch=batch, latent_dim=latent_dim, prior=prior)


ALGORITHMS: dict[str, Callable[[EmitterSettings, int, int, Prior | None], Emitter]] = {
    "cma_maega": _cma_maega,
    "random": _random,
}


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
        settings: The run file's [search] table.
        latent_dim: Length D of a latent.
        num_measures: Number M of measures.
        prior: The generator's prior, (key, n) -> Float[n, D]; the standard normal if None.

    Raises:
        ValueError: If the name is unknown or a setting is out of range.
    """
    if name not in ALGORITHMS:
        close = difflib.get_close_matches(name, ALGORITHMS, n=1)
        hint = f" Did you mean {close[0]!r}?" if close else ""
        raise ValueError(f"unknown algorithm {name!r}: known are {', '.join(ALGORITHMS)}.{hint}")
    return ALGORITHMS[name](settings, latent_dim, num_measures, prior)
