"""Pictures as PNG bytes."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image


def encode_png(image: np.ndarray) -> bytes:
    """PNG bytes of a picture UInt8[H, W, 3]."""
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "PNG", compress_level=3)
    return buffer.getvalue()


def decode_png(content: bytes) -> np.ndarray:
    """The picture UInt8[H, W, 3] in PNG bytes."""
    with Image.open(io.BytesIO(content), formats=["PNG"]) as image:
        return np.asarray(image.convert("RGB"))
