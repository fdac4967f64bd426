"""Elites out of an archive and into one, chunk by chunk: no table of all cells meets the host."""

# ruff: noqa: PD008 (`.at` is that of JAX arrays)

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

from qdgs_jax.archive.base import Cells
from qdgs_jax.archive.storage import decode, encode
from qdgs_jax.elites import Elite, Elites

if TYPE_CHECKING:
    import pandas as pd

A = TypeVar("A", bound=Cells)

_CHUNK_NUMBERS = 2**23  # of latents that are moved at a time


class Archive(Cells):
    """An archive whose elites come to the host as a table of columns, and back."""

    def elites(self) -> Elites:
        """The elites as columns, in the order of their discovery.

        Raises:
            ValueError: If the genotypes are not a single array Float[C, D], or there are extra
                scores.
        """
        return gather(self)

    @property
    def best_elite(self) -> Elite | None:
        """The elite of the best fitness, the first discovered of equals; None without elites."""
        elites = self.elites()
        return elites[int(np.argmax(elites.objectives))] if len(elites) else None

    @classmethod
    def from_elites(cls, elites: Elites, **settings: Any) -> Self:
        """Build the archive that elites came from, to the bit.

        Args:
            elites: what `elites` gave, or a part of it.
            settings: those of `create`; without any, `elites.settings`.

        Raises:
            ValueError: If the elites belong to another kind of archive, a row is not finite in the
                precision of the archive, a threshold is not between threshold_min and the
                objective, cells repeat or are not those of their measures.
        """
        return scatter(cls, elites, settings)

    def to_frame(self) -> pd.DataFrame:
        """Elites as a table; see `Elites.to_frame`."""
        return self.elites().to_frame()

    @classmethod
    def from_frame(cls, frame: pd.DataFrame, **settings: Any) -> Self:
        """Build an archive from such a table and the settings of `create`.

        Without the column "threshold" each elite counts as accepted alone, which gives its cell's
        threshold.

        Raises:
            ValueError: If columns are missing, and as in `from_elites`.
        """
        if not hasattr(frame, "columns"):
            raise ValueError(
                f"frame is a {type(frame).__name__}: give a frame of pandas, as `to_frame()` makes "
                "it; `from_elites` takes an Elites."
            )
        alone = "threshold" not in frame.columns
        elites = Elites.from_frame(frame)
        return scatter(cls, elites, settings, alone=alone)

    def to_parquet(self, path: str | Path) -> None:
        """Write elites and settings to a file; see `Elites.to_parquet`."""
        self.elites().to_parquet(path)

    @classmethod
    def from_parquet(cls, path: str | Path) -> Self:
        """Read what `to_parquet` wrote.

        Raises:
            ValueError: If the file is not an archive, or one of another kind.
        """
        return cls.from_elites(Elites.from_parquet(path))


def gather(archive: Cells) -> Elites:
    """Fetch the elites; see `Archive.elites`."""
    _check_columns(archive)
    count, rows = int(archive.num_elites), _rows_at_a_time(archive)
    found: dict[str, np.ndarray] = {}
    for start in range(0, max(count, 1), rows):
        chunk = jax.device_get(_gather_rows(archive, start, rows))
        for name, column in chunk.items():
            if name not in found:
                found[name] = np.empty((count, *column.shape[1:]), column.dtype)
            found[name][start : start + rows] = column[: count - start]
    return Elites(**found, settings={"kind": type(archive).__name__, **archive.settings()})


@functools.partial(jax.jit, static_argnames="rows")
def _gather_rows(archive: Cells, start: int, rows: int) -> dict[str, jax.Array]:
    """The elites from number `start` on; the rows after the last are anything."""
    position = jnp.minimum(start + jnp.arange(rows), archive.num_cells - 1)
    cells = jnp.maximum(archive.occupied_cells[position], 0)
    return {
        "cells": cells,
        "objectives": archive.fitnesses[cells, 0],
        "thresholds": archive.thresholds[cells],
        "measures": archive.descriptors[cells],
        "latents": decode(archive.genotypes[cells], archive.dtype),
    }


def scatter(cls: type[A], elites: Elites, settings: Mapping[str, Any], *, alone: bool = False) -> A:
    """Build an archive; see `Archive.from_elites`.

    Args:
        cls: kind of the archive.
        elites: its rows.
        settings: those of `cls.create`; if empty, those of the elites.
        alone: thresholds follow from accepting each elite alone, whatever the elites say.
    """
    if not isinstance(elites, Elites):
        raise ValueError(
            f"elites is a {type(elites).__name__}: give an Elites, as `elites()` makes it; "
            "`from_frame` takes a frame."
        )
    archive = _empty_for(cls, elites, settings)
    _check_columns(archive)
    if not len(elites):
        return archive
    _check_rows(archive, elites)
    if alone:
        measures, objectives = jnp.asarray(elites.measures), jnp.asarray(elites.objectives)
        thresholds = archive.add(elites.latents, measures, objectives).thresholds
        elites = dataclasses.replace(elites, thresholds=np.asarray(thresholds)[elites.cells])
    _check_row_thresholds(archive, elites)
    cells, rows = elites.cells.astype(np.int32), _rows_at_a_time(archive)
    for start in range(0, len(elites), rows):
        part = slice(start, start + rows)
        # Filled up with cells beyond the last, so that it compiles once.
        place = np.full(rows, archive.num_cells, np.int32)
        place[: len(cells[part])] = cells[part]
        columns = (elites.latents, elites.objectives, elites.measures, elites.thresholds)
        filled = (_filled_up(column[part], rows) for column in columns)
        archive = _scatter_rows(archive, place, *filled)
    occupied = np.zeros(archive.num_cells, np.int32)
    occupied[-1] = ~len(cells)
    occupied[: len(cells)] = cells
    listed: A = archive.replace(occupied_cells=jnp.asarray(occupied))
    return listed


