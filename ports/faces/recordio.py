"""MXNet's RecordIO as InsightFace's training sets use it: `train.rec`, `train.idx`, `train.lst`.

A record is magic, a word of three bits that say which part of it follows and 29 of its length, and
the content, filled up to four bytes; where the content itself holds the magic, it is parted there.
The content is a header (flag, label, two numbers), as many labels as flag says if it is not 0, and
a picture as a JPEG or PNG file. Record 0 of these sets holds no picture: its labels (n, m) say that
records 1 to n - 1 are pictures and n to m - 1 describe identities. `train.idx` says where each
record begins; without it the records are walked through. Neither MXNet nor the whole set in memory
is needed.
"""

from __future__ import annotations

import array
import dataclasses
import functools
import os
import struct
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

import numpy as np

from qdgs_jax.ports.faces import label_checks
from qdgs_jax.ports.faces.damage import Damage, DamageLog, FaceSetError
from qdgs_jax.ports.faces.pictures import (
    PictureError,
    common_size,
    decode_picture,
    require_size,
)
from qdgs_jax.ports.faces.record_lists import read_index, read_labels, read_properties
from qdgs_jax.ports.readers.stand_ins import LOOKED_AT, stand_in

MAGIC = b"\x0a\x23\xd7\xce"
_HEADER = struct.Struct("<IfQQ")  # number of labels if not 0, label, record, second number
_WHOLE, _FIRST, _MIDDLE, _LAST = range(4)
_MOST_IDENTITIES = 1 << 24  # labels are float32, which counts no further
_MOST_RECORDS = 1 << 27  # three times the largest published set
_MOST_DAMAGED = 100  # records of identities, before no further ones are looked at


class _RecordError(ValueError):
    """A record that cannot be read; the message says why."""


@dataclasses.dataclass(frozen=True)
class FaceRecord:
    """A picture of an identity.

    Attributes:
        key: number of the record.
        identity: its first label.
        content: the picture as a JPEG or PNG file.
    """

    key: int
    identity: int
    content: bytes


