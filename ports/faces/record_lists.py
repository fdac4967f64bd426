"""The texts beside a RecordIO file: where records are, what they are called, how many there are."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path

from qdgs_jax.ports.errors import show
from qdgs_jax.ports.faces.damage import FaceSetError
from qdgs_jax.ports.faces.files import read_lines


@dataclasses.dataclass(frozen=True)
class Properties:
    """What InsightFace's file `property` says; None where there is none.

    Attributes:
        identities: number of identities.
        size: (height, width) of the pictures.
    """

    identities: int | None = None
    size: tuple[int, int] | None = None


def read_index(path: Path) -> Mapping[int, int]:
    """Where records begin, by number, of a .idx file with `number TAB byte` in each line.

    Raises:
        FaceSetError: a line is damaged or there are none.
    """
    starts: dict[int, int] = {}
    for number, line in enumerate(read_lines(path), start=1):
        key, _, start = line.partition("\t")
        if not (key.isdecimal() and start.isdecimal() and int(key) not in starts):
            raise FaceSetError(
                f"{path}, line {number}: {show(line)} is no new number of a record and its byte; "
                "without this file, the records are found by walking through them."
            )
        starts[int(key)] = int(start)
    if len(set(starts.values())) < len(starts) or not starts:
        raise FaceSetError(
            f"{path} has no records, or two at one place; without this file, the records are found "
            "by walking through them."
        )
    return starts


def read_labels(path: Path, pictures: int) -> Mapping[int, float]:
    """Labels by record, of a .lst file; empty where there is none.

    Lines are MXNet's `record TAB label ... TAB path`, or InsightFace's `aligned TAB path TAB label`
    for the records from 1 in their order.

    Raises:
        FaceSetError: a line is damaged, or their number is not that of the pictures.
    """
    if not path.is_file():
        return {}
    labels: dict[int, float] = {}
    for number, line in enumerate(read_lines(path), start=1):
        fields = line.split("\t")
        try:
            if len(fields) < 3:
                raise ValueError
            try:
                key, label = int(fields[0]), float(fields[1])
            except ValueError:
                key, label = number, float(fields[2])
        except ValueError:
            raise FaceSetError(
                f"{path}, line {number}: {show(line)} is neither record, label and path nor mark, "
                "path and label. Mend it, or take the list away: it is only compared."
            ) from None
        labels[key] = label
    if len(labels) != pictures:
        raise FaceSetError(
            f"{path} lists {len(labels)} pictures, the records hold {pictures}: take the list away "
            "if it belongs to another file; it is only compared."
        )
    return labels


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
