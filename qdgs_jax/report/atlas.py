"""The atlas: thumbnails of elites laid out over two measures and drawn into one sprite image."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from qdgs_jax.datasets.thumbnails import SIDE, Pair, choose, pairs_of
from qdgs_jax.elites import Elites
from qdgs_jax.report.colours import png
from qdgs_jax.report.contents import Atlas


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
        images = [thumbnails[int(cell)] for cell in pictured.cells[rows]]
        made.append(sprite(images, places, size, pair))
    return tuple(made)


def sprite(
    images: Sequence[np.ndarray], places: np.ndarray, size: tuple[int, int], pair: Pair
) -> Atlas:
    """Draw images into the middle of their square places.

    Args:
        images: P pictures UInt8[h, w, 3], at most `SIDE` pixels a side.
        places: Int[P, 2], column and line; line 0 is at the bottom.
        size: number of columns and lines.
        pair: indices of the measures that the places stand for.
    """
    sheet = np.zeros((size[1] * SIDE, size[0] * SIDE, 4), np.uint8)
    for image, (column, line) in zip(images, places, strict=True):
        height, width = image.shape[:2]
        top = (size[1] - 1 - line) * SIDE + (SIDE - height) // 2
        left = column * SIDE + (SIDE - width) // 2
        sheet[top : top + height, left : left + width, :3] = image
        sheet[top : top + height, left : left + width, 3] = 255
    return Atlas(pair, png(sheet), size[0], size[1], len(images))
