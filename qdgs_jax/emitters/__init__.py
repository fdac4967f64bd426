"""Emitters: what a search tries next.

All are QDax emitters. The adaptive ones hold E independent searches, vectorised against one
archive.
"""

from qdgs_jax.emitters.dominated_novelty import DominatedNoveltyEmitter, DominatedNoveltyState
from qdgs_jax.emitters.evojax_solver import EvoJaxEmitter, EvoJaxState
from qdgs_jax.emitters.evolution_strategy import EvolutionStrategyEmitter, EvolutionStrategyState
from qdgs_jax.emitters.gaussian import GaussianEmitter
from qdgs_jax.emitters.gradient_arborescence import (
    GradientArborescenceEmitter,
    GradientArborescenceState,
)
from qdgs_jax.emitters.iso_line import IsoLineEmitter
from qdgs_jax.emitters.omg_mega import OMGMegaEmitter, OMGMegaState
from qdgs_jax.emitters.random_sampling import RandomEmitter
from qdgs_jax.emitters.squad import SquadEmitter, SquadState
from qdgs_jax.keywords import name_keywords

__all__ = [
    "DominatedNoveltyEmitter",
    "DominatedNoveltyState",
    "EvoJaxEmitter",
    "EvoJaxState",
    "EvolutionStrategyEmitter",
    "EvolutionStrategyState",
    "GaussianEmitter",
    "GradientArborescenceEmitter",
    "GradientArborescenceState",
    "IsoLineEmitter",
    "OMGMegaEmitter",
    "OMGMegaState",
    "RandomEmitter",
    "SquadEmitter",
    "SquadState",
]

name_keywords(
    DominatedNoveltyEmitter,
    EvoJaxEmitter,
    EvolutionStrategyEmitter,
    GaussianEmitter,
    GradientArborescenceEmitter,
    IsoLineEmitter,
    OMGMegaEmitter,
    RandomEmitter,
    SquadEmitter,
)
