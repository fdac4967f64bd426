"""Lets Orbax write parameters group by group, each made when its turn comes.

Orbax takes a tree of arrays, all in memory at once, and copies them. A type handler is its way to
save leaves of another kind: this one makes some `Pending` parameters, writes them as the NumPy
arrays that they are, and drops them before the next. A conversion then takes the memory of one
group. (Every group is a version of the checkpoint's index on disk: groups must not be too small.)
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp

from qdgs_jax.ports.model_folder import Pending

_GROUP_BYTES = 16 << 20


class _PendingHandler(ocp.type_handlers.NumpyHandler):
    """Writes `Pending` leaves as NumPy arrays, under NumPy's type name."""

    async def serialize(
        self,
        values: Sequence[Pending],
        infos: Sequence[Any],
        args: Sequence[Any] | None = None,
    ) -> Sequence[Any]:
        """Make and write one group at a time; nothing is left to wait for."""
        args = args or [ocp.SaveArgs()] * len(values)
        group: list[tuple[np.ndarray, Any, Any]] = []
        for number, (value, info, arg) in enumerate(zip(values, infos, args, strict=True), 1):
            group.append((value.make(), info, arg))
            if number == len(values) or sum(array.nbytes for array, *_ in group) > _GROUP_BYTES:
                for written in await super().serialize(*zip(*group, strict=True)):
                    written.result()
                group = []
        return []


def stream_handler() -> ocp.PyTreeCheckpointHandler:
    """Make a handler for trees of `Pending`; it does not compress, for weights hardly do."""
    registry = ocp.type_handlers.create_type_handler_registry(
        (Pending, _PendingHandler(deepcopy_host_arrays=False)),
        (jax.Array, ocp.type_handlers.ArrayHandler()),
    )
    return ocp.PyTreeCheckpointHandler(use_compression=False, type_handler_registry=registry)
