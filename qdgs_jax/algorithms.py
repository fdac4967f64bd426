"""The algorithms a run file can name, and the archive that each is meant for; needs no JAX.

`emitters.registry` says what builds their emitters, docs/algorithms.md what they are and when to
use them.
"""

from __future__ import annotations

import difflib
import math
from typing import Literal, NamedTuple

# What an algorithm makes of the archive: thresholds that anneal, thresholds that are the elites'
# fitnesses, or nothing: the archive looks on, and keeps what is best.
ArchiveKind = Literal["annealed", "elitist", "looks on"]

# Those of EvoJAX that are pure JAX; the others leave it (NumPy, C++) or need packages of their own.
SOLVERS = ("CMA_ES_JAX", "PGPE", "SimpleGA")


class Traits(NamedTuple):
    """What a run file has to know of an algorithm.

    Attributes:
        archive: The archive it is meant for; see `archive_settings`.
        bounded: Whether its latents can be kept within bounds.
    """

    archive: ArchiveKind
    bounded: bool = True


TRAITS: dict[str, Traits] = {
    "random": Traits("looks on", bounded=False),
    "map_elites": Traits("elitist"),
    "map_elites_line": Traits("elitist"),
    "cma_me": Traits("elitist"),
    "cma_me_opt": Traits("elitist"),
    "cma_me_rd": Traits("elitist"),
    "cma_mae": Traits("annealed"),
    "omg_mega": Traits("elitist"),
    "cma_mega": Traits("elitist"),
    "cma_maega": Traits("annealed"),
    "dns": Traits("looks on"),
    "squad": Traits("looks on"),
    **{f"evojax:{solver}": Traits("looks on", bounded=False) for solver in SOLVERS},
}


def traits_of(name: str) -> Traits:
    """Traits of an algorithm.

    Raises:
        ValueError: If the name is unknown.
    """
    if name not in TRAITS:
        close = difflib.get_close_matches(str(name).lower(), TRAITS, n=1)
        hint = f" Did you mean {close[0]!r}?" if close else ""
        raise ValueError(f"unknown algorithm {name!r}: known are {', '.join(TRAITS)}.{hint}")
    return TRAITS[name]


def archive_settings(name: str, learning_rate: float, threshold_min: float) -> dict[str, float]:
    """The archive settings an algorithm is meant for.

    Args:
        name: One of `TRAITS`.
        learning_rate: Of an annealed archive.
        threshold_min: Of an annealed archive.

    Returns:
        "learning_rate" and "threshold_min" as given for algorithms that anneal, those of an elitist
        archive (1 and -inf) for the others.

    Raises:
        ValueError: If the name is unknown.
    """
    if traits_of(name).archive == "annealed":
        return {"learning_rate": learning_rate, "threshold_min": threshold_min}
    return {"learning_rate": 1.0, "threshold_min": -math.inf}
