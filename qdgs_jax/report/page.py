"""The page itself: what the templates need, in one file without outside parts.

Jinja2 escapes every text; only the charts' SVG, which escape their own, come in as markup.
"""

from __future__ import annotations

import base64
import hashlib
import importlib.resources
import itertools
import math
import re
from collections.abc import Sequence
from typing import Any

import jinja2
import numpy as np
from markupsafe import Markup

from qdgs_jax.experiments.protocol import Card, Section
from qdgs_jax.report import boards, charts
from qdgs_jax.report.boards import Inspected
from qdgs_jax.report.colours import css_gradient
from qdgs_jax.report.contents import Arm, ReportData
from qdgs_jax.report.svg import MINUS, number
from qdgs_jax.report.verdict import verdict

MINUS_OF_NUMBER = re.compile(r"(?<![^\W_])-(?=\d)")  # no hyphen of a name


def render(data: ReportData) -> str:
    """Write the whole page."""
    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(_template),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    pairs = _pairs(data)
    shown = boards.inspect(data, pairs)
    script = _template("script.js")
    return environment.get_template("page.html").render(
        title=f"QDGS run: {data.name}",
        style=Markup(_template("style.css") + boards.styles(shown)),
        script=Markup(script),
        policy=_policy(script),
        gradient=css_gradient(),
        lead=_lead(data),
        cards=_cards(data),
        key=_key(data),
        balance=verdict(data),
        archives=_archives(data, shown),
        atlases=_atlases(data, shown),
        left_out=len(pairs) - len(data.atlases),
        spread=_spread(data),
        curves=_curves(data),
        scales=_scales(data),
        sections=[_section(section) for section in data.sections],
        files=[(arm.name, arm.files) for arm in data.arms if arm.files],
        run_file=data.run_file,
        provenance=data.provenance,
        panels=[panel for each in shown for panel in boards.panels(each, data.measures)],
        numbers=boards.numbers(shown, data.measures),
    )


def _policy(script: str) -> str:
    """What a browser may do on the page: run its one script; load nothing."""
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return (
        "default-src 'none'; img-src data:; style-src 'unsafe-inline'; "
        f"script-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
    )


def percent(share: float, digits: int = 1) -> str:
    """Write a share in per cent."""
    return f"{100 * share:.{digits}f}{charts.NARROW}%"


def _template(name: str) -> str:
    files = importlib.resources.files("qdgs_jax.report").joinpath("templates")
    return files.joinpath(name).read_text(encoding="utf-8")


def _lead(data: ReportData) -> str:
    own = data.arms[0]
    axes = " and ".join(f"{m.name} ({m.low_text} to {m.high_text})" for m in data.measures)
    text = f"{own.name} searched the generator's latents over {axes}, {_spent(own):,} evaluations"
    text += f" in {own.seconds:,.0f} s." if own.seconds else "."
    if len(data.arms) > 1:
        other = data.arms[1]
        text += f" Beside it: {other.name}, {_spent(other):,} evaluations."
    return text


def _spent(arm: Arm) -> int:
    return int(arm.evaluations[-1]) if arm.evaluations.size else 0


def _cards(data: ReportData) -> list[Card]:
    own, *others = data.arms
    other = others[0] if others else None
    cards = []
    for what, field, write in (
        ("QD-score", "qd_scores", lambda v: f"{v:,.0f}"),
        ("Coverage of the archive", "coverages", percent),
    ):
        if getattr(own, field).size:
            beside = ""
            if other is not None and getattr(other, field).size:
                beside = f"{other.name}: {write(getattr(other, field)[-1])}"
            cards.append(Card(what, write(getattr(own, field)[-1]), beside))
    return cards + [card for section in data.sections for card in section.cards]


