"""What a search carries from step to step, and the keys and counts that go with it."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from flax.struct import PyTreeNode

from qdgs_jax.archive import AddInfo, Archive
from qdgs_jax.problem import ProblemState

Metrics = dict[str, jax.Array]

_LARGEST = 2**31 - 1  # of Int[]


class SearchState(PyTreeNode):  # type: ignore[no-untyped-call]
    """Everything that changes during a search, as one pytree.

    Attributes:
        archive: elites and thresholds.
        emitter: the emitter's state, or None.
        problem: the problem's state.
        key: UInt32[2], the root of all random numbers; it never changes.
        step: Int[], steps done.
        evaluations: Int[], latents evaluated, parents and start latents included; stays at the
            largest integer once it is there.
        rejected: Int[], of these, how many were rejected for something that is not finite.
    """

    archive: Archive
    emitter: Any
    problem: ProblemState
    key: jax.Array
    step: jax.Array
    evaluations: jax.Array
    rejected: jax.Array


def state_metrics(state: SearchState) -> Metrics:
    """Scalars that describe a state; see `Search.update`."""
    return {
        "step": state.step,
        "evaluations": state.evaluations,
        **state.archive.stats,
        "rejected": state.rejected,
    }


def as_scores(info: AddInfo) -> dict[str, jax.Array]:
    """What an insertion said of its candidates, as emitters are told of it."""
    return {"status": info.status, "value": info.value, "cell": info.cell}


def turn_keys(root: jax.Array, turn: jax.Array | int, count: int) -> jax.Array:
    """Typed keys of the start (turn 0) or of a step (turn step + 1), each for one use.

    Args:
        root: UInt32[2], `SearchState.key`.
        turn: Int[].
        count: how many.
    """
    key = jax.random.wrap_key_data(root)
    return jax.random.split(jax.random.fold_in(key, turn), count)


def counted(so_far: jax.Array, more: jax.Array) -> jax.Array:
    """Sum of counts Int32[], at most the largest integer."""
    return so_far + jnp.minimum(more, _LARGEST - so_far)


def strong(x: Any) -> Any:
    """Make a weak type strong, as the first step would: it would be compiled again after that."""
    kind = jax.typeof(x)
    return jax.lax.convert_element_type(x, kind.dtype) if kind.weak_type else x
