"""Thumbnails of elites in one image: laid out over two measures, or closely packed."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from qdgs_jax.datasets.thumbnails import SIDE, choose, pairs_of
from qdgs_jax.elites import Elites
from qdgs_jax.report.colours import png, webp
from qdgs_jax.report.contents import Atlas


@dataclasses.dataclass(frozen=True)
class Sheet:
    """Pictures packed in lines, from the top left.

    Attributes:
        image: a WebP.
        columns, rows: number of places.
        tiles: number of a picture's place by its cell.
    """

    image: bytes
    columns: int
    rows: int
    tiles: Mapping[int, int]


def atlases(
    elites: Elites, dims: Sequence[int], thumbnails: Mapping[int, np.ndarray]
) -> tuple[Atlas, ...]:
    """Lay out the elites of which there is a thumbnail, over each pair of measures.

    Args:
        elites: those of the archive.
        dims: its cells per measure.
        thumbnails: pictures UInt8[h, w, 3] by cell, at most `SIDE` pixels a side.
    """
    known = [row for row, cell in enumerate(elites.cells) if int(cell) in thumbnails]
    if not known:
        return ()
    pictured = elites.take(np.array(known))
    made = []
    for pair in pairs_of(len(dims)):
        rows, places, size = choose(pictured.cells, pictured.objectives, dims, pair)
        cells = pictured.cells[rows]
        images = [thumbnails[int(cell)] for cell in cells]
        made.append(Atlas(pair, png(sprite(images, places, size)), *size, places, cells))
    return tuple(made)


def sheet(thumbnails: Mapping[int, np.ndarray], cells: Iterable[int]) -> Sheet | None:
    """Pack the pictures of some cells; None where there is none.

    Args:
        thumbnails: pictures UInt8[h, w, 3] by cell, at most `SIDE` pixels a side.
        cells: those that are wanted.
    """
    known = [cell for cell in cells if cell in thumbnails]
    if not known:
        return None
    columns = math.ceil(math.sqrt(len(known)))
    rows = math.ceil(len(known) / columns)
    at = np.arange(len(known))
    places = np.stack([at % columns, rows - 1 - at // columns], axis=-1)
    pixels = sprite([thumbnails[cell] for cell in known], places, (columns, rows))
    return Sheet(webp(pixels), columns, rows, {cell: tile for tile, cell in enumerate(known)})


def sprite(images: Sequence[np.ndarray], places: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Draw images into the middle of their square places: UInt8[H, W, 4], the rest transparent.

    Args:
        images: P pictures UInt8[h, w, 3], at most `SIDE` pixels a side.
        places: Int[P, 2], column and line; line 0 is at the bottom.
        size: number of columns and lines.
    """
    drawn = np.zeros((size[1] * SIDE, size[0] * SIDE, 4), np.uint8)
    for image, (column, line) in zip(images, places, strict=True):
        height, width = image.shape[:2]
        top = (size[1] - 1 - line) * SIDE + (SIDE - height) // 2
        left = column * SIDE + (SIDE - width) // 2
        drawn[top : top + height, left : left + width, :3] = image
        drawn[top : top + height, left : left + width, 3] = 255
    return drawn
