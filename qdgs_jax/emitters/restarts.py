"""When an emitter starts afresh, and where.

"basic" restarts only degenerate strategies; "no_improvement" also those whose whole batch was
rejected; a number n also those n iterations old. A restart continues from a random elite.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import jax
import jax.numpy as jnp

RestartRule = Literal["basic", "no_improvement"] | int


def check_rule(rule: RestartRule) -> None:
    """Raise ValueError unless `rule` is a restart rule."""
    if isinstance(rule, str) and rule in ("basic", "no_improvement"):
        return
    if isinstance(rule, int) and not isinstance(rule, bool) and rule >= 1:
        return
    raise ValueError(
        f"restart is {rule!r}: choose 'basic', 'no_improvement' or a number of iterations >= 1."
    )


def rule_applies(rule: RestartRule, status: jax.Array, age: jax.Array) -> jax.Array:
    """Bool[E]: the rule asks for a restart.

    Args:
        rule: See the module.
        status: Int[E, B] of the emitter's candidates.
        age: Int[E], iterations since the last restart, this one included.
    """
    if rule == "basic":
        return jnp.zeros_like(age, dtype=bool)
    if rule == "no_improvement":
        return ~(status > 0).any(-1)
    return age >= rule


def random_elites(repertoire: Any, key: jax.Array, fallback: jax.Array) -> jax.Array:
    """Draw one elite per emitter, Float[E, D]; `fallback` of that shape if there is none."""
    count = fallback.shape[0]
    if hasattr(repertoire, "sample_elites"):
        elites, found = repertoire.sample_elites(key, count), repertoire.num_elites > 0
    else:
        elites = repertoire.select(key, count).genotypes
        found = jnp.isfinite(repertoire.fitnesses).any()
    sound = jnp.where(jnp.isfinite(fallback), fallback, 0)
    return jnp.where(found, elites.astype(fallback.dtype), sound)


def restart_key(
    carried: jax.Array, extra_scores: Mapping[str, jax.Array]
) -> tuple[jax.Array, jax.Array]:
    """Key of this step's restarts, and the key to carry on.

    Our `Search` passes a key of its own for each step; QDax's `MAPElites` passes none, and the key
    carried in the emitter's state is split instead.
    """
    if "key" in extra_scores:
        return extra_scores["key"], carried
    key, carried = jax.random.split(carried)
    return key, carried


def raw_key(key: jax.Array) -> jax.Array:
    """Key data UInt32[2], which every checkpoint format can store."""
    return jax.random.key_data(key) if jnp.issubdtype(key.dtype, jax.dtypes.prng_key) else key
