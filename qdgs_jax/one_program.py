"""Functions that are one compiled program each for callers outside `jit`.

JAX compiles every kind of operation by itself there, and calls one after the other: the first
insertion into an archive would wait for dozens of small programs. Below somebody else's `jit`,
`vmap` or `grad` the plain code takes part instead, so that nothing is compiled twice.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

import jax

P = ParamSpec("P")
R = TypeVar("R")


def traced(tree: Any) -> bool:
    """Whether a pytree holds an array that a transformation of JAX is looking at."""
    return any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves(tree))


def one_program(*static: str) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Decorate a function of pytrees, a method of one included.

    Nothing is donated: what the caller gave stays his.

    Args:
        static: names of arguments that are part of the program, which are hashable.
    """

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        program = jax.jit(function, static_argnames=static)

        @functools.wraps(function)
        def called(*args: P.args, **keywords: P.kwargs) -> R:
            if traced((args, keywords)):
                return function(*args, **keywords)
            result: R = program(*args, **keywords)
            return result

        return called

    return decorate
