"""Cells that answer: the clickable part of heat maps and atlases, and what is shown of an elite.

Without scripts each place of a board is a link to a panel, which CSS shows. The page's script
removes both and shows every single cell, from numbers that the page carries.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

import numpy as np

from qdgs_jax.datasets.thumbnails import PLACES, Pair, choose
from qdgs_jax.elites import Elites
from qdgs_jax.report.atlas import Sheet, sheet
from qdgs_jax.report.colours import data_uri
from qdgs_jax.report.contents import Arm, Atlas, MeasureAxis, ReportData
from qdgs_jax.report.svg import Box, number, rectangle

EXACT = 200  # cells along each measure up to which a heat map answers for every single one


@dataclasses.dataclass(frozen=True)
class Places:
    """Places of a board, row-major from the bottom left, and the cells whose elites they show.

    Attributes:
        size: number of columns and lines.
        places: Int[P, 2], column and line.
        cells: Int[P].
    """

    size: tuple[int, int]
    places: np.ndarray
    cells: np.ndarray

    @classmethod
    def best(cls, elites: Elites, dims: Sequence[int], pair: Pair, most: int) -> Places:
        """The best elite of each place over a pair of measures."""
        rows, places, size = choose(elites.cells, elites.objectives, dims, pair, most)
        return cls(size, places, elites.cells[rows])


@dataclasses.dataclass(frozen=True)
class Inspected:
    """The elites of an arm that the page can be asked about.

    Attributes:
        arm: which one.
        number: its position among the arms.
        elites: ascending by cell.
        linked: cells that can be asked for without scripts, ascending.
        sheet: their pictures; None where none were kept.
    """

    arm: Arm
    number: int
    elites: Elites
    linked: np.ndarray
    sheet: Sheet | None

    def rows(self, cells: np.ndarray) -> np.ndarray:
        """Which of `elites` have these cells."""
        return np.searchsorted(self.elites.cells, cells)

    def cell(self, place: int) -> int:
        """The archive's cell of the elite in a cell of the maps."""
        own = self.arm.own_cells
        return place if own is None else own[place]

    @property
    def place_word(self) -> str:
        """What one of a measure's cells is called: the archive's own, or one of the map alone."""
        return "cell" if self.arm.own_cells is None else "map cell"


def inspect(data: ReportData, pairs: Sequence[Pair]) -> list[Inspected]:
    """Gather what boards show, per arm."""
    dims = [measure.cells for measure in data.measures]
    found = []
    for position, arm in enumerate(data.arms):
        atlases = [picture.cells for picture in data.atlases] if position == 0 else []
        linked = [Places.best(arm.elites, dims, pair, PLACES).cells for pair in pairs] + atlases
        exact = [Places.best(arm.elites, dims, pair, EXACT).cells for pair in pairs] + linked
        rows = np.flatnonzero(np.isin(arm.elites.cells, np.concatenate(exact)))
        elites = arm.elites.take(rows[np.argsort(arm.elites.cells[rows])])
        pictures = sheet(arm.pictures, elites.cells.tolist())
        found.append(Inspected(arm, position, elites, np.unique(np.concatenate(linked)), pictures))
    return found


def over_heat_map(
    shown: Inspected, measures: Sequence[MeasureAxis], pair: Pair, box: Box, title: str
) -> str:
    """Make the cells of a heat map answer; links are for places of several cells."""
    dims = [measure.cells for measure in measures]
    exact = Places.best(shown.arm.elites, dims, pair, EXACT)
    coarse = Places.best(shown.arm.elites, dims, pair, PLACES)
    edges = [
        np.ceil(np.arange(size + 1) * dims[which] / size) / dims[which]
        for size, which in zip(coarse.size, pair, strict=True)
    ]
    return _board(shown, box, title, exact, coarse, edges)


def over_atlas(shown: Inspected, picture: Atlas, box: Box, title: str) -> str:
    """Make the places of an atlas answer."""
    places = Places((picture.columns, picture.rows), picture.places, picture.cells)
    edges = [np.arange(size + 1) / size for size in places.size]
    return _board(shown, box, title, places, places, edges)