class FaceRecords:
    """The pictures of a training set, in the order of their numbers.

    Used as a context manager.

    Args:
        path: InsightFace's folder with `train.rec`, or a .rec file.
        side: pixels per side of the pictures; None takes the size that the file `property` says,
            or that of most.
        skip_corrupt: pass over damaged records; they are told in `damage`.

    Raises:
        FaceSetError: there is no such file, a list beside it is damaged, or `property` says another
            size than `side`.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        side: int | None = None,
        skip_corrupt: bool = False,
    ) -> None:
        self.path = Path(path) / "train.rec" if Path(path).is_dir() else Path(path)
        if not self.path.is_file():
            raise FaceSetError(
                f"{self.path} is missing: give a folder with train.rec, as InsightFace's sets have "
                "it, or a .rec file."
            )
        self._log = DamageLog(self.path, skip=skip_corrupt)
        self._file: BinaryIO = self.path.open("rb")
        try:
            self._length = self._file.seek(0, os.SEEK_END)
            self._file.seek(0)
            if (found := stand_in(self._file.read(LOOKED_AT), self._length)) is not None:
                raise FaceSetError(f"{self.path}: {found}")
            index = self.path.with_suffix(".idx")
            self._keys, self._starts, self._ends = (
                self._indexed(index) if index.is_file() else self._walked()
            )
            self._announced = self._pictures()
            self._labels = read_labels(self.path.with_suffix(".lst"), self._announced)
            self._properties = read_properties(self.path.with_name("property"))
            self._given = _given_size(side, self._properties.size, self.path)
            self.keys = self._announced[np.isin(self._announced, self._keys)]
        except BaseException:
            self._file.close()
            raise

    def __enter__(self) -> FaceRecords:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def __len__(self) -> int:
        return len(self.keys)

    @property
    def damage(self) -> tuple[Damage, ...]:
        """What was passed over so far."""
        return tuple(self._log.found)

    def records(self, keys: Sequence[int] | np.ndarray | None = None) -> Iterator[FaceRecord]:
        """Read records one after the other.

        Args:
            keys: numbers of those that are wanted, of `self.keys`; None takes all.

        Raises:
            FaceSetError: a record is damaged, unless such are passed over.
        """
        for key in map(int, self.keys if keys is None else keys):
            try:
                yield self._face(key)
            except (_RecordError, OSError) as error:
                self._log.add(self._place(key), error)

    def pictures(
        self, keys: Sequence[int] | np.ndarray | None = None
    ) -> Iterator[tuple[FaceRecord, np.ndarray]]:
        """Records with their pictures UInt8[H, W, 3], all of one size, red first; see `records`."""
        for record in self.records(keys):
            try:
                picture = decode_picture(record.content)
                require_size(picture, self._size)
            except PictureError as error:
                self._log.add(self._place(record.key), error)
                continue
            yield record, picture

    @functools.cached_property
    def _size(self) -> tuple[int, int] | None:
        """Height and width that the pictures have to have."""
        if self._given is not None:
            return self._given
        return common_size(len(self), lambda number: self._face(int(self.keys[number])).content)

    def contradicted(self, keys: np.ndarray, identities: np.ndarray) -> np.ndarray:
        """Which labels the rest of the set contradicts, where no list confirmed them.

        Args:
            keys: Int[N], numbers of the set's records, rising.
            identities: Int[N], their labels.

        Returns:
            Bool[N]; these labels are told in `damage`, and damage of the records of identities.

        Raises:
            FaceSetError: a label is contradicted, unless such are passed over.
        """
        contradicted = np.zeros(len(keys), np.bool_)
        if self._labels is not None:
            return contradicted
        ranges = self._ranges()
        joined, gaps = label_checks.joined_ranges(ranges, self._described.start)
        for place in gaps.tolist():
            key = self._described[min(place, len(ranges) - 1)]
            self._log.add(
                self._place(key),
                f"the range of records that it tells, {ranges[key - self._described.start]}, does "
                "not join those of its neighbours: it or one of them is damaged",
            )
        runs = label_checks.runs_of(keys, ranges, joined)
        alone = runs < 0  # in no range that could tell
        order = label_checks.out_of_order(identities) if alone.any() else {}
        reasons = {row: reason for row, reason in order.items() if alone[row]}
        if len(ranges):
            reasons |= label_checks.beyond_count(identities, len(ranges))
        reasons |= label_checks.unlike_their_run(identities, runs, len(ranges))
        for row in sorted(reasons):
            self._log.add(self._place(int(keys[row])), reasons[row])
            contradicted[row] = True
        return contradicted

    def _ranges(self) -> np.ndarray:
        """The ranges of records of the identities: Int[K, 2], -1 where one cannot be read."""
        ranges = np.full((len(self._described), 2), -1)
        damaged: list[tuple[int, Exception]] = []
        for place, key in enumerate(self._described):
            try:
                labels, content = self._content(key)
                whole = len(labels) == 2 and all(label.is_integer() for label in labels)
                if content or not whole or not 1 <= labels[0] < labels[1] <= self._described.start:
                    raise _RecordError(
                        "it should tell the range of an identity's records, but has the labels "
                        f"{labels} and {len(content)} bytes of a picture"
                    )
                ranges[place] = labels
            except (_RecordError, OSError) as error:
                damaged.append((key, error))
                if len(damaged) == _MOST_DAMAGED:
                    break
        if damaged:
            key, reason = damaged[0]
            more = (
                f"; {len(damaged) - 1} more of its kind are damaged at least" if damaged[1:] else ""
            )
            self._log.add(self._place(key), f"{reason}{more}")
        return ranges

    def _indexed(self, index: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Numbers of records, where they begin, and where they end, by what the index says."""
        keys, starts = read_index(index)
        order = np.argsort(starts)
        ends = np.empty_like(starts)
        ends[order] = np.append(starts[order][1:], self._length)
        return keys, starts, ends

    def _walked(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Numbers of records, where they begin, and where they end, by walking through them."""
        edges = array.array("q", [0])
        while edges[-1] < self._length:
            try:
                edges.append(self._end(edges[-1]))
            except _RecordError as error:
                self._log.add(
                    f"record {len(edges) - 1} at byte {edges[-1]}",
                    f"{error}; without an index ({self.path.with_suffix('.idx').name}) the records "
                    "behind it cannot be found",
                )
                break
        places = np.array(edges, np.int64)
        return np.arange(len(places) - 1), places[:-1], places[1:]

    def _end(self, at: int) -> int:
        """End of the record that begins at a byte, by the lengths that it declares."""
        expected = (_WHOLE, _FIRST)
        while True:
            part, length = self._part(at)
            if part not in expected:
                raise _RecordError("its parts are out of order")
            at += 8 + -(-length // 4) * 4
            if at > self._length:
                raise _RecordError("the file ends within it")
            if part in (_WHOLE, _LAST):
                return at
            expected = (_MIDDLE, _LAST)

    def _part(self, at: int) -> tuple[int, int]:
        self._file.seek(at)
        start = self._file.read(8)
        if len(start) < 8:
            raise _RecordError("the file ends within it")
        if start[:4] != MAGIC:
            raise _RecordError("it does not begin with a record's magic number")
        word = int.from_bytes(start[4:], "little")
        return word >> 29, word & ((1 << 29) - 1)

    def _pictures(self) -> np.ndarray:
        """Numbers of the records with pictures, those that are missing included."""
        self._described = range(0)  # numbers of the records that tell of identities
        if not len(self._keys) or self._keys[0] != 0:
            return self._keys
        try:
            labels, content = self._content(0)
        except _RecordError as error:
            raise FaceSetError(
                f"{self.path}: record 0, which tells pictures from the rest: {error}; mend or "
                "download the file again."
            ) from None
        if content:
            return self._keys
        count = labels[0] if len(labels) == 2 else -1.0
        if not (count.is_integer() and 1 < count <= labels[1] < _MOST_RECORDS):
            raise FaceSetError(
                f"{self.path}: record 0 has no picture and the labels {labels}, but two rising "
                "numbers of records are expected there; mend or download the file again."
            )
        announced = np.arange(1, int(count))
        self._described = range(int(count), int(labels[1]))
        if len(beyond := self._keys[self._keys >= self._described.stop]):
            self._log.add(
                f"{len(beyond)} records from {beyond[0]} to {beyond[-1]}",
                "record 0 does not announce them",
            )
        missing = announced[~np.isin(announced, self._keys)]
        if len(missing):
            self._log.add(
                f"{len(missing)} records from {missing[0]} to {missing[-1]}",
                f"record 0 announces {len(announced)} pictures, these are not there",
            )
        return announced

    def _face(self, key: int) -> FaceRecord:
        labels, content = self._content(key)
        identity = labels[0]
        if not (0 <= identity < _MOST_IDENTITIES and identity.is_integer()):
            raise _RecordError(f"its label {identity} is no number of an identity")
        known = self._properties.identities
        if known is not None and identity >= known:
            raise _RecordError(f"its label is {identity:.0f}, but the set has {known} identities")
        if self._labels is not None:
            listed = self._labels[np.searchsorted(self._announced, key)]
            if identity != listed:
                raise _RecordError(f"its label is {identity:.0f}, in the list {listed:g}")
        return FaceRecord(key, int(identity), content)

    def _content(self, key: int) -> tuple[tuple[float, ...], bytes]:
        """Labels and picture of a record that has to fill its span."""
        start, end = self._span(key)
        if self._end(start) != end:
            raise _RecordError(f"it ends at byte {self._end(start)}, the next one begins at {end}")
        self._file.seek(start)
        block = self._file.read(end - start)
        parts, at = [], 0
        while at < len(block):
            length = int.from_bytes(block[at + 4 : at + 8], "little") & ((1 << 29) - 1)
            parts.append(block[at + 8 : at + 8 + length])
            at += 8 + -(-length // 4) * 4
        content = MAGIC.join(parts)
        if len(content) < _HEADER.size:
            raise _RecordError(f"its {len(content)} bytes are too few for a header")
        count, label, _, _ = _HEADER.unpack_from(content)
        body = _HEADER.size + 4 * count
        if body > len(content):
            raise _RecordError(f"it declares {count} labels, more than it has room for")
        labels = struct.unpack_from(f"<{count}f", content, _HEADER.size) if count else (label,)
        return labels, content[body:]

    def _span(self, key: int) -> tuple[int, int]:
        row = int(np.searchsorted(self._keys, key))
        if row == len(self._keys) or self._keys[row] != key:
            raise _RecordError("there is no such record")
        return int(self._starts[row]), int(self._ends[row])

    def _place(self, key: int) -> str:
        try:
            return f"record {key} at byte {self._span(key)[0]}"
        except _RecordError:
            return f"record {key}"


def _given_size(
    side: int | None, told: tuple[int, int] | None, path: Path
) -> tuple[int, int] | None:
    """The size of pictures that somebody gives or `property` tells; None where neither does."""
    if side is None or told in (None, (side, side)):
        return told if side is None else (side, side)
    raise FaceSetError(
        f"{path.with_name('property')} says that pictures have {told[1]} x {told[0]} pixels, not "
        f"{side} x {side}: give that size, or take this file away."
    )
