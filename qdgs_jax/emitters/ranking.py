"""What an insertion said of each candidate, and the order and the parents that follow from it."""

from __future__ import annotations

from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

Ranking = Literal["imp", "2imp", "obj", "2obj", "rd", "2rd"]
ParentRule = Literal["mu", "accepted", "all"]
RANKINGS = ("imp", "2imp", "obj", "2obj", "rd", "2rd")
PARENT_RULES = ("mu", "accepted", "all")
_FLAT = 1e-12


class Verdict(NamedTuple):
    """What became of B candidates.

    Attributes:
        status: Int[B], 0 rejected, 1 accepted, 2 first in its cell.
        value: Float[B], fitness minus the cell's threshold (the fitness where that is -inf); -inf
            for candidates that are not finite.
        fitnesses: Float[B], -inf for candidates that are not finite.
    """

    status: jax.Array
    value: jax.Array
    fitnesses: jax.Array


def verdict_of(
    status: jax.Array, value: jax.Array, fitnesses: jax.Array, descriptors: jax.Array
) -> Verdict:
    """Verdict on candidates from what an insertion reported: Int[B], Float[B], Float[B].

    `descriptors` Float[B, M] tell, with the fitnesses, which candidates are finite.
    """
    finite = jnp.isfinite(fitnesses) & jnp.isfinite(descriptors).all(-1)
    return Verdict(
        status=status,
        value=jnp.where(finite & ~jnp.isnan(value), value, -jnp.inf),
        fitnesses=jnp.where(finite, fitnesses, -jnp.inf),
    )


def per_emitter(verdict: Verdict, num_emitters: int) -> Verdict:
    """Give the fields a leading emitter axis: [E, B]."""
    return Verdict(*(field.reshape(num_emitters, -1) for field in verdict))


def take(candidates: jax.Array, order: jax.Array) -> jax.Array:
    """Candidates Float[E, B, ...] in the given order Int[E, P]."""
    return jnp.take_along_axis(candidates, order[..., None], axis=1, mode="promise_in_bounds")


def rank(
    ranking: Ranking, verdict: Verdict, projection: jax.Array | None = None
) -> tuple[jax.Array, jax.Array]:
    """Order candidates, best first.

    Args:
        ranking: By "imp" (value), "obj" (fitness) or "rd" (projection); with a leading 2 by status
            first.
        verdict: Fields [E, B]. Equal candidates are ordered by descending index, as pyribs does.
        projection: Float[E, B] of the measures on each emitter's direction, for "rd" and "2rd".

    Returns:
        Int[E, B] indices, and Bool[E]: whether the best and the worst are equal (never with B = 1).

    Raises:
        ValueError: If the ranking needs a projection and there is none.
    """
    by_status = ranking.startswith("2")
    scores = {"imp": verdict.value, "obj": verdict.fitnesses, "rd": projection}
    key = scores[ranking.removeprefix("2")]
    if key is None:
        raise ValueError(f"ranking {ranking!r} needs a projection of the measures.")
    order = jnp.lexsort((key, verdict.status) if by_status else (key,), axis=-1)[:, ::-1]
    ordered = jnp.take_along_axis(key, order, axis=1)
    best, worst = ordered[:, 0], ordered[:, -1]
    flat = (best == worst) | (jnp.abs(best - worst) < _FLAT)  # -inf equals -inf
    if by_status:
        flat &= verdict.status.min(-1) == verdict.status.max(-1)
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
        count = (status > 0).sum(-1, dtype=jnp.int32)
        return jnp.take_along_axis(order, first, axis=1), count
    mu = batch if rule == "all" else max(1, batch // 2)
    return order[:, :mu], np.full(num_emitters, mu)
