"""A function and its derivative as one program, where operation by operation takes dozens."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax


def pulled_back(
    function: Callable[..., Any], cotangent: Any, *arguments: Any
) -> tuple[Any, tuple[Any, ...]]:
    """What a function gives, and what its derivative makes of a cotangent of that shape."""

    @jax.jit
    def both(cotangent: Any, *arguments: Any) -> tuple[Any, tuple[Any, ...]]:
        values, pull_back = jax.vjp(function, *arguments)
        return values, pull_back(cotangent)

    return both(cotangent, *arguments)


def several_pulled_back(
    function: Callable[..., Any], cotangents: Any, *arguments: Any
) -> tuple[Any, tuple[Any, ...], tuple[Any, ...]]:
    """What a function gives; what its derivative makes of cotangents mapped, and one by one."""

    @jax.jit
    def all_of_it(cotangents: Any, *arguments: Any) -> Any:
        values, pull_back = jax.vjp(function, *arguments)
        return values, jax.vmap(pull_back)(cotangents), jax.lax.map(pull_back, cotangents)

    values, mapped, one_by_one = all_of_it(cotangents, *arguments)
    return values, mapped, one_by_one
