"""Derivatives of several outputs, pulled back beside each other through the same activations.

`jax.vmap` of a pull-back puts the outputs before the batch, and convolutions take both as one long
batch. On a TPU whatever is multiplied with what all outputs share (activations, slopes of the
rectifier, styles) must then be copied for each, and is an operation of its own, which moves every
pixel once more. Here the outputs come after the batch, as one more spatial axis along which kernels
are one wide: what follows a convolution, sums over pixels included, becomes part of it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import jax
import jax.numpy as jnp

from qdgs_jax.models.backend import target_backend

Shared = TypeVar("Shared")
Tree = TypeVar("Tree")


def side_by_side(
    one: Callable[[Shared, Tree], Any], several: Callable[[Shared, Tree], Any]
) -> Callable[[Shared, Tree], Any]:
    """A function for one derivative, which for several of them is another on a TPU.

    Args:
        one: of what is shared and of derivatives, arrays [B, ...], to arrays of any shape.
        several: the same of derivatives [B, n, ...], to arrays with n after their first axis.

    Returns:
        `one`; mapped by `jax.vmap` over its second argument alone, `several`. Its own derivative is
        a reverse one alone, that of `one`.
    """
    return placed_after_batch(one, several) if target_backend() == "tpu" else one


def placed_after_batch(
    one: Callable[[Shared, Tree], Any], several: Callable[[Shared, Tree], Any]
) -> Callable[[Shared, Tree], Any]:
    """`side_by_side` on any backend."""
    function = jax.custom_batching.custom_vmap(one)

    @function.def_vmap
    def mapped(size: int, batched: Any, shared: Shared, derivatives: Tree) -> tuple[Any, Any]:
        if any(jax.tree.leaves(batched[0])) or not all(jax.tree.leaves(batched[1])):
            axes = jax.tree.map(lambda each: 0 if each else None, tuple(batched))
            found = jax.vmap(one, axes, axis_size=size)(shared, derivatives)
        else:
            moved = jax.tree.map(lambda each: jnp.moveaxis(each, 0, 1), derivatives)
            found = several(shared, moved)
            found = jax.tree.map(lambda each: jnp.moveaxis(each, 1, 0), found)
        return found, jax.tree.map(lambda _: True, found)

    @jax.custom_vjp  # for what was mapped otherwise has no derivative
    def differentiable(shared: Shared, derivatives: Tree) -> Any:
        return function(shared, derivatives)

    differentiable.defvjp(
        lambda *given: (function(*given), given),
        lambda given, to_found: jax.vjp(one, *given)[1](to_found),
    )
    return differentiable
