"""Pictures of archives on matplotlib axes: heat maps of grids and of Voronoi cells, parallel axes.

Functions draw on given axes, or on the current ones, and return them; what is shown is the elites'
objective. Names are those that users of pyribs look for. In place of an archive they take what has
one: a state of a search, or a finished run, whose run file names the measures and their two ends.
"""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol

import jax
import numpy as np

from qdgs_jax.archive import Archive, CVTArchive, GridArchive

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.cm import ScalarMappable

WIDTH = 24  # letters of a text beside an axis


class HasArchive(Protocol):
    """What has an archive: a `SearchState`, or what `load_run` opens."""

    @property
    def archive(self) -> Any:
        """The archive to draw."""


def grid_archive_heatmap(
    archive: GridArchive | HasArchive,
    ax: Axes | None = None,
    *,
    measures: tuple[int, int] = (0, 1),
    transpose_measures: bool = False,
    names: Sequence[str] | None = None,
    ends: Sequence[tuple[str, str]] | None = None,
    vmin: float | None = None,
    vmax: float | None = None,
    cmap: Any = "viridis",
    colorbar: bool = True,
) -> Axes:
    """Draw a grid over two of its measures; over more, a place shows the best along the others.

    Args:
        archive: a grid of at least two measures, or what has one.
        ax: axes to draw on; the current ones if None.
        measures: indices of the measures to the right and upwards.
        transpose_measures: exchange these two.
        names: of all M measures, for the axes' labels.
        ends: what each measure's low and high end mean, such as ("triangle", "square").
        vmin: objective at the lower end of the colour scale; None for the least one shown.
        vmax: at its upper end; None for the greatest one shown.
        cmap: a colour map of matplotlib.
        colorbar: whether to draw the scale beside the map.

    Raises:
        TypeError: if the archive is no grid.
        ValueError: if there are no two such measures.
    """
    archive, names, ends = _opened(archive, names, ends)
    if not isinstance(archive, GridArchive):
        raise TypeError(
            f"archive is {_shown(archive)}: give a GridArchive, such as `from_elites` makes, or "
            "what load_run reads; cells of a CVTArchive are drawn by cvt_archive_heatmap."
        )
    _check_measures(measures, len(archive.dims))
    if transpose_measures:
        measures = measures[1], measures[0]
    objectives = np.asarray(archive.fitnesses[:, 0], np.float64).reshape(archive.dims)
    others = tuple(axis for axis in range(objectives.ndim) if axis not in measures)
    best = objectives.max(axis=others)
    if measures[0] < measures[1]:
        best = best.T  # rows run upwards
    shown = np.ma.masked_array(best, np.isneginf(best))
    edges = [
        np.linspace(*archive.ranges[index], archive.dims[index] + 1, dtype=np.float64)
        for index in measures
    ]
    ax = _axes(ax)
    low, high = _limits(shown.compressed(), vmin, vmax)
    mesh = ax.pcolormesh(*edges, shown, cmap=cmap, vmin=low, vmax=high, rasterized=True)
    return _finish(ax, _labels(names, ends, archive), measures, mesh, colorbar)


def cvt_archive_heatmap(
    archive: CVTArchive | HasArchive,
    ax: Axes | None = None,
    *,
    transpose_measures: bool = False,
    names: Sequence[str] | None = None,
    ends: Sequence[tuple[str, str]] | None = None,
    vmin: float | None = None,
    vmax: float | None = None,
    cmap: Any = "viridis",
    colorbar: bool = True,
    edge_width: float = 0.2,
) -> Axes:
    """Draw the Voronoi cells of an archive of two measures.

    Args:
        archive: an archive of two measures and at least one cell, or what has one.
        ax: axes to draw on; the current ones if None.
        transpose_measures: draw measure 0 upwards instead of to the right.
        names: of both measures, for the axes' labels.
        ends: what each measure's low and high end mean, such as ("triangle", "square").
        vmin: objective at the lower end of the colour scale; None for the least one shown.
        vmax: at its upper end; None for the greatest one shown.
        cmap: a colour map of matplotlib.
        colorbar: whether to draw the scale beside the map.
        edge_width: of the cells' outlines, in points.

    Raises:
        TypeError: if the archive has no centroids of its own.
        ValueError: if there are not two measures.
    """
    from matplotlib.collections import PolyCollection

    archive, names, ends = _opened(archive, names, ends)
    if not isinstance(archive, CVTArchive):
        raise TypeError(
            f"archive is {_shown(archive)}: give a CVTArchive, such as `from_elites` makes, or "
            "what load_run reads; cells of a GridArchive are drawn by grid_archive_heatmap."
        )
    if len(archive.ranges) != 2:
        raise ValueError(
            f"the archive has {len(archive.ranges)} measures: cells can be drawn over two; "
            "parallel_axes_plot shows any number."
        )
    measures = (1, 0) if transpose_measures else (0, 1)
    low, high = np.asarray(archive.ranges, np.float64)[list(measures)].T
    centroids = np.asarray(archive.centroids, np.float64)[:, measures]
    cells = _voronoi_cells((centroids - low) / (high - low))
    objectives = np.asarray(archive.fitnesses[:, 0], np.float64)
    shown = np.ma.masked_array(objectives, np.isneginf(objectives))
    ax = _axes(ax)
    polygons = PolyCollection(
        [low + cell * (high - low) for cell in cells],
        array=shown,
        cmap=cmap,
        edgecolors="0.7",
        linewidths=edge_width,
    )
    polygons.set_clim(*_limits(shown.compressed(), vmin, vmax))
    ax.add_collection(polygons)
    ax.set_xlim(low[0], high[0])
    ax.set_ylim(low[1], high[1])
    return _finish(ax, _labels(names, ends, archive), measures, polygons, colorbar)


