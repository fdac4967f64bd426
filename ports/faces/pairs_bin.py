"""InsightFace's verification sets, `lfw.bin`, `agedb_30.bin` and the like.

Such a file is a pickle of (pictures as bytes of JPEG or PNG files, whether each pair shows one
person), written by Python 2 or 3. It is read by the pickle machine, which builds bytes, texts,
numbers and lists and nothing else; pictures stay in the file until they are decoded.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from qdgs_jax.ports.errors import CheckpointError, show
from qdgs_jax.ports.faces.damage import FaceSetError
from qdgs_jax.ports.faces.pairs import FacePairs, PairIndex, gather_pairs
from qdgs_jax.ports.readers.allowed import find_global
from qdgs_jax.ports.readers.pickle_machine import Unpickler
from qdgs_jax.ports.readers.region import Region
from qdgs_jax.ports.readers.stand_ins import stand_in
from qdgs_jax.ports.readers.values import Budget, Data, Global

_SCALARS = ("dtype", "scalar")  # of NumPy, for a truth that was one of its booleans
_START = 512  # bytes that tell a stand-in from a pickle
_PICKLE = b"\x80"  # how one begins, but for the oldest


def read_pairs_bin(
    path: str | os.PathLike[str], *, side: int | None = None, skip_corrupt: bool = False
) -> FacePairs:
    """Read a verification set of InsightFace's `.bin` format.

    Args:
        path: the file.
        side: pixels per side of the pictures; None takes the size of most.
        skip_corrupt: leave pairs with a damaged picture out; they are told in `damage`.

    Raises:
        FaceSetError: it is no such file, its frame is damaged, or a picture is (unless skipped).
    """
    path, start = Path(path), b""
    try:
        with path.open("rb") as file:
            region = Region.of_file(file)
            start = region.read(0, min(_START, region.length))
            if (known := stand_in(start, region.length)) is not None:
                raise FaceSetError(f"{path}: {known}")
            pictures, same = _lists(path, _load(region))
            return gather_pairs(
                path,
                PairIndex.in_rows(same),
                lambda number: _bytes(pictures[number]),
                lambda number: _place(number, pictures[number]),
                side=side,
                skip_corrupt=skip_corrupt,
            )
    except CheckpointError as error:
        if start[:1] != _PICKLE:
            raise FaceSetError(
                f"{path} is no readable verification set: neither a .bin file of InsightFace, nor "
                "a list of pairs (.txt, .csv)."
            ) from None
        raise FaceSetError(f"{path} is no readable verification set: {error}") from None
    except OSError as error:
        raise FaceSetError(f"{path} cannot be read: {error.strerror or error}.") from None


def _load(region: Region) -> Data:
    machine = Unpickler(region, Budget(region.length), _find, old_bytes=True)
    root = machine.load()
    if machine.at != region.length:
        raise CheckpointError(f"{region.length - machine.at} bytes follow the end of the pickle.")
    return root


def _find(module: str, name: str) -> Global:
    """The few names that such a pickle may hold."""
    if (module, name) == ("_codecs", "encode"):
        return Global("_codecs.encode", _encode)
    if module.partition(".")[0] == "numpy" and name in _SCALARS:
        return find_global(module, name)
    raise CheckpointError(
        f"Refused: the pickle names {show(f'{module}.{name}')}, which no verification set needs. "
        "Nothing was executed."
    )


def _encode(arguments: tuple[Data, ...]) -> Region:
    """Bytes as Python 3 writes them for Python 2: a text in Latin-1."""
    if len(arguments) != 2 or type(arguments[0]) is not str or arguments[1] != "latin1":
        raise CheckpointError("Refused: the pickle encodes what does not stand for bytes.")
    try:
        return Region.of_bytes(arguments[0].encode("latin1"))
    except UnicodeEncodeError:
        raise CheckpointError(
            "Refused: the pickle encodes what does not stand for bytes."
        ) from None


def _lists(path: Path, root: Data) -> tuple[list[Any], list[bool]]:
    """The two lists, if they are of these kinds and fit together."""
    if type(root) not in (tuple, list) or [type(part) for part in root] != [list, list]:
        raise FaceSetError(
            f"{path} holds {show(root)}: a verification set holds a list of pictures and a list of "
            "truths. If it is a checkpoint, use `qdgs port`."
        )
    pictures, same = root
    for number, truth in enumerate(same):
        if type(truth) not in (bool, int) or truth not in (0, 1):
            raise FaceSetError(
                f"{path}: the truth of pair {number} is {show(truth)}, not a boolean."
            )
    if len(pictures) != 2 * len(same) or not same:
        raise FaceSetError(
            f"{path} holds {len(pictures)} pictures and {len(same)} truths: a pair needs two "
            "pictures and one truth, so the file is cut or made for something else."
        )
    return pictures, [bool(truth) for truth in same]


def _bytes(picture: Data) -> bytes:
    return picture.array().tobytes() if type(picture) is Region else b""


def _place(number: int, picture: Data) -> str:
    if type(picture) is not Region:
        return f"image {number}, which is {show(picture)}"
    if picture.path is None:
        return f"image {number}"
    return f"image {number} at byte {picture.start}"
