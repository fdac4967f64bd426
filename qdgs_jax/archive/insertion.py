"""What happens when a batch meets an archive: the rules, as reductions over the batch.

Segment operations over all cells would cost O(cells) a step, and sorting a batch by cell and
fitness is slow on a CPU. Here the cells of a batch are named by the position of their first
candidate, so that every further table has the size of the batch. Nothing depends on the order in
which a device applies scatters (sums are taken in integers), so that a run repeats bit for bit on a
GPU too.
"""

from __future__ import annotations

import math
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from flax.struct import PyTreeNode

# Batch positions pass through float32 in `first_in_cell`, exact up to here.
MAX_BATCH = 2**24


class AddInfo(PyTreeNode):  # type: ignore[no-untyped-call]
    """What an insertion did with each candidate.

    Attributes:
        status: Int[B], 2 where the cell's threshold still was `threshold_min`, 1 for a later
            acceptance, 0 for a rejection. Judged against the archive as it was before the batch.
        value: Float[B], fitness minus the cell's threshold; the fitness itself where the threshold
            is -inf; -inf for a non-finite candidate.
        cell: Int[B], the candidate's cell; the number of cells (one past the last) for a non-finite
            candidate, an index that scatters drop.
    """

    status: jax.Array
    value: jax.Array
    cell: jax.Array


def judge(
    cell: jax.Array, fitnesses: jax.Array, thresholds: jax.Array, threshold_min: float
) -> AddInfo:
    """Compare candidates with the thresholds of their cells, without inserting anything.

    Args:
        cell: Int[B], cells in [0, C); C marks a candidate without a cell.
        fitnesses: Float[B]; -inf marks a candidate to reject, other values are finite.
        thresholds: Float[C], as they were before the candidates were inserted.
        threshold_min: what a threshold is before anything was accepted in its cell.
    """
    num_cells = thresholds.shape[0]
    valid = (fitnesses > -jnp.inf) & (cell < num_cells)
    cell = jnp.where(valid, cell, num_cells)
    threshold = jnp.asarray(thresholds).at[cell].get(mode="fill", fill_value=jnp.inf)
    accepted = valid & (fitnesses > threshold)
    status = jnp.where(accepted, jnp.where(threshold == threshold_min, 2, 1), 0)
    value = jnp.where(threshold == -jnp.inf, fitnesses, fitnesses - threshold)
    return AddInfo(
        status=status.astype(jnp.int32), value=jnp.where(valid, value, -jnp.inf), cell=cell
    )


