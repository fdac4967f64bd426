"""Pictures from files that may be damaged: the whole picture, or an error that says why.

PNG's checksums are compared, which Pillow leaves to zlib. JPEG has none: a changed bit in its
coefficients is another picture, and no program can tell.
"""

from __future__ import annotations

import collections
import io
import zlib
from collections.abc import Callable

import numpy as np
from PIL import ExifTags, Image, ImageOps

from qdgs_jax.ports.readers.stand_ins import stand_in

LARGEST_SIDE = 4096  # pixels; faces are aligned to 112, drawn at up to 1024
SAMPLE = 1000  # pictures, spread over a set, by which its size is told
_TURNED = (5, 6, 7, 8)  # values of EXIF's orientation that swap width and height
_PNG, _JPEG, _JPEG_END = b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"\xff\xd9"


class PictureError(ValueError):
    """Bytes that are no picture, or a damaged one."""


def decode_picture(content: bytes) -> np.ndarray:
    """The picture UInt8[H, W, 3], red first, in the bytes of a PNG or JPEG file.

    Raises:
        PictureError: it is neither, damaged, or larger than `LARGEST_SIDE`.
    """
    if content.startswith(_PNG):
        check_png(content)
    elif not content.startswith(_JPEG):
        if content and (found := stand_in(content, len(content))) is not None:
            raise PictureError(found)
        what = "empty" if not content else "neither PNG nor JPEG"
        raise PictureError(f"the picture is {what}")
    elif _JPEG_END not in content[-64:]:  # some writers fill up behind the end
        raise PictureError("the JPEG picture is cut off")
    try:
        with Image.open(io.BytesIO(content), formats=["PNG", "JPEG"]) as image:
            if max(image.size) > LARGEST_SIDE:
                raise PictureError(
                    f"the picture has {image.size[0]} x {image.size[1]} pixels, more than "
                    f"{LARGEST_SIDE} a side"
                )
            return np.asarray(as_shown(image))
    except PictureError:
        raise
    except Exception as error:  # of a damaged file, decoders raise whatever they stumble over
        raise PictureError(f"the picture is damaged ({type(error).__name__}: {error})") from None


def common_size(count: int, content: Callable[[int], bytes]) -> tuple[int, int] | None:
    """The size that most of a set's pictures have, by the headers of some spread over it.

    Args:
        count: of the pictures.
        content: gives the bytes of one, or raises OSError or ValueError.

    Returns:
        (height, width), of equals that which comes first; None where no picture can be read.
    """
    spread = np.linspace(0, count - 1, min(count, SAMPLE)).astype(int).tolist()
    sizes = collections.Counter(
        size for number in spread if (size := _size(content, number)) is not None
    )
    if sizes:
        return sizes.most_common(1)[0][0]
    found = (_size(content, number) for number in range(count))
    return next((size for size in found if size is not None), None)


def require_size(picture: np.ndarray, size: tuple[int, int] | None) -> None:
    """Raise PictureError unless a picture UInt8[H, W, 3] has a size (H, W); None takes any."""
    if size is not None and picture.shape[:2] != size:
        raise PictureError(
            f"the picture has {picture.shape[1]} x {picture.shape[0]} pixels, {size[1]} x "
            f"{size[0]} are expected unless side (--side) says otherwise"
        )


def _size(content: Callable[[int], bytes], number: int) -> tuple[int, int] | None:
    """Height and width of a picture by its header; None where it cannot be read."""
    try:
        with Image.open(io.BytesIO(content(number)), formats=["PNG", "JPEG"]) as image:
            turned = image.getexif().get(ExifTags.Base.Orientation, 1) in _TURNED
            width, height = image.size[::-1] if turned else image.size
    except Exception:  # of a damaged file, decoders raise whatever they stumble over
        return None
    return (height, width) if max(width, height) <= LARGEST_SIDE else None


def as_shown(image: Image.Image) -> Image.Image:
    """A picture as any viewer shows it, in RGB with 8 bits.

    It is turned as its EXIF data say, and brightnesses of 16 bits keep their upper half, where
    Pillow alone makes white of all that are beyond 255.
    """
    if image.getexif().get(ExifTags.Base.Orientation, 1) != 1:
        image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I"):
        image = Image.fromarray((np.asarray(image, np.uint32) >> 8).astype(np.uint8))
    return image.convert("RGB")


def check_png(content: bytes) -> None:
    """Compare the checksums of all parts of a PNG file, which Pillow does not; pass over others.

    Raises:
        PictureError: a part differs from its checksum or is cut off, or there is no end.
    """
    if not content.startswith(_PNG):
        return
    at = len(_PNG)
    while at < len(content):
        length = int.from_bytes(content[at : at + 4], "big")
        end = at + 12 + length
        if end > len(content):
            raise PictureError("the PNG picture is cut off")
        kind = content[at + 4 : at + 8]
        checksum = int.from_bytes(content[end - 4 : end], "big")
        if zlib.crc32(content[at + 4 : end - 4]) != checksum:
            raise PictureError(f"the PNG picture's part {kind!r} differs from its checksum")
        if kind == b"IEND":
            return
        at = end
    raise PictureError("the PNG picture has no end")
