"""The report's pictures, each a pure function of `ReportData`'s parts."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Mapping, Sequence

import numpy as np

from qdgs_jax.datasets.thumbnails import choose
from qdgs_jax.experiments.protocol import Bars, Lines, Series
from qdgs_jax.report import boards, svg
from qdgs_jax.report.boards import Inspected
from qdgs_jax.report.colours import data_uri, png, viridis
from qdgs_jax.report.contents import Arm, Atlas, MeasureAxis
from qdgs_jax.report.svg import Axis, Box, Plot

ARM_STYLES = ("a", "b")  # CSS classes of the run and of its baseline
ROLE_STYLES = {"run": "a", "baseline": "b"}
OTHER_STYLES = ("none", "c", "d", "e")  # of series beside these two, in turn
HISTOGRAM_BINS = 40
ATLAS_WIDTH, ATLAS_HEIGHT = 384, 392  # that an atlas may fill
ATLAS_LEAST = 96  # that it fills at least, along its shorter side
NARROW = "\N{NARROW NO-BREAK SPACE}"


def measure_axis(measure: MeasureAxis) -> Axis:
    """Turn a measure into an axis whose ends say what they mean."""
    return Axis(measure.low, measure.high, measure.name, (measure.low_text, measure.high_text))


def best_per_cell(arm: Arm, measures: Sequence[MeasureAxis], pair: tuple[int, int]) -> np.ndarray:
    """Project the archive on two measures: the best objective Float[X, Y], NaN where empty."""
    dims = [m.cells for m in measures]
    rows, places, size = choose(arm.elites.cells, arm.elites.objectives, dims, pair, max(dims))
    grid = np.full(size, np.nan)
    grid[places[:, 0], places[:, 1]] = arm.elites.objectives[rows]
    return grid


def filled_places(arm: Arm, measures: Sequence[MeasureAxis], pair: tuple[int, int]) -> str:
    """How much of a heat map is filled, in a sentence; it counts the map's own cells."""
    grid = best_per_cell(arm, measures, pair)
    filled = int(np.isfinite(grid).sum())
    if len(measures) == 2 and arm.occupied is None:
        return f"{filled:,} of {grid.size:,} cells hold an elite."
    names = " and ".join(measures[i].name for i in pair)
    elites, cells = arm.occupied or (
        len(arm.elites.cells),
        math.prod(m.cells for m in measures),
    )
    return (
        f"{filled:,} of {grid.size:,} cells over {names} hold an elite; the archive has "
        f"{elites:,} elites in {cells:,} cells over {len(measures)} measures."
    )


def heat_map(
    shown: Inspected,
    measures: Sequence[MeasureAxis],
    pair: tuple[int, int],
    limits: tuple[float, float],
) -> str:
    """Draw the archive over a pair of measures; empty cells are transparent, the others answer."""
    grid = best_per_cell(shown.arm, measures, pair)
    filled = np.isfinite(grid)
    span = max(limits[1] - limits[0], 1e-12)
    scaled = np.where(filled, (grid - limits[0]) / span, 0.0)
    alpha = np.where(filled, 255, 0).astype(np.uint8)
    pixels = np.concatenate([viridis(scaled), alpha[..., None]], axis=-1)
    pixels = np.ascontiguousarray(pixels.transpose(1, 0, 2)[::-1])  # measure 1 runs upwards
    plot = Plot(measure_axis(measures[pair[0]]), measure_axis(measures[pair[1]]), height=388)
    box = Box(plot.left, plot.top, *plot.inner)
    body = svg.rectangle(box.x, box.y, box.width, box.height, "empty hatched")
    body += svg.embedded_image(box.x, box.y, box.width, box.height, data_uri(png(pixels)), "sharp")
    names = f"{measures[pair[0]].name} and {measures[pair[1]].name}"
    title = f"Archive of {shown.arm.name} over {names}"
    answer = boards.over_heat_map(shown, measures, pair, box, f"Cells: {title}")
    told = f"{filled_places(shown.arm, measures, pair)} Brighter is a higher objective."
    return plot.svg(body + plot.axes(grid=False) + answer, title, told, role="group")


