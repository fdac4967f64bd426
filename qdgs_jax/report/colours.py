"""A perceptually uniform colour scale, and the images drawn with it."""

from __future__ import annotations

import base64
import io

import numpy as np
from PIL import Image

# Viridis (van der Walt, Smith & Firing 2015, public domain) at 17 equal steps.
ANCHORS = np.frombuffer(
    bytes.fromhex(
        "440154 48186a 472d7b 424086 3b528b 33638d 2c728e 26828e 21918c "
        "1fa088 28ae80 3fbc73 5ec962 84d44b addc30 d8e219 fde725"
    ),
    np.uint8,
).reshape(-1, 3)


def viridis(values: np.ndarray) -> np.ndarray:
    """Colour values: [0, 1] to UInt8[..., 3]; values outside take the end's colour."""
    at = np.clip(values, 0.0, 1.0) * (len(ANCHORS) - 1)
    steps = np.arange(len(ANCHORS))
    channels = [np.interp(at, steps, ANCHORS[:, channel]) for channel in range(3)]
    colours: np.ndarray = np.rint(np.stack(channels, axis=-1)).astype(np.uint8)
    return colours


def css_gradient() -> str:
    """List the colours from low to high, for a CSS linear gradient."""
    return ", ".join(f"#{bytes(colour).hex()}" for colour in ANCHORS)


def png(pixels: np.ndarray) -> bytes:
    """Encode pixels UInt8[H, W, 3 or 4] as PNG."""
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG", optimize=True)
    return stream.getvalue()


def webp(pixels: np.ndarray) -> bytes:
    """Encode pixels UInt8[H, W, 3 or 4] as WebP, with losses that thumbnails hardly show."""
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "WEBP", quality=85, method=2)
    return stream.getvalue()


def data_uri(image: bytes, kind: str = "png") -> str:
    """Turn an image into an address that carries its own content."""
    return f"data:image/{kind};base64,{base64.b64encode(image).decode()}"
