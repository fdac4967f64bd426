"""Folders of Hugging Face and OpenCLIP: a config beside weights in one file or several.

Weights are looked for as safetensors first, then as PyTorch files. An index that names several
files may name them inside the folder only.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from qdgs_jax.ports.errors import CheckpointError, show
from qdgs_jax.ports.region import Region
from qdgs_jax.ports.safetensors_reader import looks_like_safetensors, read_safetensors
from qdgs_jax.ports.tensors import Tensor
from qdgs_jax.ports.torch_reader import open_checkpoint
from qdgs_jax.ports.unpickle import Data

_WEIGHTS = (
    "model.safetensors",
    "model.safetensors.index.json",
    "open_clip_model.safetensors",
    "open_clip_pytorch_model.safetensors",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
    "open_clip_pytorch_model.bin",
)
_LARGEST_JSON = 1 << 26  # bytes


@contextlib.contextmanager
def open_weights(path: Path) -> Iterator[Data]:
    """The tensors of a weights file, or of a folder's weights file or files, still on disk.

    Raises:
        CheckpointError: if there are none, or they are broken or hostile.
    """
    with contextlib.ExitStack() as stack:
        if not path.is_dir():
            yield stack.enter_context(_open_file(path))
            return
        found = next((path / name for name in _WEIGHTS if (path / name).is_file()), None)
        if found is None:
            raise CheckpointError(f"{path} holds none of {', '.join(_WEIGHTS)}.")
        if found.suffix != ".json":
            yield stack.enter_context(_open_file(found))
            return
        tensors: dict[str, Tensor] = {}
        for shard in _shards(found):
            content = stack.enter_context(_open_file(path / shard))
            if type(content) is not dict or not tensors.keys().isdisjoint(content):
                raise CheckpointError(f"{path / shard} repeats tensors, or holds no state dict.")
            tensors |= content
        yield tensors


def read_json(path: Path) -> dict[str, Any] | None:
    """A JSON table, or None if there is no such file.

    Raises:
        CheckpointError: if the file is no JSON table.
    """
    if not path.is_file():
        return None
    try:
        if path.stat().st_size > _LARGEST_JSON:
            raise CheckpointError(f"{path} is far larger than a config.")
        table = json.loads(path.read_bytes())
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror}.") from None
    except (ValueError, RecursionError):
        raise CheckpointError(f"{path} is not valid JSON.") from None
    if type(table) is not dict:
        raise CheckpointError(f"{path} holds no table.")
    return table


@contextlib.contextmanager
def _open_file(path: Path) -> Iterator[Data]:
    try:
        file = path.open("rb")
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror}.") from None
    with file:
        if looks_like_safetensors(Region.of_file(file)):
            try:
                yield read_safetensors(file)
            except CheckpointError as error:
                raise CheckpointError(f"{path}: {error}") from None
            return
    with open_checkpoint(path) as root:
        yield root


def _shards(index: Path) -> list[str]:
    """Names of the files that an index lists."""
    names = (read_json(index) or {}).get("weight_map")
    if type(names) is not dict:
        raise CheckpointError(f"{index} has no weight_map.")
    for name in names.values():
        if type(name) is not str or Path(name).name != name:
            raise CheckpointError(f"{index} names {show(name)}, which is not in its folder.")
    return sorted(set(names.values()))
