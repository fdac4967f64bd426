"""Small pictures of an archive's elites, kept when a data set is decoded.

They are what a report lays out as an atlas, so that it needs no generator. A run's folder holds
them as one Parquet file: the cell of each elite and its picture.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from qdgs_jax.datasets.png import decode_png, encode_png
from qdgs_jax.datasets.selection import bins_of
from qdgs_jax.elites import Elites
from qdgs_jax.files import arrow_file, write_atomically
from qdgs_jax.ports.readers.stand_ins import reason
from qdgs_jax.runs.config import RunConfig

SIDE = 40  # pixels of a thumbnail's longer side
PLACES = 20  # along each measure of an atlas
MAX_PAIRS = 6  # of measures that have an atlas
KEPT = 2500  # elites up to which every one is pictured
Pair = tuple[int, int]


def pairs_of(num_measures: int) -> list[Pair]:
    """The pairs of measures that have an atlas."""
    return list(itertools.islice(itertools.combinations(range(num_measures), 2), MAX_PAIRS))


def choose(
    cells: np.ndarray,
    objectives: np.ndarray,
    dims: Sequence[int],
    pair: Pair,
    most: int = PLACES,
) -> tuple[np.ndarray, np.ndarray, tuple[int, int]]:
    """Choose the elite with the highest objective for each place of a coarse grid.

    Args:
        cells: Int[N], occupied cells (row-major over `dims`).
        objectives: Float[N].
        dims: cells per measure.
        pair: indices of the measures to lay out.
        most: places along each of the two, where there are as many cells.

    Returns:
        rows: Int[P], which of the N elites to show; places: Int[P, 2], column and line of each,
        counted along the measures; and the number of columns and lines.
    """
    size = (min(most, dims[pair[0]]), min(most, dims[pair[1]]))
    where = np.unravel_index(cells, tuple(dims))
    column = where[pair[0]] * size[0] // dims[pair[0]]
    line = where[pair[1]] * size[1] // dims[pair[1]]
    order = np.argsort(-objectives, kind="stable")
    _, first = np.unique((column * size[1] + line)[order], return_index=True)
    rows = order[first]
    return rows, np.stack([column[rows], line[rows]], axis=-1), size


def laid_out(elites: Elites, config: RunConfig) -> Elites:
    """The elites of a run by the cells of the grid that heat maps and atlases show.

    Those of a grid archive are as they are. Of another archive, the best in each cell of the grid
    with the measures' `cells` is left, under the number of that cell.
    """
    rows, cells = places_on_map(elites, config)
    return dataclasses.replace(elites.take(rows), cells=cells)


def places_on_map(elites: Elites, config: RunConfig) -> tuple[np.ndarray, np.ndarray]:
    """Which elites of a run are on its maps, Int[N], and the number of each one's cell there."""
    if config.archive.cvt_cells is None:
        return np.arange(len(elites.cells)), elites.cells
    cells = bins_of(elites.measures, config.dims, config.ranges)
    order = np.lexsort((elites.cells, -elites.objectives, cells))
    _, first = np.unique(cells[order], return_index=True)
    rows = order[first]
    return rows, cells[rows]


def shown_elites(elites: Elites, dims: Sequence[int]) -> Elites:
    """The elites that are pictured: all of up to `KEPT`, else those in atlases, each once."""
    if len(elites.cells) <= KEPT:
        return elites.take(np.argsort(elites.cells))
    chosen = [
        choose(elites.cells, elites.objectives, dims, pair)[0] for pair in pairs_of(len(dims))
    ]
    return elites.take(np.unique(np.concatenate([np.zeros(0, np.int64), *chosen])))


def write_thumbnails(
    path: Path,
    elites: Elites,
    dims: Sequence[int],
    decode: Callable[[np.ndarray], Iterator[np.ndarray]],
) -> None:
    """Decode the elites that a report pictures and keep them small.

    Args:
        path: the file to write.
        elites: of an archive.
        dims: its cells per measure.
        decode: latents Float[N, D] to pictures UInt8[B, H, W, 3], batch by batch.
    """
    shown = shown_elites(elites, dims)
    pictures = [encode_png(shrink(picture)) for batch in decode(shown.latents) for picture in batch]
    table = pa.table({"cell": pa.array(shown.cells, pa.int64()), "image": pictures})
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink)
    write_atomically(path, sink.getvalue().to_pybytes())


def read_thumbnails(path: Path) -> Mapping[int, np.ndarray] | None:
    """Pictures UInt8[h, w, 3] by cell; None where none were kept.

    Raises:
        ValueError: the file is damaged.
    """
    if not path.is_file():
        return None
    try:
        table = pq.read_table(arrow_file(path), partitioning=None)
        cells, images = table["cell"].to_pylist(), table["image"].to_pylist()
    except (pa.ArrowInvalid, KeyError, OSError) as error:
        raise ValueError(
            f"{path} cannot be read ({reason(path, error)}): delete it and the folder data beside "
            "it, and `qdgs generate` writes both again."
        ) from None
    return {cell: decode_png(image) for cell, image in zip(cells, images, strict=True)}


def shrink(picture: np.ndarray) -> np.ndarray:
    """A picture UInt8[H, W, 3] whose longer side becomes `SIDE` pixels, averaged."""
    height, width = picture.shape[:2]
    scale = SIDE / max(height, width)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    return np.asarray(Image.fromarray(picture).resize(size, Image.Resampling.BOX))
