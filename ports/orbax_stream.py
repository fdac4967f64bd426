"""Lets Orbax write parameters one after another, each made when its turn comes.

Orbax takes a tree of arrays, all in memory at once, and copies them. A type handler is its way to
save leaves of another kind: this one makes a `Pending` parameter, writes it as the NumPy array that
it is, and drops it before the next. A conversion then takes the memory of its largest parameter.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import orbax.checkpoint as ocp

from qdgs_jax.ports.checkpoint import Pending


class _PendingHandler(ocp.type_handlers.NumpyHandler):  # type: ignore[misc]
    """Writes `Pending` leaves as NumPy arrays, under NumPy's type name."""

    async def serialize(
        self,
        values: Sequence[Pending],
        infos: Sequence[Any],
        args: Sequence[Any] | None = None,
    ) -> Sequence[Any]:
        """Make and write one leaf at a time; nothing is left to wait for."""
        args = args or [ocp.SaveArgs()] * len(values)
        for value, info, arg in zip(values, infos, args, strict=True):
            for written in await super().serialize([value.make()], [info], [arg]):
                written.result()
        return []


def stream_handler() -> ocp.PyTreeCheckpointHandler:
    """Make a handler for trees of `Pending`; it does not compress, for weights hardly do."""
    registry = ocp.type_handlers.create_type_handler_registry(
        (Pending, _PendingHandler(deepcopy_host_arrays=False)),
        (jax.Array, ocp.type_handlers.ArrayHandler()),
    )
    return ocp.PyTreeCheckpointHandler(use_compression=False, type_handler_registry=registry)
