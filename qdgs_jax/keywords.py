"""Keywords that nobody knows, told with the nearest one and all there are.

Python says only that a keyword is unexpected. A call that fails is looked at once more; one that
succeeds costs nothing.
"""

from __future__ import annotations

import difflib
import functools
import inspect
from collections.abc import Callable, Iterable
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")


class UnknownKeywordError(TypeError, ValueError):
    """A keyword that is not there: Python's kind of error, and one of input."""


def unknown_keyword(owner: str, name: str, known: Iterable[str]) -> UnknownKeywordError:
    """The error of a keyword that its owner does not know."""
    names = list(known)
    near = difflib.get_close_matches(name, names, 1)
    hint = f"did you mean {near[0]}? " if near else ""
    return UnknownKeywordError(f"{owner} has no {name!r}: {hint}It takes {', '.join(names)}.")


def named(function: Callable[P, R], owner: str = "", known: Iterable[str] = ()) -> Callable[P, R]:
    """The function, whose unknown keywords are told in words.

    Args:
        function: what is called; its first parameter may be `self` or `cls`.
        owner: what the sentence calls it; its name if empty.
        known: the keywords to name; those of the function if empty.
    """

    @functools.wraps(function)
    def called(*args: P.args, **keywords: P.kwargs) -> R:
        try:
            return function(*args, **keywords)
        except TypeError as error:
            unknown = [name for name in keywords if name not in _parameters(function)]
            if not unknown or isinstance(error, UnknownKeywordError):
                raise
            names = known or _parameters(function)
            raise unknown_keyword(owner or function.__name__, unknown[0], names) from None

    return called


def name_keywords(*classes: type) -> None:
    """Have classes tell unknown keywords in words; one with a `create` names those of it."""
    for each in classes:
        changed: Any = each
        owner = each.__name__
        known: tuple[str, ...] = ()
        create = each.__dict__.get("create")
        if create is not None:
            owner, known = f"{owner}.create", _parameters(create.__func__)
            changed.create = classmethod(named(create.__func__, owner))
        changed.__init__ = named(changed.__init__, owner, known)


def _parameters(function: Callable[..., Any]) -> tuple[str, ...]:
    """Names of what a caller gives."""
    names = inspect.signature(function).parameters
    return tuple(name for name in names if name not in ("self", "cls"))