def atlas(picture: Atlas, measures: Sequence[MeasureAxis], shown: Inspected) -> str:
    """Draw the decoded elites in their places on the measure grid; places are square and answer."""
    x, y = (measures[i] for i in picture.pair)
    tile = min(ATLAS_WIDTH / picture.columns, ATLAS_HEIGHT / picture.rows)
    tile = max(tile, ATLAS_LEAST / min(picture.columns, picture.rows))
    frame = Plot(measure_axis(x), measure_axis(y))
    plot = dataclasses.replace(
        frame,
        width=round(frame.left + frame.right + tile * picture.columns),
        height=round(frame.top + frame.bottom + tile * picture.rows),
    )
    box = Box(plot.left, plot.top, tile * picture.columns, tile * picture.rows)
    body = svg.rectangle(box.x, box.y, box.width, box.height, "empty")
    uri = data_uri(picture.sprite)
    body += svg.embedded_image(box.x, box.y, box.width, box.height, uri, "smooth")
    title = f"Images of the archive's elites, laid out over {x.name} and {y.name}"
    answer = boards.over_atlas(shown, picture, box, f"Places: {title}")
    told = atlas_caption(picture)
    return plot.svg(body + plot.axes(grid=False) + answer, title, told, role="group")


def atlas_caption(picture: Atlas) -> str:
    """How many images an atlas shows, in a sentence."""
    return f"{len(picture.cells):,} images on {picture.columns} by {picture.rows} places."


def samples(arm: Arm) -> np.ndarray:
    """Measures Float[K, M] of the arm's data set, or of its elites without one."""
    return arm.elites.measures if arm.data is None else arm.data.elites.measures


def scatter(arms: Sequence[Arm], measures: Sequence[MeasureAxis], pair: tuple[int, int]) -> str:
    """Draw a dot per image over two measures, the baseline on top of the run."""
    x, y = (measures[i] for i in pair)
    plot = Plot(measure_axis(x), measure_axis(y), height=340)
    body = ""
    for arm, style in zip(arms, ARM_STYLES, strict=False):
        points = samples(arm)
        body += svg.dots(plot.px(points[:, pair[0]]), plot.py(points[:, pair[1]]), f"dots {style}")
    names = " and ".join(arm.name for arm in arms)
    return plot.svg(plot.axes() + body, f"Images of {names} over {x.name} and {y.name}")


def histogram(arms: Sequence[Arm], measures: Sequence[MeasureAxis], which: int) -> str:
    """Draw how the images of each arm spread over one measure, as shares of its images."""
    measure = measures[which]
    values = [samples(arm)[:, which] for arm in arms]
    names = " and ".join(arm.name for arm in arms)
    return _steps(
        values,
        measure_axis(measure),
        "share of its data set",
        f"Histogram of {measure.name}, {names}",
    )


def objectives(arms: Sequence[Arm]) -> str:
    """Draw how the objectives of each arm's elites spread, as shares of its elites."""
    values = [arm.elites.objectives for arm in arms]
    found = np.concatenate(values).astype(float)
    low, high = (float(found.min()), float(found.max())) if found.size else (0.0, 1.0)
    names = " and ".join(arm.name for arm in arms)
    axis = Axis(low, high if high > low else low + 1.0, "objective")
    return _steps(values, axis, "share of elites", f"Histogram of the objective, {names}")


def _steps(values: Sequence[np.ndarray], axis: Axis, what: str, title: str) -> str:
    """Draw histograms over each other; values beyond the axis count at its ends."""
    edges = np.linspace(axis.low, axis.high, HISTOGRAM_BINS + 1)
    shares = []
    for column in values:
        # In double precision, as the edges are: a float32 at an edge may lie beyond it.
        counts, _ = np.histogram(np.clip(column.astype(float), axis.low, axis.high), edges)
        shares.append(counts / max(len(column), 1))
    top = max((float(share.max()) for share in shares), default=0.0) or 1.0
    plot = Plot(axis, Axis(0.0, 1.08 * top, what, percent=True), height=340)
    body = ""
    for share, style in zip(shares, ARM_STYLES, strict=False):
        x = plot.px(np.repeat(edges, 2))
        y = plot.py(np.concatenate([[0.0], np.repeat(share, 2), [0.0]]))
        body += svg.polyline(x, y, f"steps {style}")
    return plot.svg(plot.axes() + body, title)


