"""Parameters on disk: Orbax checkpoints of a few parameters each, one after another.

Orbax takes a tree of arrays, all in memory at once, and copies them. Written as groups of about
32 MB, `params/0`, `params/1` and so on, a model takes the memory of one group, whatever its size.
Folders of the first version hold one checkpoint, `params`, which is read group by group as well.
Only Orbax's public interface is used.
"""

from __future__ import annotations

import contextlib
import logging
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import numpy as np
import orbax.checkpoint as ocp

from qdgs_jax.ports.params import Pending, flatten, unflatten
from qdgs_jax.ports.plain_path import plain_path

GROUP_BYTES = 32 << 20
_FOLDER = "params"


def write_groups(
    folder: Path, leaves: Mapping[str, Pending], made: Callable[[str, np.ndarray], None]
) -> list[list[str]]:
    """Make and write parameters, a group at a time.

    Args:
        folder: a model folder, which gets `params/`.
        leaves: by path with dots.
        made: is told each parameter as soon as it is made.

    Returns:
        The names in each group, in order.
    """
    groups = grouped({name: leaf.nbytes for name, leaf in leaves.items()})
    (folder / _FOLDER).mkdir()
    # Weights hardly compress.
    handler = ocp.PyTreeCheckpointHandler(use_compression=False)
    with plain_path(folder) as plain, ocp.Checkpointer(handler) as checkpointer:
        for number, names in enumerate(groups):
            arrays = {}
            for name in names:
                arrays[name] = leaves[name].make()
                made(name, arrays[name])
            arguments = ocp.args.PyTreeSave(unflatten(arrays))
            checkpointer.save(plain / _FOLDER / str(number), args=arguments)
    return groups


def read_groups(
    folder: Path, groups: list[list[str]], placeholders: Mapping[str, np.ndarray], whole: bool
) -> Iterator[tuple[str, np.ndarray]]:
    """Read parameters, a group at a time.

    Args:
        folder: a model folder.
        groups: names in each group.
        placeholders: an array of the shape and type of each parameter.
        whole: whether a single checkpoint holds all groups.

    Yields:
        Name and array, in the order of the groups or the alphabet.
    """
    with (
        plain_path(folder) as plain,
        ocp.Checkpointer(ocp.PyTreeCheckpointHandler()) as checkpointer,
    ):
        for number, names in enumerate(groups):
            place = plain / _FOLDER if whole else plain / _FOLDER / str(number)
            arguments = ocp.args.PyTreeRestore(
                item=unflatten({name: placeholders[name] for name in names}),
                restore_args=unflatten(
                    {name: ocp.RestoreArgs(restore_type=np.ndarray) for name in names}
                ),
                partial_restore=True,
            )
            yield from flatten(checkpointer.restore(place, args=arguments))


def grouped(sizes: Mapping[str, int]) -> list[list[str]]:
    """Put names into groups that take about `GROUP_BYTES` together, given the bytes of each."""
    groups: list[list[str]] = []
    room = 0
    for name, size in sizes.items():
        if not groups or size > room:
            groups.append([])
            room = GROUP_BYTES
        groups[-1].append(name)
        room -= size
    return groups


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep off the terminal what is said of a failure beside its error.

    Orbax logs it, and TensorStore's threads complain that nobody waits for them any more.
    """
    logger, hook = logging.getLogger("absl"), sys.unraisablehook
    before = logger.disabled

    def told(unraisable: sys.UnraisableHookArgs) -> None:
        if str(unraisable.exc_value) != "Event loop is closed":
            hook(unraisable)

    logger.disabled, sys.unraisablehook = True, told
    try:
        yield
    finally:
        logger.disabled, sys.unraisablehook = before, hook
