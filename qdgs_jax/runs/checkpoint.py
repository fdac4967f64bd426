"""Checkpoints of a whole search, so that a killed run continues bit for bit.

A checkpoint is a folder with `index.json` (name, shape, type and CRC-32 of every array) and one
.npy file per array. Of an archive only the rows of occupied cells are kept; what an empty cell
holds follows from the archive's settings. The folder appears by one rename, complete, synced and
read back, or not at all. What has no array (settings of the archive, types of the emitter's state)
comes from a state of the same search.

The state of a search is donated to its next step, so rows are copied to the host first
(`take_snapshot`, while the search stands still) and written afterwards (`Snapshot.write`, while it
goes on). Orbax is not used here because it takes its own path for a pattern.
"""

from __future__ import annotations

import dataclasses
import json
import os
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

from qdgs_jax.archive import Archive
from qdgs_jax.files import appearing_folder
from qdgs_jax.runs.array_file import (
    DamagedFileError,
    drop_cached,
    read_pieces,
    write_array,
)
from qdgs_jax.runs.host_copy import copy_rows, copy_whole, fill_rows
from qdgs_jax.runs.host_pool import HostPool

State = TypeVar("State")

_FORMAT, _VERSION = "qdgs-state", 2


class DamagedCheckpointError(ValueError):
    """A checkpoint that cannot be read: an older one may do."""


class _Leaf(NamedTuple):
    """An array of a state.

    Attributes:
        name: its path in the pytree.
        array: the array, or its shape and type.
        fill: what the rows of empty cells hold; None for arrays that are kept whole.
        cells: name of the list of occupied cells that says which rows are kept.
    """

    name: str
    array: Any
    fill: float | None = None
    cells: str = ""


@dataclasses.dataclass(frozen=True)
class _Column:
    """An array on the host, in pieces: Any[N, ...] if only N rows are kept."""

    entry: Mapping[str, Any]  # "shape" and "dtype" of the whole array, "rows" if only N are kept
    pieces: Sequence[np.ndarray]


@dataclasses.dataclass(frozen=True)
class Snapshot:
    """A state on the host, independent of the device's memory."""

    columns: Mapping[str, _Column]

    @property
    def nbytes(self) -> int:
        """Bytes that a checkpoint of it takes, but for headers."""
        return sum(piece.nbytes for column in self.columns.values() for piece in column.pieces)

    def give_back(self, pool: HostPool) -> None:
        """Return the memory to where it came from; the snapshot is not used any more."""
        for column in self.columns.values():
            for piece in column.pieces:
                pool.give_back(piece)

    def write(self, path: str | Path, about: Mapping[str, Any] | None = None) -> None:
        """Write the checkpoint, sync it and read it back; then it appears.

        Args:
            path: a folder that does not exist yet; its parents are created.
            about: what `read_about` shall give back, as JSON can hold it.

        Raises:
            ValueError: If there already is something at `path`.
            OSError: If the disk is full, the place is not writable, or it gives back other bytes
                than it was given; nothing is left behind.
        """
        path = Path(os.path.abspath(path))  # noqa: PTH100 (keeps links)
        if os.path.lexists(path):
            raise ValueError(f"{path} already exists: give each checkpoint a folder of its own.")
        with appearing_folder(path) as scratch:
            (scratch / "arrays").mkdir()
            arrays = {}
            for number, (name, column) in enumerate(self.columns.items()):
                file = f"arrays/{number:03d}.npy"
                shape, dtype = _stored_shape(column.entry), column.entry["dtype"]
                checksum = write_array(scratch / file, column.pieces, shape, dtype)
                arrays[name] = {**column.entry, "file": file, "crc32": checksum}
            _write_index(scratch, arrays, about or {})
            try:
                for name, entry in _read_index(scratch)["arrays"].items():
                    drop_cached(scratch / entry["file"])
                    for _ in _pieces(scratch, name, entry):
                        pass
            except DamagedCheckpointError as error:
                raise OSError(f"{path.parent} does not keep what is written: {error}") from None