def curve(arms: Sequence[Arm], field: str, name: str, *, percent: bool = False) -> str:
    """Draw one figure of the search over its evaluations."""
    lines = [np.asarray(getattr(arm, field), float) for arm in arms]
    most = max((float(line.max()) for line in lines if line.size), default=0.0)
    least = min((float(line.min()) for line in lines if line.size), default=0.0)
    end = max((float(arm.evaluations.max()) for arm in arms if arm.evaluations.size), default=0.0)
    low = min(least, 0.0)
    high = most + 0.05 * (most - low)
    plot = Plot(
        Axis(0.0, end or 1.0, "evaluations"),
        Axis(low, high if high > low else low + 1.0, name, percent=percent),
    )
    body = ""
    for arm, line, style in zip(arms, lines, ARM_STYLES, strict=False):
        body += svg.polyline(plot.px(arm.evaluations), plot.py(line), f"line {style}")
    names = " and ".join(arm.name for arm in arms)
    return plot.svg(plot.axes() + body, f"{name} over evaluations, {names}")


def series_styles(series: Sequence[Series]) -> dict[str, str]:
    """CSS classes of series by name: the run's, the baseline's, and another for each other one."""
    others = dict.fromkeys(each.name for each in series if each.role not in ROLE_STYLES)
    found = dict(zip(others, itertools.cycle(OTHER_STYLES), strict=False))
    return found | {each.name: ROLE_STYLES[each.role] for each in series if each.name not in found}


def bars(chart: Bars, styles: Mapping[str, str]) -> str:
    """Draw each group's share as bars, with a line where all were equal; figures stand apart.

    Args:
        chart: what to draw.
        styles: `series_styles` of everything that stands beside it.
    """
    bar, gap, width, top = 17, 18, 460, 10
    left = min(190, 16 + round(svg.WIDE * max(map(len, chart.groups))))
    block = bar * len(chart.series) + gap
    bottom = top + block * len(chart.groups)
    room = width - left - 64  # the rest is the column of figures
    equal = 1 / len(chart.groups)
    most = max(equal, *(share for series in chart.series for share in series.values))
    body = ""
    for row, group in enumerate(chart.groups):
        y = top + row * block
        name = svg.shorten(group, int((left - 12) / svg.WIDE))
        body += svg.label(left - 8, y + bar * len(chart.series) / 2 + 4, name, "end", "name")
        for line, series in enumerate(chart.series):
            share = series.values[row]
            text = f"{100 * share:.1f}{NARROW}%"
            at = y + line * bar
            style = f"bar {styles[series.name]}"
            tip = f"{series.name}: {group}, {text}"
            body += svg.rectangle(left, at, room * share / most, bar - 2, style, tip)
            body += svg.label(width - 4, at + bar - 4, text, "end")
    x = left + room * equal / most
    body += f'<path class="mark" d="M{x:.1f} {top - 4}V{bottom}"/>'
    body += svg.label(x, bottom + 14, "equal shares", "middle")
    names = " and ".join(series.name for series in chart.series)
    return svg.picture(width, bottom + 26, body, f"{chart.title}: {names}")


def lines(chart: Lines, styles: Mapping[str, str]) -> str:
    """Draw fractions over a number, a line per series with its standard errors."""
    spans = [
        (
            np.asarray(s.values),
            np.zeros(len(s.values)) if s.errors is None else np.asarray(s.errors),
        )
        for s in chart.series
    ]
    low = min(float((values - errors).min()) for values, errors in spans)
    x_low, x_high = min(chart.at), max(chart.at)
    pad = 0.06 * (x_high - x_low) or 0.01
    plot = Plot(
        Axis(x_low - pad, x_high + pad, chart.x_name),
        Axis(max(0.0, min(low - 0.03, 0.9)), 1.0, chart.y_name, percent=True),
    )
    x = plot.px(np.asarray(chart.at))
    body = ""
    for series, (values, errors) in zip(chart.series, spans, strict=True):
        style, y = styles[series.name], plot.py(values)
        body += svg.polyline(x, y, f"line {style}") + svg.dots(x, y, f"dots big {style}")
        ends = zip(x, plot.py(values - errors), plot.py(values + errors), strict=True)
        path = "".join(f"M{a:.1f} {b:.1f}V{c:.1f}" for a, b, c in ends)
        body += f'<path class="line {style}" d="{path}"/>'
    return plot.svg(plot.axes() + body, f"{chart.y_name} over {chart.x_name}")
