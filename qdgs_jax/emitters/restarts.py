"""When an emitter starts afresh, and where.

"basic" restarts only degenerate strategies; "no_improvement" also those whose whole batch was
rejected; a number n also those n iterations old. A restart continues from a random elite. It is
worked out in every step and taken by a select: its arrays are small, and whether anybody restarts
is nothing that an accelerator should be asked between two kernels.
"""

from __future__ import annotations

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
