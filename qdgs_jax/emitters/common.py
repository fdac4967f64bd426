"""Small pieces that several emitters share."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, Literal, get_args

import jax
import jax.numpy as jnp
from jax.custom_batching import custom_vmap

from qdgs_jax.emitters import cma_es
from qdgs_jax.emitters.ranking import PARENT_RULES, RANKINGS

Bounds = tuple[float, float] | None  # of every component of a candidate
Normalization = Literal["none", "unit", "orthonormal"]  # of the gradients at a parent

# Of products: accelerators would round the factors to TF32 or bfloat16.
HIGHEST = jax.lax.Precision.HIGHEST
NO_JACOBIANS = (
    "nobody evaluated the emitter's parents with Jacobians: run it in qdgs_jax's Search, or give "
    "it a jacobian_function."
)
_DEPENDENT = 1e-5  # the part of a unit row, below which rounding decides its direction


def take(candidates: jax.Array, order: jax.Array) -> jax.Array:
    """Candidates Float[E, B, ...] in the given order Int[E, P]."""
    return jnp.take_along_axis(candidates, order[..., None], axis=1, mode="promise_in_bounds")


def start_points(genotypes: jax.Array, num_emitters: int) -> jax.Array:
    """Spread start latents: Float[E, D] of at least single precision, genotypes[e % n] at e.

    Raises:
        ValueError: If genotypes is not Float[n, D] with n >= 1.
    """
    if getattr(genotypes, "ndim", 0) != 2 or genotypes.shape[0] < 1:
        shape = getattr(genotypes, "shape", type(genotypes).__name__)
        raise ValueError(f"genotypes has shape {shape}: give start latents Float[n, D], n >= 1.")
    dtype = jnp.promote_types(genotypes.dtype, jnp.float32)
    return jnp.asarray(genotypes, dtype)[jnp.arange(num_emitters) % genotypes.shape[0]]


def clip(genotypes: jax.Array, bounds: Bounds) -> jax.Array:
    """Genotypes inside `bounds`."""
    return genotypes if bounds is None else jnp.clip(genotypes, *bounds)


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


def directions(gradients: jax.Array | None, key: jax.Array) -> jax.Array:
    """Rows to branch along: the gradients, or random unit rows for a parent that has none at all.

    Where nothing is differentiable, or everything flat, a parent would otherwise offer itself again
    and again, and be all there is to restart from.

    Raises:
        ValueError: If nobody evaluated the parents with Jacobians.
    """
    if gradients is None:
        raise ValueError(NO_JACOBIANS)
    rows: jax.Array = _with_random_rows(gradients, key)
    return rows


def _draw_lost_rows(gradients: jax.Array, key: jax.Array) -> jax.Array:
    rows = jax.random.normal(key, gradients.shape, gradients.dtype)
    rows = rows / jnp.linalg.norm(rows, axis=-1, keepdims=True)
    return jnp.where(_lost(gradients), rows, gradients)


def _lost(gradients: jax.Array) -> jax.Array:
    return ~gradients.any((-2, -1), keepdims=True)


@custom_vmap
def _with_random_rows(gradients: jax.Array, key: jax.Array) -> jax.Array:
    return _draw_if_lost(_draw_lost_rows, gradients, key)


@_with_random_rows.def_vmap
def _over_seeds(axis_size: int, in_batched: list[bool], *args: jax.Array) -> tuple[jax.Array, bool]:
    """One branch for all seeds of a `vmap`, which would make a select that always draws."""
    gradients, keys = cma_es.map_all(axis_size, in_batched, args)
    return _draw_if_lost(jax.vmap(_draw_lost_rows), gradients, keys), True


def _draw_if_lost(
    draw: Callable[[jax.Array, jax.Array], jax.Array], gradients: jax.Array, key: jax.Array
) -> jax.Array:
    rows: jax.Array = jax.lax.cond(
        _lost(gradients).any(), draw, lambda rows, _: rows, gradients, key
    )
    return rows


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


def branch(
    theta: jax.Array, gradients: jax.Array, coefficients: jax.Array, bounds: Bounds
) -> jax.Array:
    """Branches theta + c J inside bounds, Float[E, B, D].

    Args:
        theta: Float[E, D].
        gradients: Float[E, 1 + M, D], the rows of J.
        coefficients: Float[E, B, 1 + M], the rows c.
        bounds: of every component.
    """
    steps = jnp.einsum("ebk,ekd->ebd", coefficients, gradients, precision=HIGHEST)
    return clip(theta[:, None] + steps, bounds)


def origin(repertoire: Any, count: int) -> jax.Array:
    """Zeros Float[count, D] for the latents of a repertoire."""
    dtype = jnp.promote_types(repertoire.genotypes.dtype, jnp.float32)
    return jnp.zeros((count, repertoire.genotypes.shape[1]), dtype)


def extent(repertoire: Any) -> jax.Array:
    """Extents Float[M] of a repertoire's cells per measure; 1 where they have none."""
    centroids = repertoire.centroids
    width = centroids.max(0) - centroids.min(0)
    return jnp.where(width > 0, width, 1.0)


def check_positive(**settings: float) -> None:
    """Raise ValueError for the first setting that is not positive."""
    for name, value in settings.items():
        if not value > 0:
            raise ValueError(f"{name} is {value}: give a positive number.")


def check_bounds(bounds: Bounds) -> None:
    """Raise ValueError unless bounds are in order."""
    if bounds is not None and not bounds[0] < bounds[1]:
        raise ValueError(f"bounds is {bounds}: give (low, high) with low < high, or None.")


def check_strategy(num_emitters: int, ranking: str, parent_rule: str) -> None:
    """Raise ValueError unless the settings that adaptive emitters share are usable."""
    check_positive(num_emitters=num_emitters)
    if ranking not in RANKINGS:
        raise ValueError(f"ranking is {ranking!r}: choose one of {RANKINGS}.")
    if parent_rule not in PARENT_RULES:
        raise ValueError(f"parent_rule is {parent_rule!r}: choose one of {PARENT_RULES}.")


def check_normalization(normalization: str) -> None:
    """Raise ValueError unless there is such a normalisation."""
    known = get_args(Normalization)
    if normalization not in known:
        raise ValueError(f"normalization is {normalization!r}: choose one of {known}.")
