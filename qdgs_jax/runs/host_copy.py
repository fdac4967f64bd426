"""Arrays between a device and the host's memory, row by row and without a second copy.

Rows go through the device in pieces of one size, so that nothing is compiled anew for another
number of rows.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from qdgs_jax.runs.array_file import rows_per_piece
from qdgs_jax.runs.host_pool import HostPool

_COPIERS = 4  # threads that copy rows from one place in the host's memory to another


def copy_whole(leaf: Any) -> np.ndarray:
    """Copy a whole array to the host.

    On a CPU JAX would hand out its own memory, and not take it as a donation while that is in use.
    """
    view = _shared(leaf)
    return np.array(leaf if view is None else view)


def copy_rows(table: Any, rows: np.ndarray, pool: HostPool) -> list[np.ndarray]:
    """Copy rows Int[N] of an array to the host, in pieces."""
    step = _rows_per_piece(table)
    starts = range(0, len(rows), step)
    view = _shared(table)
    if view is not None:

        def copy(at: int) -> np.ndarray:
            part = rows[at : at + step]
            piece = pool.array((len(part), *view.shape[1:]), view.dtype)
            return view.take(part, axis=0, mode="clip", out=piece)

        with ThreadPoolExecutor(_COPIERS) as threads:  # NumPy copies outside Python's lock
            return list(threads.map(copy, starts))
    pieces: list[np.ndarray] = []
    waiting: list[jax.Array] = []
    for at in starts:
        part = rows[at : at + step]
        waiting.append(_gather(table, np.pad(part, (0, step - len(part)))))
        waiting[-1].copy_to_host_async()
        if len(waiting) > 1:
            pieces.append(np.asarray(waiting.pop(0)))
    pieces += [np.asarray(piece) for piece in waiting]
    return [piece[: len(rows) - at] for piece, at in zip(pieces, starts, strict=True)]


def fill_rows(like: Any, fill: float, rows: np.ndarray, pieces: Iterator[np.ndarray]) -> jax.Array:
    """Build an array on the device whose given rows come in pieces and whose others are empty."""
    table = _full(tuple(like.shape), np.dtype(like.dtype), fill)
    step = _rows_per_piece(table)
    at = 0
    for piece in pieces:
        part, count = rows[at : at + step], len(piece)
        at += count
        # The piece is filled up to the size that is compiled; rows beyond the end are dropped.
        part = np.pad(part, (0, step - count), constant_values=len(table))
        filler = np.zeros((step - count, *piece.shape[1:]), piece.dtype)
        table = _scatter(table, part, np.concatenate([piece, filler]) if step > count else piece)
    return table


def _rows_per_piece(table: Any) -> int:
    """Rows that go through a compiled program together: the same for every number of elites."""
    return min(rows_per_piece(table.shape, np.dtype(table.dtype).name), max(1, table.shape[0]))


def _shared(leaf: Any) -> np.ndarray | None:
    """Look at a CPU array's own memory; None where NumPy cannot."""
    if isinstance(leaf, np.ndarray):
        return leaf
    if len(leaf.devices()) != 1 or next(iter(leaf.devices())).platform != "cpu":
        return None
    try:
        return np.from_dlpack(leaf)
    except (BufferError, RuntimeError, TypeError, ValueError):  # types that only JAX knows
        return None


@jax.jit
def _gather(table: jax.Array, rows: jax.Array) -> jax.Array:
    return table[rows]


@functools.partial(jax.jit, donate_argnums=0)
def _scatter(table: jax.Array, rows: jax.Array, piece: jax.Array) -> jax.Array:
    return table.at[rows].set(piece, mode="drop", unique_indices=True)


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def _full(shape: tuple[int, ...], dtype: np.dtype, fill: float) -> jax.Array:
    return jnp.full(shape, fill, dtype)
