"""Our model checkpoints: a folder with `config.json` and the parameters in Orbax's format.

`config.json` holds the model's settings and, per parameter, shape, element type and CRC-32, so that
a folder that was damaged or cut short is found out when it is loaded. A folder appears by one
rename, complete, or not at all.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import math
import shutil
import tempfile
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from qdgs_jax.ports.errors import CheckpointError, printable, show
from qdgs_jax.ports.readers.tensors import SCALAR_DTYPES

Params = dict[str, Any]  # nested dictionaries with arrays for leaves
_FORMAT, _VERSION = "qdgs-model", 1
_GROUP_BYTES = 64 << 20


@dataclasses.dataclass(frozen=True, eq=False)
class Pending:
    """A parameter that is made when its turn comes to be written, and then dropped.

    Attributes:
        shape: shape of the array that `make` gives.
        dtype: its element type.
        make: makes the array.
    """

    shape: tuple[int, ...]
    dtype: np.dtype
    make: Callable[[], np.ndarray]

    @property
    def size(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)


def save_model(
    folder: str | Path,
    config: Mapping[str, Any],
    params: Mapping[str, Any],
    files: Sequence[Path] = (),
    progress: Callable[[int, int], None] | None = None,
) -> None:
    """Write a model folder.

    Args:
        folder: to be created; it may exist only if it is empty. Its parents are created.
        config: JSON-able settings of the model; "kind" names the model.
        params: nested dictionaries with string keys without dots; leaves are arrays, or `Pending`.
        files: files to be copied into the folder, such as a tokenizer's.
        progress: called with the numbers of parameters written and in all.

    Raises:
        CheckpointError: if the folder already holds something.
        OSError: if the disk is full or the place is not writable; nothing is left behind.
    """
    import orbax.checkpoint as ocp

    from qdgs_jax.ports.orbax_stream import stream_handler

    folder = Path(folder).absolute()
    check_destination(folder)
    leaves = {name: _pending(leaf) for name, leaf in flatten(params)}
    entries: dict[str, dict[str, Any]] = {}

    def watched(name: str, leaf: Pending) -> Pending:
        def make() -> np.ndarray:
            array = leaf.make()
            entries[name] = _describe(array)
            if progress is not None:
                progress(len(entries), len(leaves))
            return array

        return Pending(leaf.shape, leaf.dtype, make)

    tree = unflatten({name: watched(name, leaf) for name, leaf in leaves.items()})
    folder.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}.", suffix=".tmp"))
    try:
        with (
            _told_as(OSError, f"{folder} cannot be written"),
            ocp.Checkpointer(stream_handler()) as checkpointer,
        ):
            checkpointer.save(scratch / "params", args=ocp.args.PyTreeSave(tree))
        for file in files:
            shutil.copyfile(file, scratch / file.name)
        header = {"format": _FORMAT, "version": _VERSION, "config": dict(config)}
        header["parameters"] = {name: entries[name] for name in leaves}
        (scratch / "config.json").write_text(json.dumps(header, indent=1) + "\n")
        scratch.chmod(0o755)  # mkdtemp's folders are for their owner alone
        scratch.rename(folder)
    except BaseException:
        shutil.rmtree(scratch, ignore_errors=True)
        raise


def load_model(folder: str | Path) -> tuple[dict[str, Any], Params]:
    """Read a model folder.

    Returns:
        The settings, and the parameters as nested dictionaries of NumPy arrays.

    Raises:
        CheckpointError: if the folder is no model, incomplete or damaged.
    """
    folder = Path(folder).absolute()
    header = _read_header(folder)
    params = unflatten(dict(_read_parameters(folder, header["parameters"])))
    return header["config"], params


def load_config(folder: str | Path) -> dict[str, Any]:
    """Read the settings of a model folder, without its parameters.

    Raises:
        CheckpointError: if the folder is no model.
    """
    config: dict[str, Any] = _read_header(Path(folder).absolute())["config"]
    return config


def verify_model(folder: str | Path) -> int:
    """Read every parameter of a model folder and compare its checksum, a few at a time.

    Returns:
        The number of elements.

    Raises:
        CheckpointError: as `load_model`.
    """
    folder = Path(folder).absolute()
    parameters = _read_header(folder)["parameters"]
    return sum(leaf.size for _, leaf in _read_parameters(folder, parameters))


def check_destination(folder: str | Path) -> None:
    """Raise unless a model may be written to this folder.

    Raises:
        CheckpointError: if there already is something other than an empty folder.
    """
    folder = Path(folder)
    if not folder.exists():
        return
    if not folder.is_dir():
        raise CheckpointError(f"{folder} is a file: give a folder that does not exist yet.")
    if any(folder.iterdir()):
        kind = "a model" if (folder / "config.json").exists() else "other files"
        raise CheckpointError(
            f"{folder} already holds {kind}: give another folder, or remove this one first."
        )


def flatten(params: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Leaves of nested dictionaries, named by their path with dots."""
    for key, value in params.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping):
            yield from flatten(value, f"{name}.")
        else:
            yield name, value