def first_in_cell(table: jax.Array, cell: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Find the position of the first candidate of each candidate's cell.

    Args:
        table: Float[C], scratch space; its entries at `cell` are overwritten.
        cell: Int[B]; entries of C or more belong to no cell.

    Returns:
        The table, to be put right by the caller, and the groups Int[B]; B for "no cell".
    """
    batch = cell.shape[0]
    position = jnp.arange(batch, dtype=table.dtype)
    table = table.at[cell].set(batch, mode="drop").at[cell].min(position, mode="drop")
    return table, table.at[cell].get(mode="fill", fill_value=batch).astype(jnp.int32)


def per_group(
    group: jax.Array, values: jax.Array, start: float, reduction: Literal["add", "min", "max"]
) -> jax.Array:
    """Reduce values Float[B] or Int[B] over each group and hand each member the result, [B].

    A candidate without a group (B) takes no part and gets `start`. Float sums would depend on the
    order of the scatter: use `sum_in_any_order` for them.
    """
    table = jnp.full(values.shape, start, values.dtype)
    reduced: jax.Array = getattr(table.at[group], reduction)(values, mode="drop")
    return reduced.at[group].get(mode="fill", fill_value=start)


def sum_in_any_order(group: jax.Array, values: jax.Array, largest: jax.Array) -> jax.Array:
    """Sum over each group, the same to the last bit whatever the order of the candidates.

    Values are rounded to multiples of about `largest * 2**-k`, k twice the bits that an int32 has
    to spare for a sum of B numbers (36 for a batch of 4,096), and these are added as integers.

    Args:
        group: Int[B].
        values: Float[B].
        largest: Float[B], at least as large as any |value| of the candidate's group, and equal for
            all of a group.
    """
    bits = 30 - math.ceil(math.log2(max(values.shape[0], 2)))
    unit = jnp.where(largest > np.finfo(np.float32).tiny, largest, 1.0)
    scaled = values / unit * 2.0**bits
    high = jnp.round(scaled)
    low = jnp.round((scaled - high) * 2.0**bits)
    parts = [per_group(group, x.astype(jnp.int32), 0, "add") for x in (high, low)]
    sums = [x.astype(values.dtype) for x in parts]
    return (sums[0] + sums[1] * 2.0**-bits) * 2.0**-bits * unit


def move_thresholds(
    threshold: jax.Array,
    best: jax.Array,
    fitnesses: jax.Array,
    accepted: jax.Array,
    group: jax.Array,
    *,
    learning_rate: float,
    threshold_min: float,
) -> jax.Array:
    """Move the thresholds of a batch's cells once, from all their accepted candidates.

    With c accepted candidates of mean fitness F, t_e becomes `(1-alpha)^c t_e + (1-(1-alpha)^c) F`
    (arXiv:2205.10752, Algorithm 2, c updates with each fitness replaced by the mean); where
    `threshold_min` is -inf, the best fitness.

    Args:
        threshold: Float[B], t_e of each candidate's cell.
        best: Float[B], the batch's best fitness in each candidate's cell.
        fitnesses: Float[B].
        accepted: Bool[B], fitness above t_e.
        group: Int[B], from `first_in_cell`.
        learning_rate: alpha.
        threshold_min: where thresholds start.

    Returns:
        Float[B], equal for all candidates of a cell.
    """
    if threshold_min == -math.inf:
        return jnp.maximum(threshold, best)
    if learning_rate == 0:
        return threshold
    count = per_group(group, accepted.astype(jnp.int32), 0, "add")
    # Accepted fitnesses lie in (t_e, best], which bounds them for the sum.
    largest = jnp.maximum(jnp.abs(threshold), jnp.abs(best))
    mean = sum_in_any_order(group, jnp.where(accepted, fitnesses, 0.0), largest) / count
    exponent = count.astype(threshold.dtype)
    rate = -jnp.expm1(exponent * math.log1p(-learning_rate)) if learning_rate < 1 else 1.0
    moved = jnp.clip(threshold + rate * (mean - threshold), threshold, best)
    return jnp.where(count > 0, moved, threshold)


def count_occupied(occupied_cells: jax.Array) -> jax.Array:
    """Count the entries of a list of cells, Int[C], whose last entry is ~count until it is used."""
    last = occupied_cells[-1]
    return jnp.where(last < 0, ~last, occupied_cells.shape[0])


def append_cells(occupied_cells: jax.Array, found: jax.Array) -> jax.Array:
    """Append the cells `found`, Int[B] with C for "none", to a list as of `count_occupied`."""
    num_cells = occupied_cells.shape[0]
    count = count_occupied(occupied_cells)
    added = jnp.sum(found < num_cells, dtype=jnp.int32)
    # Sorted, so that the order within a batch leaves no trace.
    found = jax.lax.sort(found, is_stable=False)
    position = jnp.arange(found.shape[0], dtype=jnp.int32)
    target = jnp.where(position < added, count + position, num_cells + position)
    # One scatter for cells and count: a second one would cost a copy of the list.
    count = count + added
    last = jnp.where(count < num_cells, num_cells - 1, num_cells + found.shape[0])
    return occupied_cells.at[jnp.append(target, last)].set(
        jnp.append(found, ~count), mode="drop", unique_indices=True
    )