def parallel_axes_plot(
    archive: Archive | HasArchive,
    ax: Axes | None = None,
    *,
    names: Sequence[str] | None = None,
    ends: Sequence[tuple[str, str]] | None = None,
    vmin: float | None = None,
    vmax: float | None = None,
    cmap: Any = "viridis",
    colorbar: bool = True,
    linewidth: float = 1.0,
    alpha: float = 0.6,
) -> Axes:
    """Draw each elite as a line across one vertical axis per measure, the best on top.

    Args:
        archive: of any kind, with at least two measures, or what has one.
        ax: axes to draw on; the current ones if None.
        names: of all M measures.
        ends: what each measure's low and high end mean, such as ("triangle", "square").
        vmin: objective at the lower end of the colour scale; None for the least one shown.
        vmax: at its upper end; None for the greatest one shown.
        cmap: a colour map of matplotlib.
        colorbar: whether to draw the scale beside the plot.
        linewidth: of the lines, in points.
        alpha: opacity of the lines.

    Raises:
        TypeError: if the archive is none.
        ValueError: if there are fewer than two measures.
    """
    from matplotlib.collections import LineCollection

    archive, names, ends = _opened(archive, names, ends)
    if not isinstance(archive, Archive):
        raise TypeError(
            f"archive is {_shown(archive)}: give a GridArchive or a CVTArchive, such as "
            "state.archive, or what load_run reads."
        )
    occupied = np.asarray(archive.occupied)
    descriptors, fitnesses = jax.device_get((archive.descriptors, archive.fitnesses))
    count = descriptors.shape[1]
    if count < 2:
        raise ValueError(f"the archive has {count} measure: parallel axes need at least two.")
    labels = _names(names, count)
    ranges = getattr(archive, "ranges", None)
    box = np.asarray(ranges if ranges is not None else _extent(descriptors[occupied]), np.float64)
    order = np.argsort(fitnesses[occupied, 0], kind="stable")
    objectives = fitnesses[occupied, 0][order].astype(np.float64)
    heights = (descriptors[occupied][order] - box[:, 0]) / (box[:, 1] - box[:, 0])
    places = np.broadcast_to(np.arange(count), heights.shape)
    ax = _axes(ax)
    lines = LineCollection(
        list(np.stack([places, heights], axis=-1)), cmap=cmap, linewidths=linewidth, alpha=alpha
    )
    lines.set_array(objectives)
    lines.set_clim(*_limits(objectives, vmin, vmax))
    ax.add_collection(lines)
    ax.set_xlim(-0.1, count - 0.9)
    ax.set_ylim(-0.02, 1.02)
    ax.set_yticks([])
    meanings = _ends(ends, count) or [("", "")] * count
    low = [_stacked(f"{box[i, 0]:g}", meanings[i][0], name) for i, name in enumerate(labels)]
    ax.set_xticks(range(count), low)
    above = ax.secondary_xaxis("top")
    above.set_xticks(
        range(count), [_stacked(meanings[i][1], f"{box[i, 1]:g}") for i in range(count)]
    )
    for place in range(count):
        ax.axvline(place, color="0.3", linewidth=0.8)
    if colorbar:
        ax.figure.colorbar(lines, ax=ax, label="objective")
    return ax


