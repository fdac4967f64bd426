"""Our model checkpoints: a folder with `config.json` and the parameters in Orbax's format.

`config.json` holds the model's settings and, per parameter, shape, element type and CRC-32, so that
a folder that was damaged or cut short is found out when it is loaded. A folder is read back before
it takes its place, by one rename: it is there complete, or not at all.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from qdgs_jax.ports.errors import CheckpointError, printable, show
from qdgs_jax.ports.new_folder import check_destination, naming_destination, new_folder, reason
from qdgs_jax.ports.params import Params, flatten, pending, unflatten
from qdgs_jax.ports.readers.tensors import SCALAR_DTYPES

__all__ = ["check_destination", "load_config", "load_model", "save_model", "verify_model"]

_FORMAT, _VERSION = "qdgs-model", 2
_ONE_CHECKPOINT = 1  # version of folders whose parameters are a single Orbax checkpoint


def save_model(
    folder: str | Path,
    config: Mapping[str, Any],
    params: Mapping[str, Any],
    files: Sequence[Path] = (),
    progress: Callable[[int, int], None] | None = None,
) -> int:
    """Write a model folder and read it back.

    Args:
        folder: to be created; it may exist only if it is empty. Its parents are created.
        config: JSON-able settings of the model; "kind" names the model.
        params: nested dictionaries with string keys without dots; leaves are arrays, or `Pending`.
        files: files to be copied into the folder, such as a tokenizer's.
        progress: called with the numbers of parameters made and in all; when they are equal, what
            is left to do is to read them back.

    Returns:
        The number of elements, counted in what was read back.

    Raises:
        CheckpointError: if the folder already holds something, or what was written cannot be read.
        OSError: if the disk is full or the place is not writable. In all cases, an interrupt
            included, nothing is left behind.
    """
    from qdgs_jax.ports.orbax_groups import quiet, write_groups

    folder = Path(folder).absolute()
    leaves = {name: pending(leaf) for name, leaf in flatten(params)}
    entries: dict[str, dict[str, Any]] = {}

    def made(name: str, array: np.ndarray) -> None:
        entries[name] = _describe(array)
        if progress is not None:
            progress(len(entries), len(leaves))

    with quiet(), new_folder(folder) as inside:
        _check_room(folder, inside, sum(leaf.nbytes for leaf in leaves.values()))
        with _told_as(OSError, f"{folder} cannot be written"):
            groups = write_groups(inside, leaves, made)
        header = {
            "format": _FORMAT,
            "version": _VERSION,
            "config": dict(config),
            "groups": [len(names) for names in groups],
            "parameters": entries,
        }
        with naming_destination(folder):
            for file in files:
                shutil.copyfile(file, inside / file.name)
            (inside / "config.json").write_text(json.dumps(header, indent=1) + "\n")
        try:
            return _verify(inside, folder)
        except CheckpointError as error:
            error.path = folder  # which the message names: no fault of a checkpoint being read
            raise


def load_model(folder: str | Path) -> tuple[dict[str, Any], Params]:
    """Read a model folder.

    Returns:
        The settings, and the parameters as nested dictionaries of NumPy arrays.

    Raises:
        CheckpointError: if the folder is no model, incomplete or damaged.
    """
    folder = Path(folder).absolute()
    header = _read_header(folder, folder)
    params = unflatten(dict(_read_parameters(folder, folder, header)))
    return header["config"], params


def load_config(folder: str | Path) -> dict[str, Any]:
    """Read the settings of a model folder, without its parameters.

    Returns:
        What was given to `save_model`: "kind", the settings of the model's config class, and what
        else describes it, such as "label_names" of a classifier or "assumed" of a conversion.

    Raises:
        CheckpointError: if the folder is no model.
    """
    folder = Path(folder).absolute()
    config: dict[str, Any] = _read_header(folder, folder)["config"]
    return config


def verify_model(folder: str | Path) -> int:
    """Read every parameter of a model folder and compare its checksum, a few at a time.

    Returns:
        The number of elements.

    Raises:
        CheckpointError: as `load_model`.
    """
    folder = Path(folder).absolute()
    return _verify(folder, folder)


def _check_room(folder: Path, inside: Path, needed: int) -> None:
    """Raise OSError before anything is written if the disk has no room for so many bytes."""
    with naming_destination(folder):
        free = shutil.disk_usage(inside).free
    if needed > free:
        raise OSError(
            f"{folder} cannot be written: it takes {needed / 1e6:,.0f} MB, and its disk has "
            f"{free / 1e6:,.0f} MB left."
        )


def _verify(place: Path, name: Path) -> int:
    header = _read_header(place, name)
    return sum(leaf.size for _, leaf in _read_parameters(place, name, header))


def _describe(leaf: np.ndarray) -> dict[str, Any]:
    data = np.ascontiguousarray(leaf).reshape(-1).view(np.uint8)
    return {"shape": list(leaf.shape), "dtype": leaf.dtype.name, "crc32": zlib.crc32(data.data)}


def _read_header(place: Path, name: Path) -> dict[str, Any]:
    """Read config.json of a folder that lies at `place`; errors call it `name`."""
    path = name / "config.json"
    try:
        header = json.loads((place / path.name).read_text())
    except OSError as error:
        raise CheckpointError(
            f"{name} is not a model: {path.name} cannot be read ({error.strerror}). "
            "`qdgs port` makes a model folder from a checkpoint."
        ) from None
    except ValueError as error:
        raise CheckpointError(f"{path} is not valid JSON: {error}.") from None
    if not isinstance(header, dict) or header.get("format") != _FORMAT:
        raise CheckpointError(f"{path} is not that of a model made by `qdgs port`.")
    if header.get("version") not in (_ONE_CHECKPOINT, _VERSION):
        raise CheckpointError(
            f"{name} has format version {show(header.get('version'))}; "
            f"this program reads {_ONE_CHECKPOINT} and {_VERSION}."
        )
    if not all(isinstance(header.get(key), dict) for key in ("config", "parameters")):
        raise CheckpointError(f"{path} lacks its config or its list of parameters.")
    return header


def _read_parameters(
    place: Path, name: Path, header: Mapping[str, Any]
) -> Iterator[tuple[str, np.ndarray]]:
    """Restore the parameters of a folder at `place`, a few at a time; errors call it `name`."""
    from qdgs_jax.ports.orbax_groups import read_groups

    parameters: Mapping[str, Mapping[str, Any]] = header["parameters"]
    placeholders = {
        parameter: _placeholder(name, parameter, entry) for parameter, entry in parameters.items()
    }
    whole = header["version"] == _ONE_CHECKPOINT
    groups = _groups(name, header, {n: leaf.nbytes for n, leaf in placeholders.items()})
    found = read_groups(place, groups, placeholders, whole)
    while True:
        with _told_as(CheckpointError, f"{name} is incomplete or damaged"):
            restored = next(found, None)
        if restored is None:
            return
        if _describe(restored[1]) != parameters[restored[0]]:
            raise CheckpointError(
                f"{name} is damaged: {printable(restored[0])} is not what was saved. Port it again."
            )
        yield restored


def _groups(name: Path, header: Mapping[str, Any], sizes: Mapping[str, int]) -> list[list[str]]:
    """Names of the parameters that are read together."""
    from qdgs_jax.ports.orbax_groups import grouped

    if header["version"] == _ONE_CHECKPOINT:
        return grouped(sizes)
    names, counts = iter(sizes), header.get("groups")
    whole = isinstance(counts, list) and all(type(n) is int and n > 0 for n in counts)
    if not isinstance(counts, list) or not whole or sum(counts) != len(sizes):
        raise CheckpointError(f"{name / 'config.json'} is damaged at its list of groups.")
    return [[next(names) for _ in range(count)] for count in counts]


@contextlib.contextmanager
def _told_as(kind: type[Exception], what: str) -> Iterator[None]:
    """Turn what Orbax and TensorStore raise, which is of many kinds, into one."""
    try:
        yield
    except CheckpointError:
        raise
    except Exception as error:
        raise kind(f"{what}: {reason(error)}.") from error


def _placeholder(folder: Path, name: str, entry: Mapping[str, Any]) -> np.ndarray:
    """Make an array of the declared shape and type that takes no memory."""
    try:
        return np.broadcast_to(np.zeros((), SCALAR_DTYPES[entry["dtype"]]), entry["shape"])
    except (KeyError, TypeError, ValueError):
        raise CheckpointError(
            f"{folder / 'config.json'} is damaged at parameter {printable(name)}."
        ) from None