def unflatten(leaves: Mapping[str, Any]) -> Params:
    """Invert `flatten`."""
    out: Params = {}
    for name, leaf in leaves.items():
        *parents, last = name.split(".")
        node = out
        for parent in parents:
            node = node.setdefault(parent, {})
        node[last] = leaf
    return out


def _pending(leaf: Any) -> Pending:
    if isinstance(leaf, Pending):
        return leaf
    array = np.asarray(leaf)
    return Pending(array.shape, array.dtype, lambda: array)


def _describe(leaf: np.ndarray) -> dict[str, Any]:
    data = np.ascontiguousarray(leaf).reshape(-1).view(np.uint8)
    return {"shape": list(leaf.shape), "dtype": leaf.dtype.name, "crc32": zlib.crc32(data.data)}


def _read_header(folder: Path) -> dict[str, Any]:
    path = folder / "config.json"
    try:
        header = json.loads(path.read_text())
    except OSError as error:
        raise CheckpointError(
            f"{folder} is not a model: {path.name} cannot be read ({error.strerror}). "
            "`qdgs port` makes a model folder from a checkpoint."
        ) from None
    except ValueError as error:
        raise CheckpointError(f"{path} is not valid JSON: {error}.") from None
    if not isinstance(header, dict) or header.get("format") != _FORMAT:
        raise CheckpointError(f"{path} is not that of a model made by `qdgs port`.")
    if header.get("version") != _VERSION:
        raise CheckpointError(
            f"{folder} has format version {show(header.get('version'))}; "
            f"this program reads {_VERSION}."
        )
    if not all(isinstance(header.get(key), dict) for key in ("config", "parameters")):
        raise CheckpointError(f"{path} lacks its config or its list of parameters.")
    return header


def _read_parameters(
    folder: Path, parameters: Mapping[str, Mapping[str, Any]]
) -> Iterator[tuple[str, np.ndarray]]:
    """Restore the parameters in groups of about 64 MB, which bounds Orbax's buffers."""
    import orbax.checkpoint as ocp

    group: dict[str, np.ndarray] = {}
    with ocp.Checkpointer(ocp.PyTreeCheckpointHandler()) as checkpointer:
        names = list(parameters)
        for name in names:
            group[name] = _placeholder(folder, name, parameters[name])
            if name != names[-1] and sum(leaf.nbytes for leaf in group.values()) < _GROUP_BYTES:
                continue
            item = unflatten(group)
            kinds = unflatten({n: ocp.RestoreArgs(restore_type=np.ndarray) for n in group})
            arguments = ocp.args.PyTreeRestore(item=item, restore_args=kinds, partial_restore=True)
            with _told_as(CheckpointError, f"{folder} is incomplete or damaged"):
                restored = checkpointer.restore(folder / "params", args=arguments)
            for restored_name, leaf in flatten(restored):
                if _describe(leaf) != parameters[restored_name]:
                    raise CheckpointError(
                        f"{folder} is damaged: {printable(restored_name)} is not what was saved. "
                        "Port it again."
                    )
                yield restored_name, leaf
            group = {}


@contextlib.contextmanager
def _told_as(kind: type[Exception], what: str) -> Iterator[None]:
    """Turn what Orbax and TensorStore raise, which is of many kinds, into one."""
    try:
        yield
    except CheckpointError:
        raise
    except Exception as error:
        line = str(error).partition("\n")[0].rpartition(": ")[2]
        reason = getattr(error, "strerror", None) or line[:200]
        raise kind(f"{what}: {reason}.") from error


def _placeholder(folder: Path, name: str, entry: Mapping[str, Any]) -> np.ndarray:
    """Make an array of the declared shape and type that takes no memory."""
    try:
        return np.broadcast_to(np.zeros((), SCALAR_DTYPES[entry["dtype"]]), entry["shape"])
    except (KeyError, TypeError, ValueError):
        raise CheckpointError(
            f"{folder / 'config.json'} is damaged at parameter {printable(name)}."
        ) from None
