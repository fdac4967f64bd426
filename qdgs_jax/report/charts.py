"""The report's pictures, each a pure function of `ReportData`'s parts."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from qdgs_jax.report import svg
from qdgs_jax.report.colours import data_uri, png, viridis
from qdgs_jax.report.contents import Accuracy, Arm, Atlas, MeasureAxis
from qdgs_jax.report.svg import Axis, Plot

ARM_STYLES = ("a", "b")  # CSS classes of the run and of its baseline
HISTOGRAM_BINS = 40


def measure_axis(measure: MeasureAxis) -> Axis:
    """Turn a measure into an axis whose ends say what they mean."""
    return Axis(measure.low, measure.high, measure.name, (measure.low_text, measure.high_text))


def best_per_cell(arm: Arm, measures: Sequence[MeasureAxis], pair: tuple[int, int]) -> np.ndarray:
    """Project the archive on two measures: the best objective Float[X, Y], NaN where empty."""
    dims = [m.cells for m in measures]
    where = np.unravel_index(arm.cells, dims)
    grid = np.full((dims[pair[0]], dims[pair[1]]), -np.inf)
    np.maximum.at(grid, (where[pair[0]], where[pair[1]]), arm.objectives)
    return np.where(np.isneginf(grid), np.nan, grid)


def heat_map(
    arm: Arm,
    measures: Sequence[MeasureAxis],
    pair: tuple[int, int],
    limits: tuple[float, float],
) -> str:
    """Draw the archive over a pair of measures; empty cells are transparent."""
    grid = best_per_cell(arm, measures, pair)
    filled = np.isfinite(grid)
    span = max(limits[1] - limits[0], 1e-12)
    scaled = np.where(filled, (grid - limits[0]) / span, 0.0)
    alpha = np.where(filled, 255, 0).astype(np.uint8)
    pixels = np.concatenate([viridis(scaled), alpha[..., None]], axis=-1)
    pixels = np.ascontiguousarray(pixels.transpose(1, 0, 2)[::-1])  # measure 1 runs upwards
    plot = Plot(measure_axis(measures[pair[0]]), measure_axis(measures[pair[1]]), height=388)
    width, height = plot.inner
    body = svg.rectangle(plot.left, plot.top, width, height, "empty")
    body += svg.embedded_image(plot.left, plot.top, width, height, data_uri(png(pixels)), "sharp")
    names = f"{measures[pair[0]].name} and {measures[pair[1]].name}"
    return plot.svg(
        body + plot.axes(grid=False),
        f"Archive of {arm.name} over {names}",
        f"{int(filled.sum())} of {grid.size} cells hold an elite; brighter is a higher objective.",
    )


def atlas(picture: Atlas, measures: Sequence[MeasureAxis]) -> str:
    """Draw the decoded elites in their places on the measure grid."""
    x, y = (measures[i] for i in picture.pair)
    plot = Plot(measure_axis(x), measure_axis(y), width=480, height=448)
    width, height = plot.inner
    body = svg.rectangle(plot.left, plot.top, width, height, "empty")
    uri = data_uri(picture.sprite)
    body += svg.embedded_image(plot.left, plot.top, width, height, uri, "smooth")
    return plot.svg(
        body + plot.axes(grid=False),
        f"Images of the archive's elites, laid out over {x.name} and {y.name}",
        f"{picture.shown} images on {picture.columns} by {picture.rows} places.",
    )


def samples(arm: Arm, measures: Sequence[MeasureAxis]) -> np.ndarray:
    """Measures Float[K, M] of the arm's data set, or of its elites (cell centres) without one."""
    if arm.dataset_measures is not None:
        return arm.dataset_measures
    where = np.unravel_index(arm.cells, [m.cells for m in measures])
    columns = [
        m.low + (at + 0.5) * (m.high - m.low) / m.cells
        for m, at in zip(measures, where, strict=True)
    ]
    return np.stack(columns, axis=-1)


def scatter(arms: Sequence[Arm], measures: Sequence[MeasureAxis], pair: tuple[int, int]) -> str:
    """Draw a dot per image over two measures, the baseline on top of the run."""
    x, y = (measures[i] for i in pair)
    plot = Plot(measure_axis(x), measure_axis(y), height=340)
    body = ""
    for arm, style in zip(arms, ARM_STYLES, strict=False):
        points = samples(arm, measures)
        body += svg.dots(plot.px(points[:, pair[0]]), plot.py(points[:, pair[1]]), f"dots {style}")
    names = " and ".join(arm.name for arm in arms)
    return plot.svg(plot.axes() + body, f"Images of {names} over {x.name} and {y.name}")


