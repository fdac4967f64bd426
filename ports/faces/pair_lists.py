"""Lists of pairs of image files: `pairs.txt` of LFW and RFW, and tables with groups as BFW's.

A line of `pairs.txt` is `NAME n m` for two images of one person, or `NAME n OTHER m` for two
persons, parted by tabs; the image n of NAME is `NAME/NAME_000n.jpg`. LFW's begin with a line of two
numbers, folds and pairs in each half of one. A table is a CSV file with the columns `p1`, `p2`
(image files), `label` (1 for one person) and, for groups, `att1`, `att2` or others.
"""

from __future__ import annotations

import csv
import dataclasses
import operator
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from qdgs_jax.ports.errors import show
from qdgs_jax.ports.faces.damage import FaceSetError
from qdgs_jax.ports.faces.files import stream_text
from qdgs_jax.ports.faces.pairs import FacePairs, PairIndex, gather_pairs

GROUP_COLUMNS = ("att1", "att2")
SUFFIXES = (".jpg", ".jpeg", ".png")
_DIGITS = 10  # of an image's number, at most one less


@dataclasses.dataclass(frozen=True, slots=True)
class ListedPair:
    """A pair of image files.

    Attributes:
        first: path of one, below the folder of images.
        second: path of the other.
        same: whether they show one person.
        group: of both, "a|b" where they belong to two, "" where nobody says.
    """

    first: str
    second: str
    same: bool
    group: str = ""


def read_pairs_txt(
    path: str | os.PathLike[str], *, group: str = "", suffix: str = ".jpg"
) -> list[ListedPair]:
    """Read a list as LFW and RFW have it.

    Args:
        path: `pairs.txt`, or RFW's `African_pairs.txt`.
        group: of all its pairs; RFW has a list for each.
        suffix: of the image files.

    Raises:
        FaceSetError: a line is damaged; it is named.
    """
    found: list[ListedPair] = []
    for number, line in enumerate(stream_text(Path(path)), start=1):
        # Names may hold spaces where tabs part the fields.
        fields = [field.strip() for field in line.split("\t")] if "\t" in line else line.split()
        if number == 1 and len(fields) <= 2 and all(field.isdecimal() for field in fields):
            continue  # folds, and pairs in a half of each
        if len(fields) == 3:
            fields = [fields[0], fields[1], fields[0], fields[2]]
        if len(fields) != 4 or not (_is_image(fields[1]) and _is_image(fields[3])):
            raise FaceSetError(
                f"{path}, line {number}: {show(line)} is neither NAME n m nor NAME n OTHER m."
            )
        files = [
            sys.intern(f"{name}/{name}_{int(image):04d}{suffix}")
            for name, image in (fields[:2], fields[2:])
        ]
        found.append(ListedPair(files[0], files[1], fields[0] == fields[2], group))
    return _some(path, found)


def read_pairs_csv(
    path: str | os.PathLike[str], *, group_columns: Sequence[str] = GROUP_COLUMNS
) -> list[ListedPair]:
    """Read a table with groups, as BFW has it.

    Args:
        path: the CSV file, with the columns `p1`, `p2` and `label`.
        group_columns: the columns of the two images' groups, or one column of the pair's.

    Raises:
        FaceSetError: a column is missing or a line is damaged; it is named.
    """
    if len(group_columns) > 2:
        raise ValueError(f"group_columns are {group_columns}: give one, two or none.")
    rows = csv.reader(stream_text(Path(path)), strict=True)
    try:
        header = next(rows, [])
    except csv.Error as error:
        raise FaceSetError(f"{path}, line 1: {error}.") from None
    needed = ("p1", "p2", "label", *group_columns)
    if twice := [name for name in needed if header.count(name) > 1]:
        raise FaceSetError(f"{path} has several columns {twice}: which one counts?")
    if missing := [name for name in needed if name not in header]:
        raise FaceSetError(
            f"{path} has no columns {missing}, it has {[show(name) for name in header[:20]]}."
        )
    return _some(path, list(_table(path, rows, header, group_columns)))


def _table(
    path: object, rows: Iterator[list[str]], header: list[str], group_columns: Sequence[str]
) -> Iterator[ListedPair]:
    pair = operator.itemgetter(*(header.index(name) for name in ("p1", "p2", "label")))
    places = [header.index(name) for name in group_columns]
    for number in range(2, 1 << 62):
        try:
            fields = next(rows, None)
        except csv.Error as error:
            raise FaceSetError(f"{path}, line {number}: {error}.") from None
        if fields is None:
            return
        if len(fields) != len(header):
            raise FaceSetError(
                f"{path}, line {number}: {len(fields)} fields, the header has {len(header)}."
            )
        first, second, label = pair(fields)
        if label not in ("0", "1", "0.0", "1.0", "True", "False"):
            raise FaceSetError(f"{path}, line {number}: the label is {show(label)}, not 0 or 1.")
        if empty := [header[place] for place in places if not fields[place].strip()]:
            raise FaceSetError(
                f"{path}, line {number}: there is no group in {empty[0]}: fill it in, or take the "
                'list without groups (--group-columns "").'
            )
        names = "|".join(dict.fromkeys(fields[place] for place in places))
        same = label in ("1", "1.0", "True")
        # The same few texts come again and again.
        yield ListedPair(sys.intern(first), sys.intern(second), same, sys.intern(names))


def _is_image(text: str) -> bool:
    """Whether a text is the number of an image."""
    return text.isdecimal() and len(text) < _DIGITS


def _some(path: object, pairs: list[ListedPair]) -> list[ListedPair]:
    if not pairs:
        raise FaceSetError(f"{path} lists no pairs.")
    return pairs


def load_pairs(
    pairs: Sequence[ListedPair],
    folder: str | os.PathLike[str],
    *,
    side: int | None = None,
    skip_corrupt: bool = False,
) -> FacePairs:
    """Decode the pictures of listed pairs, each once.

    Args:
        pairs: from `read_pairs_txt` or `read_pairs_csv`; those of several lists may be joined.
        folder: of the images; paths of the list have to stay in it.
        side: pixels per side of the pictures; None takes the size of most.
        skip_corrupt: leave pairs with a missing or damaged picture out.

    Raises:
        FaceSetError: a picture is missing, damaged or outside (unless skipped), or no pair is left.
    """
    root = Path(folder)
    numbers: dict[str, int] = {}
    for pair in pairs:
        numbers.setdefault(pair.first, len(numbers))
        numbers.setdefault(pair.second, len(numbers))
    files = list(numbers)

    def content(number: int) -> bytes:
        if "\0" in files[number]:
            raise OSError("its name holds a character that no file's can")
        path = root / files[number]
        if not path.resolve().is_relative_to(root.resolve()):
            raise OSError("it lies outside of the folder of images")
        try:
            return path.read_bytes()
        except OSError as error:
            raise OSError(f"it cannot be read ({error.strerror})") from None

    index = PairIndex(
        first=np.array([numbers[pair.first] for pair in pairs]),
        second=np.array([numbers[pair.second] for pair in pairs]),
        same=np.array([pair.same for pair in pairs], np.bool_),
        groups=tuple(pair.group for pair in pairs) if any(pair.group for pair in pairs) else (),
    )
    return gather_pairs(
        root,
        index,
        content,
        lambda number: f"file {files[number]}",
        side=side,
        skip_corrupt=skip_corrupt,
    )
