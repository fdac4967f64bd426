"""Branching along gradients: from a parent's Jacobian to rows, and from rows to candidates."""

from __future__ import annotations

import functools
from typing import Literal

import jax
import jax.numpy as jnp

from qdgs_jax.emitters.space import HIGHEST, Bounds, clip

Normalization = Literal["none", "unit", "orthonormal"]  # of the gradients at a parent

_DEPENDENT = 1e-5  # the part of a unit row, below which rounding decides its direction


def gradient_rows(
    jacobian: jax.Array,
    theta: jax.Array,
    num_measures: int,
    normalization: Normalization,
    epsilon: float,
) -> jax.Array:
    """Rows to branch along, from the Jacobian Float[E, 1 + M, D] at theta Float[E, D].

    A row that is not finite counts as zero, so that branches stay in the span of the others.

    Raises:
        ValueError: If the shape is another.
    """
    expected = (theta.shape[0], 1 + num_measures, theta.shape[1])
    if jacobian.shape != expected:
        raise ValueError(
            f"jacobian has shape {jacobian.shape}, expected {expected}: one row for the "
            "objective and one per measure, for each parent."
        )
    rows = jacobian.astype(theta.dtype)
    rows = jnp.where(jnp.isfinite(rows).all(-1, keepdims=True), rows, 0)
    if normalization == "none":
        return rows
    rows = rows / (jnp.linalg.norm(rows, axis=-1, keepdims=True) + epsilon)
    return rows if normalization == "unit" else _orthonormal(rows)


def directions(rows: jax.Array, key: jax.Array) -> jax.Array:
    """Rows Float[E, 1 + M, D] to branch along, random unit rows for a parent that has none at all.

    Where nothing is differentiable, or everything flat, a parent would otherwise offer itself again
    and again, and be all there is to restart from. All such parents share one draw of [1 + M, D]:
    it is made in every step and taken by a select, which costs less than asking whether anybody
    needs it.
    """
    drawn = jax.random.normal(key, rows.shape[1:], rows.dtype)
    drawn = drawn / jnp.linalg.norm(drawn, axis=-1, keepdims=True)
    return jnp.where(rows.any((-2, -1), keepdims=True), rows, drawn)


def _orthonormal(rows: jax.Array) -> jax.Array:
    """Orthonormal rows of the same span as the unit rows Float[E, 1 + M, D].

    The measures' come first and the objective's last: it then leaves the measures as they are. A
    row that depends on those before it becomes zero.
    """
    product = functools.partial(jnp.matmul, precision=HIGHEST)
    objective, *measures = jnp.moveaxis(rows, 1, 0)
    basis = jnp.zeros_like(rows[:, :0])
    for row in (*measures, objective):
        rest = row[:, None]
        for _ in range(2):  # the second time removes what rounding left of nearly parallel rows
            rest = rest - product(product(rest, basis.mT), basis)
        length = jnp.linalg.norm(rest, axis=-1, keepdims=True)
        rest = jnp.where(length > _DEPENDENT, rest / jnp.maximum(length, _DEPENDENT), 0)
        basis = jnp.concatenate([basis, rest], axis=1)
    return jnp.roll(basis, 1, axis=1)


def fold_objective(coefficients: jax.Array) -> jax.Array:
    """Coefficients Float[..., 1 + M] with the objective's made non-negative."""
    return coefficients.at[..., 0].set(jnp.abs(coefficients[..., 0]))


def branch(theta: jax.Array, rows: jax.Array, coefficients: jax.Array, bounds: Bounds) -> jax.Array:
    """Branches theta + c J inside bounds, Float[E, B, D].

    Args:
        theta: Float[E, D].
        rows: Float[E, 1 + M, D], those of J.
        coefficients: Float[E, B, 1 + M], the rows c.
        bounds: of every component.
    """
    steps = jnp.einsum("ebk,ekd->ebd", coefficients, rows, precision=HIGHEST)
    return clip(theta[:, None] + steps, bounds)
