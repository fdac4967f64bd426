"""A function and its derivative as one program, where operation by operation takes dozens."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax


def pulled_back(
    function: Callable[..., jax.Array], cotangent: jax.Array, *arguments: Any
) -> tuple[jax.Array, tuple[Any, ...]]:
    """What a function gives, and what its derivative makes of a cotangent of that shape."""

    @jax.jit
    def both(cotangent: jax.Array, *arguments: Any) -> tuple[jax.Array, tuple[Any, ...]]:
        values, pull_back = jax.vjp(function, *arguments)
        return values, pull_back(cotangent)

    return both(cotangent, *arguments)