def _scales(data: ReportData) -> dict[str, Any]:
    """What the scales of the search's figures mean for this run."""
    own = data.arms[0]
    cells = math.prod(measure.cells for measure in data.measures)
    if own.occupied is not None:  # not the maps' own
        cells = own.occupied[1]
    return {
        "cells": f"{cells:,}",
        "offset": number(data.qd_score_offset),
        "per_cell": number(float(own.qd_scores[-1]) / cells) if own.qd_scores.size else "",
        "name": own.name,
    }


def _key(data: ReportData) -> list[tuple[str, str]]:
    """Name and CSS class of each arm."""
    return list(zip([arm.name for arm in data.arms], charts.ARM_STYLES, strict=False))


def _pairs(data: ReportData) -> list[tuple[int, int]]:
    return list(itertools.combinations(range(len(data.measures)), 2))


def _archives(data: ReportData, shown: Sequence[Inspected]) -> dict[str, Any]:
    found = np.concatenate([arm.elites.objectives for arm in data.arms])
    limits = (float(found.min()), float(found.max())) if found.size else (0.0, 1.0)
    projected = len(data.measures) > 2
    rows = [
        [
            {
                "title": f"{arm.name}: {_over(data, pair)}" if projected else arm.name,
                "picture": Markup(charts.heat_map(each, data.measures, pair, limits)),
                "caption": charts.filled_places(arm, data.measures, pair),
            }
            for arm, each in zip(data.arms, shown, strict=True)
        ]
        for pair in _pairs(data)
    ]
    return {
        "rows": rows,
        "low": number(limits[0]),
        "high": number(limits[1]),
        "projected": projected,
    }


def _over(data: ReportData, pair: tuple[int, int]) -> str:
    return " and ".join(data.measures[i].name for i in pair)


def _atlases(data: ReportData, shown: Sequence[Inspected]) -> list[dict[str, Any]]:
    return [
        {
            "title": _over(data, picture.pair) if len(data.measures) > 2 else "",
            "picture": Markup(charts.atlas(picture, data.measures, shown[0])),
            "caption": charts.atlas_caption(picture),
        }
        for picture in data.atlases
    ]


def _spread(data: ReportData) -> dict[str, Any]:
    figures = [
        {
            "title": _over(data, pair),
            "picture": Markup(charts.scatter(data.arms, data.measures, pair)),
        }
        for pair in _pairs(data)
    ]
    figures += [
        {"title": m.name, "picture": Markup(charts.histogram(data.arms, data.measures, i))}
        for i, m in enumerate(data.measures)
    ]
    generated = all(arm.data is not None for arm in data.arms)
    objectives = {
        "title": "objective",
        "picture": Markup(charts.objectives(data.arms)),
        "caption": "Of the elites of each archive.",
    }
    return {"figures": figures, "generated": generated, "objectives": objectives}


def _curves(data: ReportData) -> list[dict[str, Any]]:
    if not any(arm.evaluations.size for arm in data.arms):
        return []
    return [
        {"title": title, "picture": Markup(charts.curve(data.arms, field, name, percent=share))}
        for title, field, name, share in (
            ("QD-score", "qd_scores", "QD-score", False),
            ("Coverage", "coverages", "coverage", True),
        )
    ]


def _section(section: Section) -> dict[str, Any]:
    drawn = [series for lines in section.lines for series in lines.series]
    drawn += [series for bars in section.bars for series in bars.series]
    styles = charts.series_styles(drawn)
    figures = [
        {"title": c.title, "picture": Markup(charts.lines(c, styles))} for c in section.lines
    ]
    figures += [
        {"title": c.title, "picture": Markup(charts.bars(c, styles)), "caption": c.caption}
        for c in section.bars
    ]
    tables = [
        {
            "title": table.title,
            "header": table.header,
            "spans": table.spans,
            "rows": [[MINUS_OF_NUMBER.sub(MINUS, cell) for cell in row] for row in table.rows],
        }
        for table in section.tables
    ]
    return {
        "title": section.title,
        "words": section.words,
        "key": [(name, styles[name]) for name in dict.fromkeys(each.name for each in drawn)],
        "tables": tables,
        "figures": figures,
    }
