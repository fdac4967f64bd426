"""The one error of the ports, and how values from a foreign file are shown in its message.

A hostile file chooses the values that end up in messages, so they are shortened and never printed
through a container's own `repr`, which a few bytes can make exponentially long.
"""

from __future__ import annotations

_LONGEST = 80


class CheckpointError(ValueError):
    """A checkpoint is broken, hostile, incomplete or of a kind that is not supported."""


def show(value: object) -> str:
    """Text of a value from a file, at most about 80 characters; containers by type alone."""
    if value is None or isinstance(value, bool | int | float):
        return repr(value)
    if isinstance(value, str):
        return repr(value if len(value) <= _LONGEST else value[:_LONGEST] + "...")
    return f"a {type(value).__name__}"
