"""Latents in less than single precision, stored as integers that hold their bits.

On a CPU, XLA (of JAX 0.10) has no scatter of bfloat16: it converts the whole table to float32 and
back, every step. Bits work in place on every device. Measured with 50,000 x 512 latents, a table of
51 MB, and 64 candidates a step on two cores:

| table | update | ms a step | temporary MB |
| --- | --- | ---: | ---: |
| uint16 | scatter | 0.5 | 0.8 |
| bfloat16 | scatter | 23 | 103 |
| bfloat16 | bitcast, scatter of uint16, bitcast | 15 | 52 |
| bfloat16 | `dynamic_update_slice` row by row | 600 | 0.8 |

since a bitcast of a table is a copy there, and a slice written into one passes through float32 too.
Compiled for a TPU v5e (libtpu 0.0.42.1) and an H100, a scatter of 64 rows into 156,250 x 7,168 is
in place in either type, without any temporary. Bits are stored there as well: they cost nothing,
and a search goes on from its checkpoint on a machine of another kind.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from qdgs_jax.one_program import one_program

_BITS = {1: jnp.dtype(jnp.uint8), 2: jnp.dtype(jnp.uint16)}


def _bits(dtype: str) -> jnp.dtype | None:
    """The type that holds the bits of a precision; None where none is needed."""
    return _BITS.get(jnp.dtype(dtype).itemsize)


def holds_bits(stored: jnp.dtype, dtype: str) -> bool:
    """Say whether a table of type `stored` holds the bits of `dtype`."""
    bits = _bits(dtype)  # compared only if there is one: to NumPy, float64 equals None
    return bits is not None and stored == bits


def storage_type(leaf: Any, dtype: str) -> jnp.dtype:
    """Say in what type a leaf of a genotype is stored.

    Args:
        leaf: an array or number; only floating-point ones are converted.
        dtype: name of the precision that latents are stored in.

    Raises:
        ValueError: If the leaf holds integers of the type that stands for `dtype`.
    """
    own = jnp.result_type(leaf)
    if holds_bits(own, dtype):
        raise ValueError(f"a genotype has {own} values, which stand for {dtype}: use int32.")
    if not jnp.issubdtype(own, jnp.floating):
        return own
    return _bits(dtype) or jnp.dtype(dtype)


def finite_rows(tree: Any, dtype: str) -> jax.Array:
    """Say which candidates a precision can hold, Bool[B]: no NaN, no infinity, nothing too large.

    Args:
        tree: leaves with leading axis B.
        dtype: name of the precision that latents are stored in.
    """

    def leaf(x: Any) -> jax.Array:
        x = jnp.asarray(x)
        if not jnp.issubdtype(x.dtype, jnp.floating):
            return jnp.ones(x.shape[0], bool)
        # Compared rather than converted, which a CPU does slowly.
        kinds = map(jnp.finfo, (dtype, x.dtype))
        largest = min(float(kind.max) for kind in kinds)
        return (jnp.abs(x) <= largest).reshape(x.shape[0], -1).all(1)

    return functools.reduce(jnp.logical_and, map(leaf, jax.tree.leaves(tree)))


def encode(x: jax.Array, stored: jnp.dtype, dtype: str) -> jax.Array:
    """Convert candidates to the type `stored` of their table."""
    if holds_bits(stored, dtype):
        return jax.lax.bitcast_convert_type(jnp.asarray(x, dtype), stored)
    return jnp.asarray(x, stored)


def decode(tree: Any, dtype: str) -> Any:
    """Convert stored leaves back; latents come out in at least float32."""

    def leaf(x: jax.Array) -> jax.Array:
        if holds_bits(x.dtype, dtype):
            x = jax.lax.bitcast_convert_type(x, jnp.dtype(dtype)).astype(jnp.float32)
        return x

    return jax.tree.map(leaf, tree)


@one_program("cells", "dtype")
def empty_tables(
    genotype: Any,
    extra_scores: Mapping[str, Any],
    threshold_min: float,
    *,
    cells: tuple[int, int],
    dtype: str,
) -> dict[str, Any]:
    """The arrays of an archive without elites, by one program.

    Args:
        genotype: one example latent, a pytree of arrays.
        extra_scores: one example of each extra score.
        threshold_min: where thresholds start.
        cells: numbers (C, M) of cells and of measures.
        dtype: name of the precision that latents are stored in.
    """

    def table(x: Any, dtype: Any = None) -> jax.Array:
        return jnp.zeros((cells[0], *jnp.shape(x)), dtype or jnp.result_type(x))

    return {
        "genotypes": jax.tree.map(lambda x: table(x, storage_type(x, dtype)), genotype),
        "fitnesses": jnp.full((cells[0], 1), -jnp.inf, jnp.float32),
        "descriptors": jnp.zeros(cells, jnp.float32),
        "extra_scores": jax.tree.map(table, extra_scores),
        "thresholds": jnp.full(cells[0], threshold_min, jnp.float32),
        "occupied_cells": jnp.zeros(cells[0], jnp.int32).at[-1].set(~0),
    }
