"""The atlas: elites laid out over two measures and drawn into one sprite image."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image

from qdgs_jax.report.colours import png
from qdgs_jax.report.contents import Atlas

PLACES = 20  # along each measure
TILE = 40  # pixels of a place's side


def choose(
    cells: np.ndarray, objectives: np.ndarray, dims: Sequence[int], pair: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray, tuple[int, int]]:
    """Choose the elite with the highest objective for each place of a coarse grid.

    Args:
        cells: Int[N], occupied cells (row-major over `dims`).
        objectives: Float[N].
        dims: cells per measure.
        pair: indices of the measures to lay out.

    Returns:
        rows: Int[P], which of the N elites to show; places: Int[P, 2], column and line of each,
        counted along the measures; and the number of columns and lines.
    """
    size = (min(PLACES, dims[pair[0]]), min(PLACES, dims[pair[1]]))
    where = np.unravel_index(cells, tuple(dims))
    column = where[pair[0]] * size[0] // dims[pair[0]]
    line = where[pair[1]] * size[1] // dims[pair[1]]
    order = np.argsort(-objectives, kind="stable")
    _, first = np.unique((column * size[1] + line)[order], return_index=True)
    rows = order[first]
    return rows, np.stack([column[rows], line[rows]], axis=-1), size


def sprite(
    images: np.ndarray, places: np.ndarray, size: tuple[int, int], pair: tuple[int, int]
) -> Atlas:
    """Draw images into their places.

    Args:
        images: UInt8[P, H, W, 3].
        places: Int[P, 2], column and line; line 0 is at the bottom.
        size: number of columns and lines.
        pair: indices of the measures that the places stand for.
    """
    sheet = np.zeros((size[1] * TILE, size[0] * TILE, 4), np.uint8)
    for image, (column, line) in zip(images, places, strict=True):
        tile = Image.fromarray(image).resize((TILE, TILE), Image.Resampling.BOX)
        top, left = (size[1] - 1 - line) * TILE, column * TILE
        sheet[top : top + TILE, left : left + TILE, :3] = np.asarray(tile)
        sheet[top : top + TILE, left : left + TILE, 3] = 255
    return Atlas(pair, png(sheet), size[0], size[1], len(images))
