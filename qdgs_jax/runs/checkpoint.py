"""Checkpoints of a whole search, so that a killed run continues bit for bit.

A checkpoint is a folder with `index.json` (name, shape, type and CRC-32 of every array) and the
arrays in Orbax's format. It appears by one rename, complete, or not at all. What has no array
(settings of the archive, types of the emitter's state) comes from a state of the same search.
"""

from __future__ import annotations

import json
import shutil
import tempfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

State = TypeVar("State")
_FORMAT, _VERSION = "qdgs-state", 1


def save_state(path: str | Path, state: Any) -> None:
    """Write a checkpoint.

    Args:
        path: a folder that does not exist yet; its parents are created.
        state: any pytree of arrays, such as a `SearchState`.

    Raises:
        ValueError: If there already is something at `path`.
        OSError: If the disk is full or the place is not writable; nothing is left behind.
    """
    import orbax.checkpoint as ocp

    path = Path(path).absolute()
    if path.exists():
        raise ValueError(f"{path} already exists: give each checkpoint a folder of its own.")
    leaves = {name: np.asarray(leaf) for name, leaf in _named_leaves(state).items()}
    index = {
        "format": _FORMAT,
        "version": _VERSION,
        "arrays": {name: {**_kind(x), "crc32": _checksum(x)} for name, x in leaves.items()},
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp"))
    try:
        with ocp.Checkpointer(ocp.PyTreeCheckpointHandler(use_compression=False)) as checkpointer:
            arrays = ocp.args.PyTreeSave(_storable(leaves))
            checkpointer.save(scratch / "arrays", args=arrays)
        (scratch / "index.json").write_text(json.dumps(index, indent=1) + "\n")
        scratch.chmod(0o755)  # mkdtemp's folders are for their owner alone
        scratch.rename(path)
    except BaseException:
        shutil.rmtree(scratch, ignore_errors=True)
        raise


def restore_state(path: str | Path, like: State) -> State:
    """Read a checkpoint.

    Args:
        path: a folder that `save_state` wrote.
        like: a state of the same search, or its shapes: `jax.eval_shape(search.init, params,
            genotypes, key)` gives them without an evaluation.

    Returns:
        A state like `like` with the arrays of the checkpoint.

    Raises:
        ValueError: If the folder is no checkpoint, damaged, or one of another search.
    """
    import orbax.checkpoint as ocp

    path = Path(path).absolute()
    stored = _read_index(path)
    wanted = {name: _kind(leaf) for name, leaf in _named_leaves(like).items()}
    _check_fit(path, stored, wanted)
    shapes = {
        name: np.broadcast_to(np.zeros((), leaf.dtype), leaf.shape)
        for name, leaf in _named_leaves(like).items()
    }
    kinds = {name: ocp.RestoreArgs(restore_type=np.ndarray) for name in _storable(shapes)}
    try:
        with ocp.Checkpointer(ocp.PyTreeCheckpointHandler()) as checkpointer:
            arguments = ocp.args.PyTreeRestore(item=_storable(shapes), restore_args=kinds)
            restored = checkpointer.restore(path / "arrays", args=arguments)
    except Exception as error:  # Orbax and TensorStore raise many kinds
        reason = str(error).partition("\n")[0][:200]
        raise ValueError(
            f"{path} is incomplete or damaged ({type(error).__name__}: {reason})."
        ) from error
    leaves = {**shapes, **restored}
    for name, leaf in leaves.items():
        if _checksum(leaf) != stored[name]["crc32"]:
            raise ValueError(f"{path} is damaged: {name} is not what was saved.")
    # Copied, because the state will be donated, and a device may otherwise share NumPy's memory.
    arrays = [jnp.array(leaves[name], copy=True) for name in wanted]
    state: State = jax.tree.unflatten(jax.tree.structure(like), arrays)
    return state


def _named_leaves(tree: Any) -> dict[str, Any]:
    leaves, _ = jax.tree_util.tree_flatten_with_path(tree)
    return {jax.tree_util.keystr(path): leaf for path, leaf in leaves}


def _storable(leaves: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Leave out empty arrays, which Orbax refuses; their shape tells all."""
    return {name: leaf for name, leaf in leaves.items() if leaf.size}


def _kind(leaf: Any) -> dict[str, Any]:
    return {"shape": list(leaf.shape), "dtype": np.dtype(leaf.dtype).name}


def _checksum(leaf: np.ndarray) -> int:
    return zlib.crc32(np.ascontiguousarray(leaf).reshape(-1).view(np.uint8).data)


def _read_index(path: Path) -> dict[str, dict[str, Any]]:
    try:
        index = json.loads((path / "index.json").read_text())
    except OSError as error:
        raise ValueError(
            f"{path} is not a checkpoint: index.json cannot be read ({error.strerror})."
        ) from None
    except ValueError as error:
        raise ValueError(f"{path / 'index.json'} is damaged: {error}.") from None
    if not isinstance(index, dict) or index.get("format") != _FORMAT:
        raise ValueError(f"{path} is not a checkpoint of a search.")
    if index.get("version") != _VERSION:
        raise ValueError(
            f"{path} has format version {index.get('version')}; this program reads {_VERSION}."
        )
    arrays: dict[str, dict[str, Any]] = index["arrays"]
    return arrays


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
