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

from qdgs_jax.ports.errors import CheckpointError, naming, show
from qdgs_jax.ports.readers.region import Region
from qdgs_jax.ports.readers.safetensors_file import looks_like_safetensors, read_safetensors
from qdgs_jax.ports.readers.stand_ins import stand_in
from qdgs_jax.ports.readers.tensors import Tensor
from qdgs_jax.ports.readers.torch_file import open_checkpoint
from qdgs_jax.ports.readers.values import Data

_WEIGHTS = (
    "model.safetensors",
    "model.safetensors.index.json",
    "open_clip_model.safetensors",
    "open_clip_pytorch_model.safetensors",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
    "open_clip_pytorch_model.bin",
)
_LARGEST_JSON = 1 << 22  # bytes; parsed, they may take 25 times as many


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
            if (path / "params").is_dir() and (path / "config.json").is_file():
                raise CheckpointError("The folder was converted already: name it as it is.", path)
            raise CheckpointError(f"The folder holds none of {', '.join(_WEIGHTS)}.", path)
        if found.suffix != ".json":
            yield stack.enter_context(_open_file(found))
            return
        tensors: dict[str, Tensor] = {}
        for shard in _shards(found):
            content = stack.enter_context(_open_file(path / shard))
            if type(content) is not dict or not tensors.keys().isdisjoint(content):
                raise CheckpointError(
                    "The shard repeats tensors, or holds no state dict.", path / shard
                )
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
        size = path.stat().st_size
        if size > _LARGEST_JSON:
            raise CheckpointError(f"The file has {size} bytes, far more than a config.", path)
        data = path.read_bytes()
        if (what := stand_in(data, len(data))) is not None:
            raise CheckpointError(what, path)
        table = json.loads(data)
    except OSError as error:
        raise CheckpointError(f"The file cannot be read: {error.strerror}.", path) from None
    except CheckpointError:
        raise
    except (ValueError, RecursionError):
        raise CheckpointError("The file is not valid JSON.", path) from None
    if type(table) is not dict:
        raise CheckpointError("The file holds no JSON table.", path)
    return table


def refuse_stand_in(path: Path) -> None:
    """Raise if a file beside the weights is empty, a Git LFS pointer or a web page.

    Raises:
        CheckpointError: if it is, or cannot be read.
    """
    try:
        with path.open("rb") as file:
            start, length = file.read(512), path.stat().st_size
    except OSError as error:
        raise CheckpointError(f"The file cannot be read: {error.strerror}.", path) from None
    if (what := stand_in(start, length)) is not None:
        raise CheckpointError(what, path)


@contextlib.contextmanager
def _open_file(path: Path) -> Iterator[Data]:
    try:
        file = path.open("rb")
    except OSError as error:
        raise CheckpointError(f"The file cannot be read: {error.strerror}.", path) from None
    with file:
        if looks_like_safetensors(Region.of_file(file)):
            with naming(path):
                tensors = read_safetensors(file)
            yield tensors
            return
    with open_checkpoint(path) as root:
        yield root


def _shards(index: Path) -> list[str]:
    """Names of the files that an index lists."""
    names = (read_json(index) or {}).get("weight_map")
    if type(names) is not dict:
        raise CheckpointError("The index has no weight_map.", index)
    for name in names.values():
        plain = type(name) is str and name.isprintable() and name.strip(".")
        if not plain or Path(name).name != name:
            raise CheckpointError(
                f"The index names {show(name)}, which is not in its folder.", index
            )
    return sorted(set(names.values()))