def histogram(arms: Sequence[Arm], measures: Sequence[MeasureAxis], which: int) -> str:
    """Draw how the images of each arm spread over one measure, as shares of its images."""
    measure = measures[which]
    edges = np.linspace(measure.low, measure.high, HISTOGRAM_BINS + 1)
    shares = []
    for arm in arms:
        # In double precision, as the edges are: a float32 at an edge may lie beyond it.
        values = np.clip(samples(arm, measures)[:, which].astype(float), measure.low, measure.high)
        counts, _ = np.histogram(values, edges)
        shares.append(counts / max(len(values), 1))
    top = max((float(share.max()) for share in shares), default=0.0) or 1.0
    plot = Plot(
        measure_axis(measure), Axis(0.0, 1.08 * top, "share of images", percent=True), height=340
    )
    body = ""
    for share, style in zip(shares, ARM_STYLES, strict=False):
        x = plot.px(np.repeat(edges, 2))
        y = plot.py(np.concatenate([[0.0], np.repeat(share, 2), [0.0]]))
        body += svg.polyline(x, y, f"steps {style}")
    names = " and ".join(arm.name for arm in arms)
    return plot.svg(plot.axes() + body, f"Histogram of {measure.name}, {names}")


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


def group_shares(arms: Sequence[Arm]) -> str:
    """Draw each group's share of the data sets as bars, with a line where all were equal."""
    judged = [(arm, style) for arm, style in zip(arms, ARM_STYLES, strict=False) if arm.shares]
    groups = list(dict.fromkeys(group for arm, _ in judged for group in arm.shares or {}))
    bar, gap, left, width, top = 17, 18, 116, 420, 10
    block = bar * len(judged) + gap
    height = top + block * len(groups) + 26
    room = width - left - 50
    most = max(max((arm.shares or {}).values()) for arm, _ in judged) or 1.0
    equal = left + room / len(groups) / most
    bottom = top + block * len(groups)
    body = f'<path class="mark" d="M{equal:.1f} {top - 4}V{bottom}"/>'
    body += svg.label(equal, bottom + 14, "equal shares", "middle")
    for row, group in enumerate(groups):
        y = top + row * block
        body += svg.label(left - 8, y + bar * len(judged) / 2 + 4, group, "end", "name")
        for line, (arm, style) in enumerate(judged):
            share = (arm.shares or {}).get(group, 0.0)
            text = f"{100 * share:.1f}\N{NARROW NO-BREAK SPACE}%"
            at = y + line * bar
            tip = f"{arm.name}: {group}, {text}"
            body += svg.rectangle(left, at, room * share / most, bar - 2, f"bar {style}", tip)
            body += svg.label(left + room * share / most + 5, at + bar - 4, text)
    names = " and ".join(arm.name for arm, _ in judged)
    return svg.picture(width, height, body, f"Share of each group in the data sets of {names}")


def accuracy_chart(accuracy: Accuracy, styles: Sequence[str]) -> str:
    """Draw accuracy over the training sets' bias, a line per arm with its standard errors."""
    low = float(np.nanmin(accuracy.mean - accuracy.standard_error))
    x_low, x_high = min(accuracy.biases), max(accuracy.biases)
    pad = 0.06 * (x_high - x_low) or 0.01
    plot = Plot(
        Axis(x_low - pad, x_high + pad, "colour bias of the training set"),
        Axis(max(0.0, min(low - 0.03, 0.9)), 1.0, "balanced accuracy", percent=True),
    )
    order = np.argsort(accuracy.biases)
    x = plot.px(np.asarray(accuracy.biases)[order])
    body = ""
    for column, style in enumerate(styles):
        mean, error = accuracy.mean[order, column], accuracy.standard_error[order, column]
        y = plot.py(mean)
        body += svg.polyline(x, y, f"line {style}") + svg.dots(x, y, f"dots big {style}")
        ends = zip(x, plot.py(mean - error), plot.py(mean + error), strict=True)
        bars = "".join(f"M{a:.1f} {b:.1f}V{c:.1f}" for a, b, c in ends)
        body += f'<path class="line {style}" d="{bars}"/>'
    return plot.svg(plot.axes() + body, "Balanced accuracy over colour bias")
