"""Reads PyTorch checkpoints without PyTorch, and without executing anything they contain.

Three layouts share one pickle machine (`pickle_machine.py`) and one allow-list (`allowed.py`): zip
archives (`torch_zip.py`), the older stream, and plain pickles that nest such streams
(`torch_legacy.py`). Opening a checkpoint reads its pickles alone; tensors stay in the file until
they are asked for. Memory is bounded by the file's size: what the pickles may build by a budget
(`values.Budget`), and what the tensors may take by the rule that storages do not overlap
(`tree.Tally`).
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, NoReturn

from qdgs_jax.ports.errors import CheckpointError, naming
from qdgs_jax.ports.readers.region import Region
from qdgs_jax.ports.readers.stand_ins import stand_in, told_text
from qdgs_jax.ports.readers.torch_legacy import read_stream
from qdgs_jax.ports.readers.torch_zip import read_archive
from qdgs_jax.ports.readers.tree import Tally, materialise, named_tensors
from qdgs_jax.ports.readers.values import Budget, Data
from qdgs_jax.ports.readers.zip_archive import Archive

__all__ = ["CheckpointError", "named_tensors", "open_checkpoint", "read_checkpoint"]

_UNKNOWN = "If it was meant to be one, its beginning is missing or damaged: download it again."


@contextlib.contextmanager
def open_checkpoint(path: str | Path) -> Iterator[Data]:
    """Open a checkpoint; its tensors stay in the file until they are asked for.

    Args:
        path: a file written by `torch.save` or `torch.jit.save`, or an NVIDIA network pickle.

    Yields:
        A finite tree of dictionaries, lists, tuples, sets, scalars, `Record` and lazy `Tensor`
        leaves. Tensors can be read inside the `with` block.

    Raises:
        CheckpointError: if the file is broken, hostile or of another kind; the message says which.
    """
    path = Path(path)
    try:
        file = path.open("rb")
    except OSError as error:
        raise CheckpointError(f"The file cannot be read: {error.strerror}.", path) from None
    with file:
        with naming(path):
            root = _read(file)
        yield root


def read_checkpoint(path: str | Path) -> Data:
    """Read a checkpoint with NumPy arrays for tensors; see `open_checkpoint`.

    Raises:
        CheckpointError: as `open_checkpoint`, or if a tensor's bytes are damaged.
    """
    with open_checkpoint(path) as root:
        return materialise(root, {})


def _read(file: BinaryIO) -> Data:
    region = Region.of_file(file)
    start = region.read(0, min(region.length, 4))
    budget = Budget(region.length)
    if start == b"PK\x03\x04":
        root = read_archive(Archive(file), budget)
    elif start[:1] == b"\x80":
        root = read_stream(region, budget)
    else:
        _refuse_unknown(region)
    Tally(region.length, budget).check(root)
    return root


def _refuse_unknown(region: Region) -> NoReturn:
    if region.length > 262 and region.read(257, 5) == b"ustar":
        raise CheckpointError(
            "This is the tar format of PyTorch 0.1. Save it again with 0.4 or later."
        )
    start = region.read(0, min(region.length, 512))
    what = stand_in(start, region.length) or told_text(start) or _UNKNOWN
    raise CheckpointError(f"This is not a PyTorch checkpoint. {what}")