def _board(
    shown: Inspected,
    box: Box,
    title: str,
    exact: Places,
    linked: Places,
    edges: Sequence[np.ndarray],
) -> str:
    at = exact.places[:, 1] * exact.size[0] + exact.places[:, 0]
    attributes = {
        "data-arm": shown.number,
        "data-columns": exact.size[0],
        "data-lines": exact.size[1],
        "data-places": " ".join(map(str, at)),
        "data-elites": " ".join(map(str, shown.rows(exact.cells))),
        "aria-label": title,
    }
    texts = " ".join(f'{name}="{escape(str(value))}"' for name, value in attributes.items())
    hit = rectangle(box.x, box.y, box.width, box.height, "hit")
    links = "".join(
        _link(shown, int(cell), box, edges, place)
        for place, cell in zip(linked.places, linked.cells, strict=True)
    )
    return f'<g class="board" role="group" {texts}>{hit}{links}</g>'


def _link(
    shown: Inspected, cell: int, box: Box, edges: Sequence[np.ndarray], place: np.ndarray
) -> str:
    left, right = box.x + box.width * edges[0][place[0] : place[0] + 2]
    bottom, top = box.y + box.height * (1 - edges[1][place[1] : place[1] + 2])
    objective = number(float(shown.elites.objectives[shown.rows(np.array(cell))]))
    return (
        f'<a href="#e{shown.number}-{cell}" aria-label="cell {shown.cell(cell)}, '
        f'objective {objective}">'
        f'<path d="M{left:.1f} {top:.1f}H{right:.1f}V{bottom:.1f}H{left:.1f}z"/></a>'
    )


def panels(shown: Inspected, measures: Sequence[MeasureAxis]) -> list[dict[str, Any]]:
    """What is shown without scripts of each elite that is linked."""
    made, word = [], shown.place_word
    for row in shown.rows(shown.linked):
        cell = int(shown.elites.cells[row])
        tile = None if shown.sheet is None else shown.sheet.tiles.get(cell)
        where = np.unravel_index(cell, [measure.cells for measure in measures])
        figures = [
            (measure.name, number(float(value)), f"{word} {int(at) + 1} of {measure.cells}")
            for measure, value, at in zip(measures, shown.elites.measures[row], where, strict=True)
        ]
        made.append(
            {
                "id": f"e{shown.number}-{cell}",
                "title": f"{shown.arm.name}, cell {shown.cell(cell)}",
                "objective": number(float(shown.elites.objectives[row])),
                "figures": figures,
                "tile": None if shown.sheet is None or tile is None else _at(shown.sheet, tile),
            }
        )
    return made


def _at(pictures: Sheet, tile: int) -> tuple[int, int]:
    return tile % pictures.columns, tile // pictures.columns


def styles(shown: Sequence[Inspected]) -> str:
    """CSS that carries the pictures, a class per arm."""
    return "\n".join(
        f".sheet-{each.number} {{ --columns: {each.sheet.columns}; --lines: {each.sheet.rows}; "
        f"background-image: url({data_uri(each.sheet.image, 'webp')}); }}"
        for each in shown
        if each.sheet is not None
    )


def numbers(shown: Sequence[Inspected], measures: Sequence[MeasureAxis]) -> Mapping[str, Any]:
    """What the page's script reads: plain values, the elites of each arm by row."""
    return {
        "measures": [{"name": measure.name, "cells": measure.cells} for measure in measures],
        "arms": [
            {
                "name": each.arm.name,
                "columns": each.sheet.columns if each.sheet else 0,
                "cells": each.elites.cells.tolist(),
                "own": [each.cell(cell) for cell in each.elites.cells.tolist()],
                "word": each.place_word,
                "objectives": _short(each.elites.objectives),
                "measures": [_short(row) for row in each.elites.measures],
                "tiles": [
                    each.sheet.tiles.get(cell, -1) if each.sheet else -1
                    for cell in each.elites.cells.tolist()
                ],
            }
            for each in shown
        ],
    }


def _short(values: np.ndarray) -> list[float]:
    return [float(f"{value:.4g}") for value in values]
