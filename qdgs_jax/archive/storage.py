"""Latents in less than single precision, stored as integers that hold their bits.

A CPU lacks the arithmetic of bfloat16, so XLA would scatter into a float32 copy of the whole table,
every step. A scatter of integers works in place on every device.
"""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp

_BITS = {1: jnp.dtype(jnp.uint8), 2: jnp.dtype(jnp.uint16)}


def storage_type(leaf: Any, dtype: str) -> jnp.dtype:
    """Say in what type a leaf of a genotype is stored.

    Args:
        leaf: an array or number; only floating-point ones are converted.
        dtype: name of the precision that latents are stored in.

    Raises:
        ValueError: If the leaf holds integers of the type that stands for `dtype`.
    """
    own, precision = jnp.result_type(leaf), jnp.dtype(dtype)
    if own == _BITS.get(precision.itemsize):
        raise ValueError(f"a genotype has {own} values, which stand for {dtype}: use int32.")
    if not jnp.issubdtype(own, jnp.floating):
        return own
    return _BITS.get(precision.itemsize, precision)


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
    if stored == _BITS.get(jnp.dtype(dtype).itemsize):
        return jax.lax.bitcast_convert_type(jnp.asarray(x, dtype), stored)
    return jnp.asarray(x, stored)


def decode(tree: Any, dtype: str) -> Any:
    """Convert stored leaves back; latents come out in at least float32."""
    precision = jnp.dtype(dtype)

    def leaf(x: jax.Array) -> jax.Array:
        if x.dtype == _BITS.get(precision.itemsize):
            x = jax.lax.bitcast_convert_type(x, precision).astype(jnp.float32)
        return x

    return jax.tree.map(leaf, tree)
