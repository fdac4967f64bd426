"""Pairs of faces for verification, however they came: pictures, each held once, and two columns.

A picture is in many pairs: BFW has 924,000 of 20,000 pictures. So pairs are numbers of pictures.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable, Sequence

import numpy as np

from qdgs_jax.ports.faces.damage import Damage, DamageLog
from qdgs_jax.ports.faces.pictures import (
    PictureError,
    common_size,
    decode_picture,
    require_size,
)


@dataclasses.dataclass(frozen=True, eq=False)
class PairIndex:
    """P pairs of pictures, by their numbers.

    Attributes:
        first: Int[P], one picture of each pair.
        second: Int[P], the other one.
        same: Bool[P], whether they show one person.
        groups: the group of each pair, such as "African"; empty where nobody says.

    Raises:
        ValueError: there are not as many of each.
    """

    first: np.ndarray
    second: np.ndarray
    same: np.ndarray
    groups: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        lengths = [len(self.first), len(self.second), len(self.same)]
        if len({*lengths, len(self.groups) or lengths[0]}) > 1:
            raise ValueError(
                f"first, second, same and groups have {lengths} and {len(self.groups)} entries: "
                "give one of each for every pair, or no groups."
            )

    @classmethod
    def in_rows(cls, same: np.ndarray | Sequence[bool], groups: Sequence[str] = ()) -> PairIndex:
        """Pairs of pictures that lie side by side: 2i and 2i + 1 are pair i."""
        rows = np.arange(2 * len(same))
        return cls(rows[0::2], rows[1::2], np.asarray(same, np.bool_), tuple(groups))

    def __len__(self) -> int:
        return len(self.same)

    def take(self, rows: np.ndarray) -> PairIndex:
        """The pairs of some rows, Int[Q]."""
        groups = tuple(self.groups[row] for row in rows) if self.groups else ()
        return PairIndex(self.first[rows], self.second[rows], self.same[rows], groups)

    def require(self, count: int) -> None:
        """Raise ValueError unless all are of `count` pictures, numbered from 0."""
        for column in (self.first, self.second):
            if (wrong := column[(column < 0) | (column >= count)]).size:
                raise ValueError(f"a pair names picture {wrong[0]}, there are {count:,} from 0 on.")


@dataclasses.dataclass(frozen=True, eq=False)
class FacePairs:
    """Pairs with their N pictures.

    Attributes:
        images: UInt8[N, S, S, 3], red first.
        index: the pairs, by the numbers of these pictures.
        damage: pairs that were left out.

    Raises:
        ValueError: a pair names a picture that is not there.
    """

    images: np.ndarray
    index: PairIndex
    damage: tuple[Damage, ...] = ()

    def __post_init__(self) -> None:
        self.index.require(len(self.images))

    def __len__(self) -> int:
        return len(self.index)

    def __repr__(self) -> str:
        count, height, width = self.images.shape[:3]
        return (
            f"FacePairs({len(self)} pairs of {count} pictures of {width} x {height} pixels, "
            f"{int(self.index.same.sum())} of one person)"
        )


class PicturePool:
    """Pictures of one size, equal ones held once.

    Args:
        most: how many there can be; memory is taken as they come.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._numbers: dict[bytes, int] = {}
        self._images: np.ndarray | None = None

    def number(self, content: bytes, decode: Callable[[bytes], np.ndarray]) -> int:
        """Number of a picture by its bytes, which are decoded where they are new."""
        key = hashlib.blake2b(content, digest_size=16).digest()
        if (known := self._numbers.get(key)) is not None:
            return known
        picture = decode(content)
        if self._images is None:
            self._images = np.empty((self._most, *picture.shape), np.uint8)
        number = len(self._numbers)
        self._images[number] = picture
        self._numbers[key] = number
        return number

    def pairs(self, index: PairIndex, damage: Sequence[Damage]) -> FacePairs:
        """Pairs by numbers of this pool, one at least, without the pictures that are in none.

        The pictures move: the pool is used up.
        """
        if self._images is None:
            raise ValueError("there are no pictures: number some first.")
        used, numbers = np.unique(np.stack([index.first, index.second]), return_inverse=True)
        first, second = numbers.reshape(2, -1)
        if len(used) < len(self._numbers):
            for place, number in enumerate(used):  # rising, so that none is written over
                self._images[place] = self._images[number]
        found = PairIndex(first, second, index.same, index.groups)
        return FacePairs(self._images[: len(used)], found, tuple(damage))


def gather_pairs(
    name: object,
    index: PairIndex,
    content: Callable[[int], bytes],
    place: Callable[[int], str],
    *,
    side: int | None,
    skip_corrupt: bool,
) -> FacePairs:
    """Decode the pictures of pairs; a pair with a damaged picture is damaged.

    Args:
        name: of the file, for messages.
        index: the pairs, by the numbers of pictures of the file.
        content: gives the bytes of such a picture, or raises OSError.
        place: says where it is.
        side: pixels per side of the pictures; None takes the size of most.
        skip_corrupt: leave damaged pairs out.

    Raises:
        FaceSetError: a picture is damaged or has another size, or none is left.
    """
    log = DamageLog(name, skip=skip_corrupt)
    pictures = int(max(index.first.max(), index.second.max())) + 1
    size = (side, side) if side is not None else common_size(pictures, content)
    pool = PicturePool(pictures)
    found: dict[int, int | Exception] = {}
    kept: list[int] = []

    def decode(content: bytes) -> np.ndarray:
        picture = decode_picture(content)
        require_size(picture, size)
        return picture

    def number(picture: int) -> int | Exception:
        try:
            return pool.number(content(picture), decode)
        except (PictureError, OSError) as error:
            return error

    for pair, ends in enumerate(zip(index.first.tolist(), index.second.tolist(), strict=True)):
        for picture in ends:
            if picture not in found:
                found[picture] = number(picture)
            if isinstance(error := found[picture], Exception):
                log.add(f"pair {pair}, {place(picture)}", error)
                break
        else:
            kept.append(pair)
    if not kept:
        raise log.nothing_left("pair")
    rows = index.take(np.array(kept))
    first, second = (
        np.array([found[picture] for picture in column.tolist()], np.int64)
        for column in (rows.first, rows.second)
    )
    return pool.pairs(PairIndex(first, second, rows.same, rows.groups), log.found)
