"""Pictures as bytes: PNG, and what data sets of others hold."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image

from qdgs_jax.ports.faces.pictures import as_shown, check_png


class PictureSizeError(ValueError):
    """A picture of a size that cannot be averaged down to the one that is wanted."""

    def __init__(self, height: int, width: int) -> None:
        super().__init__(f"{width} x {height} pixels")


def encode_png(image: np.ndarray) -> bytes:
    """PNG bytes of a picture UInt8[H, W, 3]."""
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "PNG", compress_level=3)
    return buffer.getvalue()


def decode_png(content: bytes) -> np.ndarray:
    """The picture UInt8[H, W, 3] in PNG bytes, whose checksums are compared."""
    check_png(content)
    return decode_picture(content, formats=("PNG",))


def decode_picture(
    content: bytes,
    size: tuple[int, int] | None = None,
    formats: tuple[str, ...] = ("PNG", "JPEG", "WEBP"),
) -> np.ndarray:
    """The picture UInt8[H, W, 3] in the bytes of a file.

    Args:
        content: of one of the formats.
        size: (height, width) that a picture of the same shape and at least this size is averaged
            down to; None leaves it as it is.
        formats: Pillow's names of what is decoded.

    Raises:
        PictureSizeError: it is smaller, or of another shape.
        OSError, ValueError and others of Pillow's: it cannot be decoded.
    """
    with Image.open(io.BytesIO(content), formats=formats) as opened:
        image = as_shown(opened)
        if size is not None and image.size != size[::-1]:
            height, width = size
            if image.width < width or image.width * height != image.height * width:
                raise PictureSizeError(image.height, image.width)
            return np.asarray(image.resize((width, height), Image.Resampling.BOX))
        return np.asarray(image)
