"""The box that measures lie in, and its cells as far as float32 tells them apart; without JAX."""

from __future__ import annotations

import math
import operator
from collections.abc import Sequence

import numpy as np

Box = tuple[tuple[float, float], ...]  # (low, high) per measure

_COUNTABLE = 2**24  # whole numbers that float32 counts without a gap


def checked_ranges(ranges: Sequence[Sequence[float]]) -> Box:
    """Ranges of measures as tuples.

    Raises:
        ValueError: Unless they are pairs of finite numbers, low < high in float32.
    """
    try:
        box = tuple((float(low), float(high)) for low, high in ranges)
    except (TypeError, ValueError):
        raise ValueError(
            f"ranges is {ranges}: give one (low, high) pair per measure, e.g. ((-1, 1), (0, 10))."
        ) from None
    for low, high in box:
        # Compared as cells are found: a range may vanish in float32.
        with np.errstate(over="ignore"):
            width = np.float32(high) - np.float32(low)
        if not (np.isfinite(width) and width >= np.finfo(np.float32).tiny):
            raise ValueError(
                f"ranges has the pair ({low}, {high}): give two finite numbers, low < high, that "
                "float32 can tell apart."
            )
    return box


def checked_dims(dims: Sequence[int], num_ranges: int) -> tuple[int, ...]:
    """Cells per measure as a tuple.

    Raises:
        ValueError: Unless there is a whole number >= 1 for each range, and their product can be
            counted.
    """
    try:
        shape = tuple(operator.index(n) for n in dims)
    except TypeError:
        shape = ()
    if not shape or min(shape) < 1:
        raise ValueError(
            f"dims is {dims}: give a whole number of cells of at least 1 for each measure, e.g. "
            "(50, 50)."
        )
    if math.prod(shape) >= 2**31:
        raise ValueError(f"dims {dims} make {math.prod(shape)} cells: at most 2**31 - 1 fit.")
    if len(shape) != num_ranges:
        raise ValueError(
            f"dims has {len(shape)} entries but ranges has {num_ranges}: give one (low, high) pair "
            f"per measure, e.g. ranges=((-0.1, 0.1),) * {len(shape)}."
        )
    return shape


def check_resolution(dims: tuple[int, ...], ranges: Box) -> None:
    """Refuse a grid with cells that no measure in float32 can fall into.

    Far from 0 the float32 numbers lie far apart: of 100 cells over [1e8, 1e8 + 10] two can be
    reached.

    Raises:
        ValueError: It says how many of a measure's cells float32 can tell apart.
    """
    for measure, (count, (low, high)) in enumerate(zip(dims, ranges, strict=True)):
        reached = _COUNTABLE if count > _COUNTABLE else _cells_reached(count, low, high)
        if reached < count:
            raise ValueError(
                f"measure {measure} has {count} cells over [{low}, {high}], of which float32 can "
                f"tell {reached} apart: take fewer cells, or move and scale the measure to a range "
                "around 0."
            )


def _cells_reached(count: int, low: float, high: float) -> int:
    """How many cells hold the float32 number nearest to their centre."""
    bottom, top = np.float32(low), np.float32(high)
    width = np.float64(top) - np.float64(bottom)
    centres = np.float64(bottom) + width * ((np.arange(count) + 0.5) / count)
    offset = (centres.astype(np.float32) - bottom).astype(np.float64)
    cells = np.clip(np.floor(offset / width * count), 0, count - 1)
    return len(np.unique(cells))
