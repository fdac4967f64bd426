"""The page itself: sections of HTML around the charts, in one file without outside parts."""

from __future__ import annotations

import importlib.resources
import itertools
import string
from collections.abc import Sequence
from html import escape

import numpy as np

from qdgs_jax.report import charts
from qdgs_jax.report.colours import css_gradient
from qdgs_jax.report.contents import Accuracy, Arm, ReportData
from qdgs_jax.report.svg import MINUS, number


def render(data: ReportData) -> str:
    """Write the whole page."""
    files = importlib.resources.files("qdgs_jax.report")
    page = string.Template(files.joinpath("page.html").read_text(encoding="utf-8"))
    sections = (
        _headline(data),
        _archives(data),
        _atlases(data),
        _spread(data),
        _progress(data),
        _accuracies(data),
        _particulars(data),
    )
    return page.substitute(
        title=escape(f"QDGS run: {data.name}"),
        style=files.joinpath("style.css").read_text(encoding="utf-8"),
        lead=escape(_lead(data)),
        main="\n".join(sections),
    )


def accuracy_styles(accuracy: Accuracy) -> list[str]:
    """Choose a CSS class per column: none first, the run's own last, the baseline between."""
    last = len(accuracy.arms) - 1
    return ["none" if i == 0 else "a" if i == last else "b" for i in range(last + 1)]


def percent(share: float, digits: int = 1) -> str:
    """Write a share in percent."""
    return f"{100 * share:.{digits}f}\N{NARROW NO-BREAK SPACE}%"


def _lead(data: ReportData) -> str:
    own = data.arms[0]
    evaluations = int(own.evaluations[-1]) if own.evaluations.size else 0
    axes = " and ".join(f"{m.name} ({m.low_text} to {m.high_text})" for m in data.measures)
    text = (
        f"{own.algorithm} searched the generator's latents over {axes}, {evaluations:,} evaluations"
    )
    text += f" in {own.seconds:,.0f} s." if own.seconds else "."
    if len(data.arms) > 1:
        other = data.arms[1]
        spent = int(other.evaluations[-1]) if other.evaluations.size else 0
        text += f" Beside it: {other.name.lower()}, {spent:,} evaluations."
    return text


def _card(what: str, value: str, beside: str) -> str:
    return (
        f'<div class="card"><div class="what">{escape(what)}</div>'
        f'<div class="value">{escape(value)}</div><div class="beside">{escape(beside)}</div></div>'
    )


def _headline(data: ReportData) -> str:
    own, *others = data.arms
    other = others[0] if others else None
    cards = []
    for what, field, write in (
        ("QD-score", "qd_scores", lambda v: f"{v:,.0f}"),
        ("Coverage of the archive", "coverages", percent),
    ):
        if getattr(own, field).size:
            beside = f"{other.name}: {write(getattr(other, field)[-1])}" if other else ""
            cards.append(_card(what, write(getattr(own, field)[-1]), beside))
    if own.shares:
        group = min(own.shares, key=lambda g: own.shares[g])  # type: ignore[index]
        beside = f"{group}, as the oracle sees it"
        if other is not None and other.shares:
            beside += f"; {other.name}: {percent(min(other.shares.values()))}"
        cards.append(_card("Rarest group of the data set", percent(own.shares[group]), beside))
    if data.accuracy is not None:
        table = data.accuracy
        row = int(np.argmax(table.biases))
        cards.append(
            _card(
                f"Balanced accuracy at bias {table.biases[row]:g}",
                percent(table.mean[row, -1]),
                f"before: {percent(table.mean[row, 0])}",
            )
        )
    return f'<div class="cards">{"".join(cards)}</div>'


def _key(names: Sequence[str], styles: Sequence[str]) -> str:
    items = "".join(
        f'<li><i class="{style}"></i>{escape(name)}</li>'
        for name, style in zip(names, styles, strict=False)
    )
    return f'<ul class="key">{items}</ul>'


def _section(title: str, words: str, *parts: str) -> str:
    text = f"<p>{escape(words)}</p>" if words else ""
    return f"<section>\n<h2>{escape(title)}</h2>\n{text}\n{''.join(parts)}\n</section>"


def _figure(title: str, picture: str, caption: str = "") -> str:
    above = f"<h3>{escape(title)}</h3>" if title else ""
    below = f"<figcaption>{escape(caption)}</figcaption>" if caption else ""
    return f"<figure>{above}{picture}{below}</figure>"


def _grid(figures: Sequence[str]) -> str:
    return f'<div class="grid">{"".join(figures)}</div>'


def _pairs(data: ReportData) -> list[tuple[int, int]]:
    return list(itertools.combinations(range(len(data.measures)), 2))


