"""What an insertion said of each candidate, and what an emitter makes of it.

Our `Search` hands emitters the `AddInfo` of the insertion. QDax's own `MAPElites` does not, so
emitters take a snapshot of the acceptance thresholds when they emit, from which the same verdict
follows.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from qdax.core.containers.mapelites_repertoire import get_cells_indices

from qdgs_jax import archive

Ranking = Literal["imp", "2imp", "obj", "2obj", "rd", "2rd"]
ParentRule = Literal["mu", "accepted", "all"]
RANKINGS = ("imp", "2imp", "obj", "2obj", "rd", "2rd")
PARENT_RULES = ("mu", "accepted", "all")
_FLAT = 1e-12


class Judgement(NamedTuple):
    """Verdict on B candidates.

    Attributes:
        status: Int[B], 0 rejected, 1 accepted, 2 first in its cell.
        value: Float[B], fitness minus the cell's threshold (the fitness where that is -inf); -inf
            for candidates that are not finite.
        fitnesses: Float[B], -inf for candidates that are not finite.
    """

    status: jax.Array
    value: jax.Array
    fitnesses: jax.Array


def snapshot(repertoire: Any) -> dict[str, jax.Array]:
    """Thresholds as they are before an insertion; costs nothing where nobody reads it."""
    thresholds = getattr(repertoire, "thresholds", None)
    return {"thresholds": repertoire.fitnesses[:, 0] if thresholds is None else thresholds}


def judge(
    repertoire: Any,
    fitnesses: jax.Array,
    descriptors: jax.Array,
    extra_scores: Mapping[str, jax.Array],
) -> Judgement:
    """Verdict on candidates from AddInfo, or from the snapshot that `emit` took.

    Args:
        repertoire: After the insertion; only its cells are used.
        fitnesses: Float[B] or Float[B, 1].
        descriptors: Float[B, M].
        extra_scores: Holds "status" and "value", or else "thresholds" Float[C].

    Raises:
        ValueError: If neither is there.
    """
    fitnesses = jnp.asarray(fitnesses).reshape(-1)
    finite = jnp.isfinite(fitnesses) & jnp.isfinite(descriptors).all(-1)
    if "status" in extra_scores and "value" in extra_scores:
        status, value = extra_scores["status"], extra_scores["value"]
    elif "thresholds" in extra_scores:
        thresholds = extra_scores["thresholds"]
        if thresholds.shape[0] != repertoire.centroids.shape[0]:
            raise ValueError(
                f"{thresholds.shape[0]} thresholds for {repertoire.centroids.shape[0]} cells: "
                "QDax's MultiEmitter cuts what emit returns, so run this emitter on its own, or "
                "under qdgs_jax's Search."
            )
        if isinstance(repertoire, archive.Archive):
            info = repertoire.judge(descriptors, fitnesses, thresholds)
        else:
            cell = get_cells_indices(descriptors, repertoire.centroids)
            cell = jnp.where(finite, cell, thresholds.shape[0])
            info = archive.judge(cell, fitnesses, thresholds, -math.inf)
        status, value = info.status, info.value
    else:
        raise ValueError(
            "extra_scores has neither 'status' and 'value' nor 'thresholds': pass what "
            "add_with_info returned, or what emit returned beside the genotypes "
            f"(got {sorted(extra_scores)})."
        )
    return Judgement(
        status=status,
        value=jnp.where(finite & ~jnp.isnan(value), value, -jnp.inf),
        fitnesses=jnp.where(finite, fitnesses, -jnp.inf),
    )


def per_emitter(judgement: Judgement, num_emitters: int) -> Judgement:
    """Give the fields a leading emitter axis: [E, B]."""
    return Judgement(*(field.reshape(num_emitters, -1) for field in judgement))


def rank(
    ranking: Ranking, judgement: Judgement, projection: jax.Array | None = None
) -> tuple[jax.Array, jax.Array]:
    """Order candidates, best first.

    Args:
        ranking: By "imp" (value), "obj" (fitness) or "rd" (projection); with a leading 2 by status
            first.
        judgement: Fields [E, B]. Equal candidates are ordered by descending index, as pyribs does.
        projection: Float[E, B] of the measures on each emitter's direction, for "rd" and "2rd".

    Returns:
        Int[E, B] indices, and Bool[E]: whether the best and the worst are equal (never with B = 1).
    """
    by_status = ranking.startswith("2")
    scores = {"imp": judgement.value, "obj": judgement.fitnesses, "rd": projection}
    key = scores[ranking.removeprefix("2")]
    if key is None:
        raise ValueError(f"ranking {ranking!r} needs a projection of the measures.")
    order = jnp.lexsort((key, judgement.status) if by_status else (key,), axis=-1)[:, ::-1]
    ordered = jnp.take_along_axis(key, order, axis=1)
    best, worst = ordered[:, 0], ordered[:, -1]
    flat = (best == worst) | (jnp.abs(best - worst) < _FLAT)  # -inf equals -inf
    if by_status:
        flat &= judgement.status.min(-1) == judgement.status.max(-1)
    return order, flat & (order.shape[1] > 1)


def select_parents(
    rule: ParentRule, order: jax.Array, status: jax.Array
) -> tuple[jax.Array, jax.Array | np.ndarray]:
    """Select parents: their order Int[E, P], and how many of them count, Int[E].

    The numbers are NumPy's where the rule fixes them.

    "mu": the better half, at least one; P is that number. "accepted": all candidates that the
    archive took, which come first; P = B, and an emitter may have none. "all": every candidate;
    P = B.
    """
    num_emitters, batch = order.shape
    if rule == "accepted":
        rejected = jnp.take_along_axis(status, order, axis=1) == 0
        first = jnp.argsort(rejected, axis=1, stable=True)
        return jnp.take_along_axis(order, first, axis=1), (status > 0).sum(-1)
    mu = batch if rule == "all" else max(1, batch // 2)
    return order[:, :mu], np.full(num_emitters, mu)