def take_snapshot(state: Any, pool: HostPool | None = None) -> Snapshot:
    """Copy a state to the host, of an archive only the rows of occupied cells.

    Args:
        state: any pytree of arrays, such as a `SearchState`. It may be donated afterwards.
        pool: where memory for the rows comes from; `Snapshot.give_back` returns it.
    """
    pool = pool or HostPool()
    leaves = _leaves(state)
    lists = {leaf.cells for leaf in leaves if leaf.cells}
    occupied = {
        leaf.name: _occupied(copy_whole(leaf.array)) for leaf in leaves if leaf.name in lists
    }
    columns = {}
    for leaf in leaves:
        entry = _kind(leaf.array)
        if leaf.fill is None:
            columns[leaf.name] = _Column(entry, (copy_whole(leaf.array),))
        else:
            rows = occupied[leaf.cells]
            entry["rows"] = len(rows)
            columns[leaf.name] = _Column(entry, copy_rows(leaf.array, rows, pool))
    return Snapshot(columns)


def rows_nbytes(state: Any, elites: int) -> int:
    """Bytes that so many rows of a state's archives take."""
    tables = (leaf.array for leaf in _leaves(state) if leaf.fill is not None)
    return sum(elites * (table.nbytes // table.shape[0]) for table in tables)


def save_state(path: str | Path, state: Any, about: Mapping[str, Any] | None = None) -> None:
    """Write a checkpoint; see `take_snapshot` and `Snapshot.write`."""
    take_snapshot(state).write(path, about)


def restore_state(path: str | Path, like: State) -> State:
    """Read a checkpoint.

    Args:
        path: a folder that `save_state` wrote.
        like: a state of the same search, or its shapes: `jax.eval_shape(search.init,
            genotypes, key)` gives them without an evaluation.

    Returns:
        A state like `like` with the arrays of the checkpoint.

    Raises:
        DamagedCheckpointError: If the folder is no checkpoint, or a damaged one.
        ValueError: If it is one of another search.
    """
    path = Path(os.path.abspath(path))  # noqa: PTH100 (keeps links)
    stored = _read_index(path)["arrays"]
    leaves = _leaves(like)
    _check_fit(path, stored, {leaf.name: _kind(leaf.array) for leaf in leaves})
    arrays: dict[str, jax.Array] = {}
    for leaf in sorted(leaves, key=lambda leaf: leaf.fill is not None):  # lists of cells first
        entry = stored[leaf.name]
        pieces = _pieces(path, leaf.name, entry)
        if leaf.fill is None:
            # Copied, because the state will be donated, and a device may share NumPy's memory.
            arrays[leaf.name] = jnp.array(_joined(pieces, entry), copy=True)
        else:
            cells = _occupied(np.asarray(arrays[leaf.cells]))
            if len(cells) != entry.get("rows"):
                raise DamagedCheckpointError(
                    f"{path} is damaged: {leaf.name} has not a row per elite."
                )
            arrays[leaf.name] = fill_rows(leaf.array, leaf.fill, cells, pieces)
    state: State = jax.tree.unflatten(
        jax.tree.structure(like), [arrays[leaf.name] for leaf in leaves]
    )
    return state


def read_about(path: str | Path) -> dict[str, Any]:
    """Read what a checkpoint says of itself, without its arrays.

    Raises:
        DamagedCheckpointError: If the folder is no checkpoint, or a damaged one.
    """
    about: dict[str, Any] = _read_index(Path(path))["about"]
    return about


# What a state consists of


def _leaves(tree: Any) -> list[_Leaf]:
    """All arrays of a state, in the order of `jax.tree.leaves`."""
    found = []
    nodes, _ = jax.tree_util.tree_flatten_with_path(tree, is_leaf=_is_archive)
    for path, node in nodes:
        where = jax.tree_util.keystr(path)
        if not _is_archive(node):
            found.append(_Leaf(where, node))
            continue
        fills = {
            "genotypes": 0.0,
            "fitnesses": -np.inf,
            "descriptors": 0.0,
            "extra_scores": 0.0,
            "thresholds": node.threshold_min,
        }
        for inner, leaf in jax.tree_util.tree_flatten_with_path(node)[0]:
            fill = fills.get(jax.tree_util.keystr(inner[:1], simple=True))
            cells = f"{where}.occupied_cells"
            name = where + jax.tree_util.keystr(inner)
            found.append(_Leaf(name, leaf) if fill is None else _Leaf(name, leaf, fill, cells))
    return found


def _is_archive(node: Any) -> bool:
    return isinstance(node, Archive)


def _occupied(cells: np.ndarray) -> np.ndarray:
    """The occupied cells Int[N] of an archive's list, whose last entry may be ~N."""
    last = int(cells[-1])
    return cells[: ~last if last < 0 else len(cells)]


def _kind(leaf: Any) -> dict[str, Any]:
    return {"shape": list(leaf.shape), "dtype": np.dtype(leaf.dtype).name}


# The folder


def _stored_shape(entry: Mapping[str, Any]) -> tuple[int, ...]:
    shape = tuple(entry["shape"])
    return (entry["rows"], *shape[1:]) if "rows" in entry else shape


def _pieces(folder: Path, name: str, entry: Mapping[str, Any]) -> Iterator[np.ndarray]:
    """Read an array in pieces.

    Raises:
        DamagedCheckpointError: If its file is not what was written.
    """
    shape, file = _stored_shape(entry), folder / entry["file"]
    try:
        yield from read_pieces(file, shape, entry["dtype"], entry["crc32"])
    except DamagedFileError as error:
        raise DamagedCheckpointError(
            f"{folder} is incomplete or damaged: {name} cannot be read ({error})."
        ) from None


def _joined(pieces: Iterator[np.ndarray], entry: Mapping[str, Any]) -> np.ndarray:
    whole = np.empty(entry["shape"], jnp.dtype(entry["dtype"]))
    rows = whole.reshape(entry["shape"] or 1)
    at = 0
    for piece in pieces:
        rows[at : at + len(piece)] = piece
        at += len(piece)
    return whole


def _write_index(
    folder: Path, arrays: Mapping[str, Mapping[str, Any]], about: Mapping[str, Any]
) -> None:
    content = {"about": about, "arrays": arrays}
    index = {"format": _FORMAT, "version": _VERSION, **content, "crc32": _content_checksum(content)}
    with (folder / "index.json").open("x", encoding="utf-8") as stream:
        stream.write(json.dumps(index, indent=1) + "\n")
        stream.flush()
        os.fsync(stream.fileno())


def _read_index(path: Path) -> dict[str, Any]:
    try:
        index = json.loads((path / "index.json").read_text(encoding="utf-8"))
    except OSError as error:
        raise DamagedCheckpointError(
            f"{path} is not a checkpoint: index.json cannot be read ({error.strerror})."
        ) from None
    except ValueError as error:
        raise DamagedCheckpointError(f"{path / 'index.json'} is damaged: {error}.") from None
    if not isinstance(index, dict) or index.get("format") != _FORMAT:
        raise DamagedCheckpointError(f"{path} is not a checkpoint of a search.")
    if index.get("version") != _VERSION:
        raise ValueError(
            f"{path} has format version {index.get('version')}; this program reads {_VERSION}."
        )
    content = {"about": index.get("about"), "arrays": index.get("arrays")}
    if index.get("crc32") != _content_checksum(content):
        raise DamagedCheckpointError(
            f"{path / 'index.json'} is damaged: its checksum is another one."
        )
    return content


def _content_checksum(content: Mapping[str, Any]) -> int:
    return zlib.crc32(json.dumps(content, sort_keys=True).encode())


def _check_fit(
    path: Path, stored: Mapping[str, Mapping[str, Any]], wanted: Mapping[str, Mapping[str, Any]]
) -> None:
    """Raise unless the checkpoint holds exactly the wanted arrays."""
    problems = [f"{name} is missing" for name in wanted if name not in stored]
    problems += [f"{name} is not part of this search" for name in stored if name not in wanted]
    for name, kind in wanted.items():
        found = {key: stored[name][key] for key in kind} if name in stored else kind
        if found != kind:
            problems.append(
                f"{name} is {found['dtype']}{found['shape']} instead of "
                f"{kind['dtype']}{kind['shape']}"
            )
    if problems:
        more = f" and {len(problems) - 3} more" if len(problems) > 3 else ""
        raise ValueError(
            f"{path} belongs to another search: {'; '.join(problems[:3])}{more}. Continue it with "
            "the settings it was started with."
        )