def _archives(data: ReportData) -> str:
    found = np.concatenate([arm.objectives for arm in data.arms])
    limits = (float(found.min()), float(found.max())) if found.size else (0.0, 1.0)
    scale = (
        f'<div class="scale"><span>{number(limits[0])}</span>'
        f'<span class="bar" style="background:linear-gradient(90deg,{css_gradient()})"></span>'
        f"<span>{number(limits[1])} objective</span></div>"
    )
    parts = []
    for pair in _pairs(data):
        figures = [
            _figure(arm.name, charts.heat_map(arm, data.measures, pair, limits), _filled(arm, data))
            for arm in data.arms
        ]
        parts.append(_grid(figures))
    words = "Each cell shows the best objective found there; pale cells are empty."
    if len(data.measures) > 2:
        words += " Over a pair of measures, a cell shows the best along all the others."
    return _section("Archives", words, scale, *parts)


def _filled(arm: Arm, data: ReportData) -> str:
    total = int(np.prod([m.cells for m in data.measures]))
    return f"{len(arm.cells):,} of {total:,} cells hold an elite."


def _atlases(data: ReportData) -> str:
    if not data.atlases:
        return ""
    parts = [
        f'<div class="atlas">{_figure("", charts.atlas(picture, data.measures))}</div>'
        for picture in data.atlases
    ]
    words = (
        "What the generator draws at the archive's elites: in each place the elite with the "
        "highest objective."
    )
    return _section("Atlas of elites", words, *parts)


def _spread(data: ReportData) -> str:
    from_images = all(arm.dataset_measures is not None for arm in data.arms)
    what = "images of the generated data sets" if from_images else "elites of the archives"
    names = [arm.name for arm in data.arms]
    figures = [
        _figure(
            " and ".join(data.measures[i].name for i in pair),
            charts.scatter(data.arms, data.measures, pair),
        )
        for pair in _pairs(data)
    ]
    figures += [
        _figure(m.name, charts.histogram(data.arms, data.measures, i))
        for i, m in enumerate(data.measures)
    ]
    if any(arm.shares for arm in data.arms):
        unclear = ", ".join(f"{percent(a.unclear)} of {a.name}" for a in data.arms if a.shares)
        caption = f"Judged by an oracle that does not use CLIP; in no group: {unclear}."
        figures.append(_figure("Groups", charts.group_shares(data.arms), caption))
    words = f"How the {what} spread over the measures."
    return _section("Balance", words, _key(names, charts.ARM_STYLES), _grid(figures))


def _progress(data: ReportData) -> str:
    if not any(arm.evaluations.size for arm in data.arms):
        return ""
    figures = [
        _figure("QD-score", charts.curve(data.arms, "qd_scores", "QD-score")),
        _figure("Coverage", charts.curve(data.arms, "coverages", "coverage", percent=True)),
    ]
    names = [arm.name for arm in data.arms]
    return _section("Search", "", _key(names, charts.ARM_STYLES), _grid(figures))


def _accuracies(data: ReportData) -> str:
    table = data.accuracy
    if table is None:
        return ""
    styles = accuracy_styles(table)
    words = (
        "Balanced accuracy on drawn test images of classifiers trained on colour-biased drawings, "
        "before and after they were fine-tuned on a generated data set: mean ± standard error of "
        f"{table.seeds} seeds, in percent."
    )
    chart = _figure("", charts.accuracy_chart(table, styles))
    body = f'<div class="grid wide"><div class="table">{_accuracy_table(table)}</div>{chart}</div>'
    return _section("Classifiers", words, _key(table.arms, styles), body)


def _accuracy_table(table: Accuracy) -> str:
    head = "".join(f'<th scope="col">{escape(name)}</th>' for name in table.arms)
    rows = []
    for row in np.argsort(table.biases)[::-1]:
        styles = [
            'class="best"' if mean == table.mean[row].max() else "" for mean in table.mean[row]
        ]
        cells = "".join(
            f"<td {style}>{100 * mean:.1f} <small>± {100 * error:.1f}</small></td>"
            for style, mean, error in zip(
                styles, table.mean[row], table.standard_error[row], strict=True
            )
        )
        gain = f"{100 * (table.mean[row, -1] - table.mean[row, 0]):+.1f}"
        rows.append(
            f'<tr><th scope="row">{table.biases[row]:g}</th>{cells}'
            f"<td>{gain.replace('-', MINUS)}</td></tr>"
        )
    return (
        f'<table><thead><tr><th scope="col">Colour bias</th>{head}<th scope="col">Gain</th></tr>'
        f"</thead><tbody>{''.join(rows)}</tbody></table>"
    )


def _particulars(data: ReportData) -> str:
    rows = "".join(
        f'<tr><th scope="row">{escape(name)}</th><td>{escape(version)}</td></tr>'
        for name, version in data.versions.items()
    )
    return _section(
        "This run",
        "",
        f"<details><summary>Run file</summary><pre>{escape(data.run_file)}</pre></details>",
        "<details><summary>Versions</summary>"
        f'<div class="table"><table><tbody>{rows}</tbody></table></div></details>',
    )
