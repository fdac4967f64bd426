"""Which subjects to take of more than are wanted: those least alike, as many of each kind.

A search improves few lines of latents, so that neighbouring subjects of its archive can be one face
with other skin or other hair; who learns to tell people apart learns little from such. Greedy
farthest-point sampling (Gonzalez 1985, doi:10.1016/0304-3975(85)90224-5) leaves them for last: each
next subject is the one farthest from those taken, in units of the searched latents.
"""

from __future__ import annotations

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from qdgs_jax.datasets.selection import Labelled

MOST = 2**31 - 1  # rows, counted with int32


def distinct_subjects(rows: Labelled, kinds: np.ndarray, count: int) -> Labelled:
    """Take subjects, whole, until they have a number of rows.

    Kinds take turns, the one with the fewest rows so far first, each giving the remaining subject
    whose mean latent is farthest from those of all taken, of whatever kind. A kind that has run out
    is passed over. The first k subjects of the choice are balanced and distinct, too.

    Args:
        rows: N rows with latents and subjects, those of one subject together, counted from 0.
        kinds: Int[N], kind of each row, from 0; a subject's is that of most of its rows.
        count: rows wanted; of the last subject some may be left out. All are taken where there are
            fewer.

    Returns:
        The rows in the order of the choice, subjects numbered anew.
    """
    subjects = rows.subjects
    if subjects is None:
        raise ValueError("rows have no subjects: group them first.")
    starts = np.flatnonzero(np.diff(subjects, prepend=-1))
    sizes = np.diff(starts, append=len(subjects))
    latents = np.asarray(rows.elites.latents, np.float32)
    means = np.add.reduceat(latents, starts, axis=0) / sizes[:, None].astype(np.float32)
    votes = np.zeros((len(starts), int(kinds.max()) + 1), np.int64)
    np.add.at(votes, (subjects, kinds), 1)
    order = np.asarray(
        _in_turns(
            jnp.asarray(means),
            jnp.asarray(votes.argmax(axis=1), jnp.int32),
            jnp.asarray(sizes, jnp.int32),
            votes.shape[1],
        )
    )
    taken = np.concatenate([np.arange(starts[i], starts[i] + sizes[i]) for i in order])[:count]
    number = np.empty(len(order), np.int32)
    number[order] = np.arange(len(order), dtype=np.int32)
    return dataclasses.replace(rows.take(taken), subjects=number[subjects[taken]])


@functools.partial(jax.jit, static_argnames="kinds")
def _in_turns(means: jax.Array, kind: jax.Array, sizes: jax.Array, kinds: int) -> jax.Array:
    """The order Int32[n] of subjects with means Float[n, D], kinds and sizes Int32[n]."""
    number = len(means)

    def take(
        turn: jax.Array, state: tuple[jax.Array, jax.Array, jax.Array, jax.Array]
    ) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array]:
        order, left, apart, rows = state
        has = jnp.zeros(kinds, bool).at[kind].max(left)
        turns = jnp.argmin(jnp.where(has, rows, MOST))
        chosen = jnp.argmax(jnp.where(left & (kind == turns), apart, -1.0))
        distances = jnp.sum((means - means[chosen]) ** 2, axis=1)
        return (
            order.at[turn].set(chosen.astype(jnp.int32)),
            left.at[chosen].set(False),
            jnp.minimum(apart, distances),
            rows.at[turns].add(sizes[chosen]),
        )

    start = (
        jnp.zeros(number, jnp.int32),
        jnp.ones(number, bool),
        jnp.full(number, jnp.inf, means.dtype),
        jnp.zeros(kinds, jnp.int32),
    )
    order, *_ = lax.fori_loop(0, number, take, start)
    return order
