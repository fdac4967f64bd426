"""What is doubtful about a search, told from its state: candidates lost, measures out of range.

Looked at where somebody waits anyway, at the start and at the end: the loop itself calls nobody.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import jax
import numpy as np

from qdgs_jax.search_state import SearchState

MANY = 0.1  # share of rejected latents that is worth a word


class SearchWarning(UserWarning):
    """A search that goes on, though little can come of it."""


def doubts(state: SearchState, names: Sequence[str] | None = None) -> list[str]:
    """Say what is doubtful, a sentence each.

    Args:
        state: of a search, on the device or not; not traced.
        names: of the measures; their numbers if None.
    """
    counts = jax.device_get((state.evaluations, state.rejected))
    evaluations, rejected = (int(count) for count in counts)
    said = []
    if rejected and rejected >= MANY * evaluations:
        count = "all" if rejected == evaluations else f"{rejected:,} of"
        said.append(
            f"{count} {evaluations:,} latents evaluated were rejected, as their objective, a "
            "measure or a gradient is not finite (NaN or infinite)"
        )
    ranges = getattr(state.archive, "ranges", None)
    descriptors, fitnesses = jax.device_get((state.archive.descriptors, state.archive.fitnesses))
    seen = descriptors[np.isfinite(fitnesses[:, 0])]
    if ranges is None or not len(seen):
        return said
    for index, (low, high) in enumerate(ranges):
        least, most = seen[:, index].min(), seen[:, index].max()
        if least > high or most < low:
            name = f"{index}" if names is None else repr(names[index])
            said.append(
                f"the measure {name} of all elites is {least:.4g} to {most:.4g}, outside its range "
                f"[{low:g}, {high:g}]: cells at the edge hold everything; give a range that spans "
                "what is seen"
            )
    return said


def warn_of(state: SearchState) -> None:
    """Warn a caller's caller of what is doubtful, unless the state is traced."""
    if isinstance(state.step, jax.core.Tracer):
        return
    for doubt in doubts(state):
        warnings.warn(doubt, SearchWarning, stacklevel=3)
