"""The texts beside a RecordIO file: where records are, what they are called, how many there are."""

from __future__ import annotations

import array
import dataclasses
from pathlib import Path

import numpy as np

from qdgs_jax.ports.errors import show
from qdgs_jax.ports.faces.damage import FaceSetError
from qdgs_jax.ports.faces.files import read_lines, stream_lines

_LAST = 2**31 - 1  # number of a record that shards can hold


@dataclasses.dataclass(frozen=True)
class Properties:
    """What InsightFace's file `property` says; None where there is none.

    Attributes:
        identities: number of identities.
        size: (height, width) of the pictures.
    """

    identities: int | None = None
    size: tuple[int, int] | None = None


def read_index(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Where records begin, of a .idx file with `number TAB byte` in each line.

    Returns:
        Numbers of records, Int64[R], rising; and the byte of each, Int64[R].

    Raises:
        FaceSetError: a line is damaged, records or places come twice, or there are none.
    """
    cure = "without this file, the records are found by walking through them"
    found = array.array("q")
    for number, line in enumerate(stream_lines(path), start=1):
        key, _, start = line.partition("\t")
        try:
            if not (key.isdecimal() and start.isdecimal()):
                raise ValueError
            if int(key) > _LAST:
                raise ValueError
            found.extend((int(key), int(start)))
        except (ValueError, OverflowError):
            raise FaceSetError(
                f"{path}, line {number}: {show(line)} is no record's number and byte; {cure}."
            ) from None
    keys, starts = np.frombuffer(found, np.int64).reshape(-1, 2).T
    order = np.argsort(keys, kind="stable")
    for what, column in (("number", keys), ("place", starts)):
        values, counts = np.unique(column, return_counts=True)
        if (counts > 1).any():
            raise FaceSetError(
                f"{path} has the {what} {values[counts > 1][0]} for several records; {cure}."
            )
    if not len(keys):
        raise FaceSetError(f"{path} has no records; {cure}.")
    return keys[order], starts[order]


def read_labels(path: Path, keys: np.ndarray) -> np.ndarray | None:
    """Labels of records by a .lst file.

    Lines are MXNet's `record TAB label ... TAB path`, or InsightFace's `aligned TAB path TAB label`
    in the order of the records.

    Args:
        path: the file; it need not exist.
        keys: Int[N], numbers of the records with pictures, rising.

    Returns:
        Float64[N], or None where there is no such file.

    Raises:
        FaceSetError: a line is damaged, or other pictures are listed.
    """
    if not path.is_file():
        return None
    cure = "mend the list, or take it away: it is only compared"
    listed, labels = array.array("q"), array.array("d")
    for number, line in enumerate(stream_lines(path)):
        fields = line.split("\t")
        ours = len(fields) >= 3 and _is_number(fields[1])
        try:
            listed.append(int(fields[0]) if ours else int(keys[number]))
            labels.append(float(fields[1] if ours else fields[2]))
        except (ValueError, IndexError, OverflowError):
            raise FaceSetError(
                f"{path}, line {number + 1}: {show(line)} is not record, label and path nor mark, "
                f"path and label, or one too many; {cure}."
            ) from None
    order = np.argsort(np.frombuffer(listed, np.int64), kind="stable")
    if not np.array_equal(np.frombuffer(listed, np.int64)[order], keys):
        raise FaceSetError(
            f"{path} lists {len(listed)} pictures, the records hold {len(keys)}, or others; {cure}."
        )
    return np.frombuffer(labels, np.float64)[order]


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def read_properties(path: Path) -> Properties:
    """Read `identities,height,width`; nothing is known where there is no such file.

    Raises:
        FaceSetError: it holds something else.
    """
    if not path.is_file():
        return Properties()
    text = ",".join(read_lines(path))
    fields = [field.strip() for field in text.split(",")]
    if len(fields) != 3 or not all(field.isdecimal() and int(field) > 0 for field in fields):
        raise FaceSetError(
            f"{path} holds {show(text)}: identities, height and width are expected, such as "
            "85742,112,112. Mend it or take it away."
        )
    identities, height, width = map(int, fields)
    return Properties(identities, (height, width))
