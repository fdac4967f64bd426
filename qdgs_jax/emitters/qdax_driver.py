"""All that exists only so that QDax's own `MAPElites` can drive our emitters.

Our `Search` evaluates the parents with Jacobians, hands `state_update` the `AddInfo` of the
insertion, and a key. QDax's loop does none of this. An emitter can then differentiate by itself
(`jacobian_function`), carries a key in its state, and takes a snapshot of the acceptance thresholds
when it emits, from which the same verdict follows. Where `Search` drives, nobody reads the snapshot
or the carried key, and the compiler drops the former.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from qdax.core.containers.mapelites_repertoire import get_cells_indices

from qdgs_jax import archive
from qdgs_jax.emitters.ranking import Verdict, verdict_of

JacobianFunction = Callable[[jax.Array], jax.Array]  # latents Float[E, D] -> Float[E, 1 + M, D]


def jacobian_at(
    parents: jax.Array, handed: jax.Array | None, function: JacobianFunction | None
) -> jax.Array:
    """The Jacobian Float[E, 1 + M, D] at the parents: the emitter's own, or what the driver handed.

    Raises:
        ValueError: If there is neither.
    """
    if function is not None:
        return function(parents)
    if handed is None:
        raise ValueError(
            "nobody evaluated the emitter's parents with Jacobians: run it in qdgs_jax's Search, "
            "or give it a jacobian_function."
        )
    return handed


def snapshot(repertoire: Any) -> dict[str, jax.Array]:
    """Thresholds as they are before an insertion; costs nothing where nobody reads it."""
    thresholds = getattr(repertoire, "thresholds", None)
    return {"thresholds": repertoire.fitnesses[:, 0] if thresholds is None else thresholds}


def verdict(
    repertoire: Any,
    fitnesses: jax.Array,
    descriptors: jax.Array,
    extra_scores: Mapping[str, jax.Array],
) -> Verdict:
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
    if "status" in extra_scores and "value" in extra_scores:
        status, value = extra_scores["status"], extra_scores["value"]
    elif "thresholds" in extra_scores:
        thresholds = extra_scores["thresholds"]
        status, value = _recover(repertoire, fitnesses, descriptors, thresholds)
    else:
        raise ValueError(
            "extra_scores has neither 'status' and 'value' nor 'thresholds': pass what "
            "add_with_info returned, or what emit returned beside the genotypes "
            f"(got {sorted(extra_scores)})."
        )
    return verdict_of(status, value, fitnesses, descriptors)


def _recover(
    repertoire: Any, fitnesses: jax.Array, descriptors: jax.Array, thresholds: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Status and value of candidates, from the thresholds before they were inserted."""
    num_cells = repertoire.centroids.shape[0]
    if thresholds.shape[0] != num_cells:
        raise ValueError(
            f"{thresholds.shape[0]} thresholds for {num_cells} cells: QDax's MultiEmitter cuts "
            "what emit returns, so run this emitter on its own, or under qdgs_jax's Search."
        )
    if isinstance(repertoire, archive.Archive):
        info = repertoire.judge(descriptors, fitnesses, thresholds)
    else:
        finite = jnp.isfinite(fitnesses) & jnp.isfinite(descriptors).all(-1)
        cell = get_cells_indices(descriptors, repertoire.centroids)
        info = archive.judge(jnp.where(finite, cell, num_cells), fitnesses, thresholds, -math.inf)
    return info.status, info.value


def step_key(
    carried: jax.Array, extra_scores: Mapping[str, jax.Array]
) -> tuple[jax.Array, jax.Array]:
    """Key of this step's `state_update`, and the key UInt32[2] to carry on.

    Our `Search` passes a key of its own for each step; QDax's `MAPElites` passes none, and the key
    carried in the emitter's state is split instead.
    """
    if "key" in extra_scores:
        return extra_scores["key"], carried
    key, rest = jax.random.split(jax.random.wrap_key_data(carried))
    return key, raw_key(rest)


def raw_key(key: jax.Array) -> jax.Array:
    """Key data UInt32[2], which every checkpoint format can store."""
    return jax.random.key_data(key) if jnp.issubdtype(key.dtype, jax.dtypes.prng_key) else key
