"""Quality-Diversity Generative Sampling (QDGS) on accelerators.

Run files, the command line, metrics and reports speak the words of the QDGS paper
(arXiv:2312.14369); the code of the engine speaks those of QDax, on which it is built:

| paper, run file, report     | QDax, engine                              |
| --------------------------- | ----------------------------------------- |
| solution, latent            | genotype                                  |
| objective                   | fitness                                   |
| measures                    | descriptor                                |
| archive, cell, elite        | repertoire, centroid, occupied cell       |

`Search` searches any `Problem` with any emitter, `load_run` opens what `qdgs search` found;
`dir(qdgs_jax)` shows what there is.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from qdgs_jax.archive import CVTArchive, GridArchive, cvt_centroids
    from qdgs_jax.domains import load_domain
    from qdgs_jax.elites import Elites
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
    )
    from qdgs_jax.emitters.registry import ALGORITHMS, build_emitter
    from qdgs_jax.problem import Evaluation, FunctionProblem, Prepares, Problem
    from qdgs_jax.runs.config import SearchConfig
    from qdgs_jax.runs.finished import load_run
    from qdgs_jax.search import Search
    from qdgs_jax.train import load_classifier

__version__ = "0.2.0"
__all__ = [
    "ALGORITHMS",
    "CVTArchive",
    "DominatedNoveltyEmitter",
    "Elites",
    "Evaluation",
    "EvoJaxEmitter",
    "EvolutionStrategyEmitter",
    "FunctionProblem",
    "GaussianEmitter",
    "GradientArborescenceEmitter",
    "GridArchive",
    "IsoLineEmitter",
    "OMGMegaEmitter",
    "Prepares",
    "Problem",
    "RandomEmitter",
    "Search",
    "SearchConfig",
    "SquadEmitter",
    "build_emitter",
    "cvt_centroids",
    "load_classifier",
    "load_domain",
    "load_run",
]

# Imported when first asked for: the command line must not wait for JAX to print its help.
_PLACES = {
    "archive": ("CVTArchive", "GridArchive", "cvt_centroids"),
    "domains": ("load_domain",),
    "elites": ("Elites",),
    "emitters": tuple(name for name in __all__ if name.endswith("Emitter")),
    "emitters.registry": ("ALGORITHMS", "build_emitter"),
    "problem": ("Evaluation", "FunctionProblem", "Prepares", "Problem"),
    "runs.config": ("SearchConfig",),
    "runs.finished": ("load_run",),
    "search": ("Search",),
    "train": ("load_classifier",),
}
_MODULES = {name: module for module, names in _PLACES.items() for name in names}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)


def __dir__() -> list[str]:
    return sorted(["__version__", *__all__])