@functools.partial(jax.jit, donate_argnums=0)
def _scatter_rows(
    archive: A,
    cells: jax.Array,
    latents: jax.Array,
    fitnesses: jax.Array,
    descriptors: jax.Array,
    thresholds: jax.Array,
) -> A:
    def write(table: jax.Array, rows: jax.Array) -> jax.Array:
        return table.at[cells].set(rows.astype(table.dtype), mode="drop")

    bits = encode(latents, archive.genotypes.dtype, archive.dtype)
    written: A = archive.replace(
        genotypes=write(archive.genotypes, bits),
        fitnesses=write(archive.fitnesses, fitnesses[:, None]),
        descriptors=write(archive.descriptors, descriptors),
        thresholds=write(archive.thresholds, thresholds),
    )
    return written


def _filled_up(column: np.ndarray, rows: int) -> np.ndarray:
    missing = rows - len(column)
    return np.pad(column, ((0, missing), *((0, 0),) * (column.ndim - 1))) if missing else column


def _rows_at_a_time(archive: Cells) -> int:
    return min(archive.num_cells, max(1, _CHUNK_NUMBERS // max(1, archive.genotypes.shape[1])))


def _empty_for(cls: type[A], elites: Elites, settings: Mapping[str, Any]) -> A:
    """The archive without its elites."""
    given = dict(settings or elites.settings)
    kind = given.pop("kind", cls.__name__)
    if kind != cls.__name__:
        raise ValueError(
            f"the table holds a {kind}: read it with {kind} rather than {cls.__name__}."
        )
    wanted = np.dtype(given.get("dtype", np.float32)).name
    archive: A = cls.create(np.zeros(elites.latents.shape[1], np.float32), **given)
    if not settings and archive.dtype != wanted:
        raise ValueError(
            f"the elites' latents are of {wanted}, which JAX would cut to {archive.dtype}: start "
            "Python with JAX_ENABLE_X64=1."
        )
    return archive


def _check_columns(archive: Cells) -> None:
    shapes = jax.tree.map(jnp.shape, archive.genotypes)
    if not isinstance(shapes, tuple) or len(shapes) != 2 or hasattr(shapes[0], "shape"):
        raise ValueError(
            f"the archive's genotypes have the shapes {shapes}: only latents Float[C, D] have a "
            "place in a table."
        )
    if archive.keys_extra_scores:
        raise ValueError(
            f"the archive has the extra scores {archive.keys_extra_scores}, which have no place in "
            "a table: leave them out with archive.replace(extra_scores={}, keys_extra_scores=())."
        )


def _check_row_thresholds(archive: Cells, elites: Elites) -> None:
    lowest = np.float32(archive.threshold_min)
    thresholds = elites.thresholds
    sound = (thresholds >= lowest) & (thresholds <= np.maximum(elites.objectives, lowest))
    if not sound.all():
        row = int(np.argmin(sound))
        raise ValueError(
            f"row {row} has the threshold {thresholds[row]}: give one from threshold_min "
            f"{archive.threshold_min} to the objective {elites.objectives[row]}, or drop the "
            "column of a frame."
        )


def _check_rows(archive: Cells, elites: Elites) -> None:
    finite = np.isfinite(elites.objectives) & np.isfinite(elites.measures).all(1)
    rows = _rows_at_a_time(archive)
    for start in range(0, len(elites), rows):
        part = slice(start, start + rows)
        finite[part] &= np.asarray(archive.storable(elites.latents[part]))
    if not finite.all():
        raise ValueError(
            f"row {int(np.argmin(finite))} has a number that is not finite in {archive.dtype}."
        )
    if elites.measures.shape[1] != archive.centroids.shape[1]:
        raise ValueError(
            f"the table has {elites.measures.shape[1]} measures but the archive "
            f"{archive.centroids.shape[1]}."
        )
    if len(np.unique(elites.cells)) != len(elites):
        raise ValueError("a cell appears twice: each holds one elite.")
    own = np.asarray(archive.cell_of(jnp.asarray(elites.measures)))
    if (own != elites.cells).any():
        row = int(np.argmax(own != elites.cells))
        raise ValueError(
            f"row {row} says cell {elites.cells[row]} but its measures belong to cell {own[row]}: "
            "give the settings of the archive that the elites came from."
        )
