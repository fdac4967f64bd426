"""`qdgs port` as functions: recognise a checkpoint, convert it, write it, read it back."""

from __future__ import annotations

import collections
import dataclasses
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from qdgs_jax.ports.mapping import float_dtype, parameter_shapes, plan_rules
from qdgs_jax.ports.model_folder import check_destination, save_model
from qdgs_jax.ports.readers.tensors import Tensor
from qdgs_jax.ports.readers.torch_file import named_tensors
from qdgs_jax.ports.readers.values import Data
from qdgs_jax.ports.registry import find_kind
from qdgs_jax.ports.source import Content, Source, open_content

Progress = Callable[[str], None]
_MODULE_GROUPS = re.compile(r"(^|\.)_(modules|parameters|buffers)(?=\.)")
_DEPTH = 8  # of the parts of a file that a summary tells apart


@dataclasses.dataclass(frozen=True)
class TensorInfo:
    """A tensor of a checkpoint.

    Attributes:
        name: its path in the checkpoint, with dots, as in a state dict.
        shape: sizes.
        dtype: element type.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str


@dataclasses.dataclass(frozen=True)
class PortSummary:
    """What a conversion did.

    Attributes:
        kind: the model, one of `registry.PORTED`.
        layout: the format that was recognised, in words.
        parameters: number of parameters, counted in the written folder.
        dtype: their element type.
        details: settings worth knowing, such as the image size.
        assumed: what the checkpoint does not tell and a default stands in for, with the reason.
        ignored: tensors of the model's state dict that our model does not need.
        elsewhere: numbers of tensors in other parts of the file, such as an optimiser's state.
        destination: the written folder.
    """

    kind: str
    layout: str
    parameters: int
    dtype: str
    details: Mapping[str, Any]
    assumed: Mapping[str, str]
    ignored: tuple[str, ...]
    elsewhere: Mapping[str, int]
    destination: Path


def convert(
    kind: str,
    source: str | Path,
    destination: str | Path,
    dtype: str | None = None,
    progress: Progress | None = None,
) -> PortSummary:
    """Convert a foreign checkpoint into a model folder, and read the folder back to verify it.

    Args:
        kind: the model, one of `registry.PORTED`; the format of its file is recognised.
        source: the checkpoint, a file or a folder.
        destination: folder to be created; it may exist only if it is empty.
        dtype: element type of the parameters: "float32" (None), "bfloat16" or "float16".
        progress: called with a line per step.

    Raises:
        CheckpointError: if the checkpoint is broken, hostile, incomplete or another model, or the
            destination is taken.
        OSError: if the disk is full or the place is not writable. In all cases, an interrupt
            included, nothing is left at the destination.
    """
    say = progress or (lambda line: None)
    dtype = dtype or "float32"
    float_dtype(dtype)
    recogniser = find_kind(kind).recognise
    check_destination(destination)
    with open_content(source) as content:
        found = recogniser(content)
        shapes = parameter_shapes(found.build)
        planned = plan_rules(found.tensors, found.rules, found.ignored, shapes, dtype)
        elsewhere = _count_elsewhere(content.root, found.tensors.values())

        def count(done: int, total: int) -> None:
            if 10 * done // total > 10 * (done - 1) // total:
                say(f"converting {found.layout}: {100 * done // total} %")
            if done == total:
                say(f"verifying {destination}")

        config = dict(found.config)
        if found.assumed:
            config["assumed"] = dict(found.assumed)
        if found.measure is not None:
            say("measuring how its latents spread")
            config |= found.measure(planned.params)
        elements = save_model(destination, config, planned.params, found.files, count)
    return PortSummary(
        kind=kind,
        layout=found.layout,
        parameters=elements,
        dtype=dtype,
        details=found.details,
        assumed=found.assumed,
        ignored=planned.ignored,
        elsewhere=elsewhere,
        destination=Path(destination),
    )


def describe(source: str | Path) -> list[TensorInfo]:
    """List the tensors of a checkpoint, in the order of the file, without reading them.

    Raises:
        CheckpointError: if the checkpoint is broken, hostile or of an unknown format.
    """
    with open_content(source) as content:
        return [
            TensorInfo(name, tensor.shape, tensor.dtype.name)
            for name, tensor in _state_names(content.root)
        ]


def recognise(kind: str, content: Content) -> Source:
    """Recognise a model in an opened checkpoint.

    Args:
        kind: the model, one of `registry.PORTED`.
        content: the opened checkpoint.

    Raises:
        CheckpointError: if there is no such kind, or the checkpoint is of another one.
    """
    return find_kind(kind).recognise(content)


def _state_names(root: Data) -> Iterator[tuple[str, Tensor]]:
    """Tensors of a checkpoint; those of pickled modules are named as in their state dict."""
    for name, tensor in named_tensors(root):
        yield _MODULE_GROUPS.sub("", name).removeprefix("."), tensor


def _count_elsewhere(root: Data, taken: Iterable[Tensor]) -> dict[str, int]:
    """Count the other tensors of a file by the largest parts of it that hold none of the taken."""
    ours = set(taken)
    paths = [
        (tuple(name.split(".")[:_DEPTH]), tensor in ours) for name, tensor in _state_names(root)
    ]
    shared = {path[:n] for path, mine in paths if mine for n in range(1, len(path) + 1)}
    counts: dict[str, int] = collections.Counter()
    for path, mine in paths:
        if not mine:
            starts = (path[:n] for n in range(1, len(path)))
            part = next((start for start in starts if start not in shared), path)
            counts[".".join(part)] += 1
    return dict(counts)