def _voronoi_cells(points: np.ndarray) -> list[np.ndarray]:
    """Polygons of the cells of points Float[C, 2] in the unit square, inside it."""
    from scipy.spatial import Voronoi

    # Mirrored at the four sides, the points' own cells are bounded by the square.
    mirrored = [points]
    for axis, side in ((0, 0.0), (0, 1.0), (1, 0.0), (1, 1.0)):
        image = points.copy()
        image[:, axis] = 2 * side - image[:, axis]
        mirrored.append(image)
    diagram = Voronoi(np.concatenate(mirrored))
    regions = (diagram.regions[diagram.point_region[i]] for i in range(len(points)))
    return [diagram.vertices[region] for region in regions]


def _shown(thing: object) -> str:
    """What was given in place of an archive."""
    return repr(thing) if isinstance(thing, str) else f"of type {type(thing).__name__}"


def _axes(ax: Axes | None) -> Axes:
    import matplotlib.axes
    import matplotlib.pyplot as plt

    if ax is None:
        figure = plt.gcf()
        if not figure.axes and figure.get_layout_engine() is None:
            figure.set_layout_engine("constrained")  # labels have two lines
        return figure.gca()
    if not isinstance(ax, matplotlib.axes.Axes):
        raise TypeError(
            f"ax is a {type(ax).__name__}: give one of matplotlib's, as plt.subplots() makes."
        )
    return ax


def _limits(values: np.ndarray, vmin: float | None, vmax: float | None) -> tuple[float, float]:
    """Ends of the colour scale; a scale of one value is widened."""
    low = (float(values.min()) if len(values) else 0.0) if vmin is None else vmin
    high = (float(values.max()) if len(values) else 1.0) if vmax is None else vmax
    return low, high if high > low else low + 1.0


def _finish(
    ax: Axes,
    labels: Sequence[str],
    measures: tuple[int, int],
    shown: ScalarMappable,
    colorbar: bool,
) -> Axes:
    ax.locator_params(axis="x", nbins=5)  # numbers that do not run into each other
    ax.set_xlabel(labels[measures[0]])
    ax.set_ylabel(labels[measures[1]])
    if colorbar:
        ax.figure.colorbar(shown, ax=ax, label="objective")
    return ax


def _opened(
    source: Any, names: Sequence[str] | None, ends: Sequence[tuple[str, str]] | None
) -> tuple[Any, Sequence[str] | None, Sequence[tuple[str, str]] | None]:
    """The archive of what was given, and what its run file calls the measures and their ends."""
    config: Any = getattr(source, "config", None)
    if hasattr(config, "measures"):
        names = [measure.name for measure in config.measures] if names is None else names
        if ends is None:  # a measure is small near the positive texts
            ends = [(" | ".join(m.positive), " | ".join(m.negative)) for m in config.measures]
    return getattr(source, "archive", source), names, ends


def _labels(
    names: Sequence[str] | None, ends: Sequence[tuple[str, str]] | None, archive: Archive
) -> list[str]:
    """A label per measure: its name, and below it what its ends mean."""
    count = archive.centroids.shape[1]
    labels, meanings = _names(names, count), _ends(ends, count)
    if meanings is None:
        return labels
    return [
        _stacked(name, f"{low} → {high}")
        for name, (low, high) in zip(labels, meanings, strict=True)
    ]


def _names(names: Sequence[str] | None, count: int) -> list[str]:
    if names is None:
        return [f"measure {index}" for index in range(count)]
    if len(names) != count:
        raise ValueError(f"{len(names)} names for {count} measures: give one for each.")
    return list(names)


def _ends(ends: Sequence[tuple[str, str]] | None, count: int) -> list[tuple[str, str]] | None:
    if ends is None:
        return None
    pairs = [tuple(pair) for pair in ends if not isinstance(pair, str)]
    if len(ends) != count or [len(pair) for pair in pairs] != [2] * count:
        raise ValueError(
            f"ends is {ends!r:.60}: give for each of {count} measures what its low and its high "
            'end mean, such as ("triangle", "square").'
        )
    return [(_short(low), _short(high)) for low, high in pairs]


def _short(text: str) -> str:
    return textwrap.shorten(text, WIDTH, placeholder=" …")


def _stacked(*lines: str) -> str:
    return "\n".join(line for line in lines if line)


def _check_measures(measures: tuple[int, int], count: int) -> None:
    if count < 2 or len(set(measures)) != 2 or not all(0 <= index < count for index in measures):
        raise ValueError(
            f"measures is {measures} of an archive of {count}: give two different indices below "
            f"{count}; histograms suit a single measure."
        )


def _extent(descriptors: np.ndarray) -> np.ndarray:
    """Ranges [M, 2] of what is there; 1 wide where there is no extent."""
    if not len(descriptors):
        return np.tile([0.0, 1.0], (descriptors.shape[1], 1))
    low, high = descriptors.min(0), descriptors.max(0)
    return np.stack([low, np.where(high > low, high, low + 1)], axis=-1)
