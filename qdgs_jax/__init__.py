"""Quality-Diversity Generative Sampling (QDGS) on accelerators.

Run files, the command line, metrics and reports speak the words of the QDGS paper
(arXiv:2312.14369); the code of the engine speaks those of QDax, on which it is built:

| paper, run file, report     | QDax, engine                              |
| --------------------------- | ----------------------------------------- |
| solution, latent            | genotype                                  |
| objective                   | fitness                                   |
| measures                    | descriptor                                |
| archive, cell, elite        | repertoire, centroid, occupied cell       |

`Search` searches any problem with any emitter; `qdgs_jax.emitters` has them all.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from qdgs_jax.archive import GridArchive
    from qdgs_jax.archive.cvt import CVTArchive
    from qdgs_jax.emitters import EvolutionStrategyEmitter, GradientArborescenceEmitter
    from qdgs_jax.problem import FunctionProblem
    from qdgs_jax.search import Search

__version__ = "0.1.0"
__all__ = [
    "CVTArchive",
    "EvolutionStrategyEmitter",
    "FunctionProblem",
    "GradientArborescenceEmitter",
    "GridArchive",
    "Search",
]

# Imported when first asked for: the command line must not wait for JAX to print its help.
_MODULES = {
    "CVTArchive": "archive",
    "EvolutionStrategyEmitter": "emitters",
    "FunctionProblem": "problem",
    "GradientArborescenceEmitter": "emitters",
    "GridArchive": "archive",
    "Search": "search",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)
