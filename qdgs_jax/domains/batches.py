"""A few rows at a time, in a loop of the compiled program."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import jax
import jax.numpy as jnp

Tree = TypeVar("Tree")  # pytree of arrays with leading axis B


def in_batches(function: Callable[[jax.Array], Tree], latents: jax.Array, batch: int) -> Tree:
    """Apply a function to a few rows at a time, in a loop of the compiled program.

    The rows are shared out evenly, so that few of the last batch are padding.

    Args:
        function: latents Float[b, D] to arrays with leading axis b, each row from its own input.
        latents: Float[B, D].
        batch: rows at a time; 0, or B or more, for all at once.

    Returns:
        What `function` gives for all rows, with leading axis B.
    """
    count = latents.shape[0]
    if not 0 < batch < count:
        return function(latents)
    parts = -(-count // batch)
    size = -(-count // parts)
    filled = jnp.pad(latents, ((0, parts * size - count), (0, 0)), mode="edge")
    results = jax.lax.map(function, filled.reshape(parts, size, -1))
    joined: Tree = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:])[:count], results)
    return joined
