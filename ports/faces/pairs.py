"""Pairs of faces for verification, however they came."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np

from qdgs_jax.ports.faces.damage import Damage, DamageLog, FaceSetError
from qdgs_jax.ports.faces.pictures import PictureError, decode_picture


@dataclasses.dataclass(frozen=True, eq=False)
class FacePairs:
    """P pairs; the images 2i and 2i + 1 are pair i.

    Attributes:
        images: UInt8[2P, S, S, 3], red first.
        same: Bool[P], whether a pair shows one person.
        groups: the group of each pair, such as "African"; empty where nobody says.
        damage: pairs that were left out.
    """

    images: np.ndarray
    same: np.ndarray
    groups: tuple[str, ...] = ()
    damage: tuple[Damage, ...] = ()

    def __len__(self) -> int:
        return len(self.same)

    def __repr__(self) -> str:
        height, width = self.images.shape[1:3]
        return (
            f"FacePairs({len(self)} pairs of {width} x {height} pixels, {int(self.same.sum())} of "
            "one person)"
        )


def gather_pairs(
    name: object,
    same: Sequence[bool],
    content: Callable[[int], bytes],
    place: Callable[[int], str],
    groups: Sequence[str] = (),
    *,
    skip_corrupt: bool,
) -> FacePairs:
    """Decode the pictures of pairs; a pair with a damaged picture is damaged.

    Args:
        name: of the file, for messages.
        same: for each pair whether it shows one person.
        content: gives the bytes of the picture i, 0 to 2P - 1, or raises OSError.
        place: says where picture i is.
        groups: of each pair, or none.
        skip_corrupt: leave damaged pairs out.

    Raises:
        FaceSetError: a picture is damaged or has another size than the first one, or none is left.
    """
    log = DamageLog(name, skip=skip_corrupt)
    images: list[np.ndarray] = []
    kept: list[int] = []
    for pair in range(len(same)):
        pictures: list[np.ndarray] = []
        for number in (2 * pair, 2 * pair + 1):
            try:
                picture = decode_picture(content(number))
                first = images[0] if images else (pictures or [picture])[0]
                if picture.shape != first.shape:
                    raise PictureError(
                        f"the picture has {_size(picture)} pixels, others {_size(first)}"
                    )
                pictures.append(picture)
            except (PictureError, OSError) as error:
                log.add(f"pair {pair}, {place(number)}", error)
                break
        if len(pictures) == 2:
            images += pictures
            kept.append(pair)
    if not kept:
        raise FaceSetError(f"{name}: there is no pair that can be read.")
    return FacePairs(
        images=np.stack(images),
        same=np.asarray(same, np.bool_)[kept],
        groups=tuple(groups[pair] for pair in kept) if groups else (),
        damage=tuple(log.found),
    )


def _size(picture: np.ndarray) -> str:
    return f"{picture.shape[1]} x {picture.shape[0]}"
