"""The page itself: what the templates need, in one file without outside parts.

Jinja2 escapes every text; only the charts' SVG, which escape their own, come in as markup.
"""

from __future__ import annotations

import importlib.resources
import itertools
from collections.abc import Sequence
from typing import Any

import jinja2
import numpy as np
from markupsafe import Markup

from qdgs_jax.datasets.balance import Group, least_to_most
from qdgs_jax.experiments.protocol import Bars, Card, Section, Series
from qdgs_jax.report import charts
from qdgs_jax.report.colours import css_gradient
from qdgs_jax.report.contents import Arm, ReportData
from qdgs_jax.report.svg import MINUS, number

ROLES = ("run", "baseline")  # of the arms, in order
BALANCED = 0.9  # images of the smallest group for one of the largest, from which it is called even


def render(data: ReportData) -> str:
    """Write the whole page."""
    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(_template),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("page.html").render(
        title=f"QDGS run: {data.name}",
        style=Markup(_template("style.css")),
        gradient=css_gradient(),
        lead=_lead(data),
        cards=_cards(data),
        key=_key(data),
        balance=_balance(data),
        archives=_archives(data),
        atlases=_atlases(data),
        spread=_spread(data),
        curves=_curves(data),
        sections=[_section(section) for section in data.sections],
        run_file=data.run_file,
        provenance=data.provenance,
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
    if own.balance is not None:
        balance = own.balance
        beside = f"images: {balance.got:,} of {balance.asked:,}"
        if other is not None and other.balance is not None:
            beside += f"; {other.name}: {other.balance.ratio:.2f}"
        cards.append(Card("Smallest to largest group", f"{balance.ratio:.2f}", beside))
    for what, field, write in (
        ("QD-score", "qd_scores", lambda v: f"{v:,.0f}"),
        ("Coverage of the archive", "coverages", percent),
    ):
        if getattr(own, field).size:
            compared = other is not None and getattr(other, field).size
            beside = f"{other.name}: {write(getattr(other, field)[-1])}" if compared else ""
            cards.append(Card(what, write(getattr(own, field)[-1]), beside))
    return cards + [card for section in data.sections for card in section.cards]


def _key(data: ReportData) -> list[tuple[str, str]]:
    """Name and CSS class of each arm."""
    return list(zip([arm.name for arm in data.arms], charts.ARM_STYLES, strict=False))


def _balance(data: ReportData) -> dict[str, Any] | None:
    """Answers whether the data are balanced now; None where there is no data set."""
    own = data.arms[0]
    if own.balance is None:
        return None
    counted = [arm for arm in data.arms if arm.balance is not None]
    short = own.balance.short
    if short:
        answer = f"No: {len(short)} of {len(own.balance.groups)} groups are short."
    elif own.balance.ratio < BALANCED:
        answer = "Not quite: every group has what was asked, but some have more."
    else:
        answer = "Yes: every class has its share in every bin."
    rows = _balance_rows(data, "labels") + _balance_rows(data, "groups")
    names = list(dict.fromkeys(g.label for g in own.balance.labels))
    bars = Bars(
        "Share of each class",
        names,
        [
            Series(arm.name, role, _shares(arm, names))
            for arm, role in zip(data.arms, ROLES, strict=False)
            if arm.balance is not None
        ],
    )
    return {
        "answer": answer,
        "header": ["class", "bin", "asked", *(arm.name for arm in counted)],
        "rows": rows,
        "notes": [(arm.name, note) for arm in counted for note in arm.notes],
        "ratios": [
            f"{arm.name}: {least_to_most(arm.balance.groups):.2f}"
            for arm in counted
            if arm.balance is not None
        ],
        "bars": Markup(charts.bars(bars)),
    }


def _balance_rows(data: ReportData, field: str) -> list[dict[str, Any]]:
    tables: list[dict[tuple[str, str], Group]] = [
        {(g.label, g.bin): g for g in getattr(arm.balance, field)}
        for arm in data.arms
        if arm.balance is not None
    ]
    rows = []
    for place in dict.fromkeys(place for table in tables for place in table):
        found = [table.get(place) for table in tables]
        asked = next(group.asked for group in found if group is not None)
        rows.append(
            {
                "label": place[0],
                "bin": place[1] or "all",
                "asked": f"{asked:,}",
                "got": [
                    (f"{group.got:,}", group.got < group.asked) if group else ("0", asked > 0)
                    for group in found
                ],
            }
        )
    return rows


def _shares(arm: Arm, names: Sequence[str]) -> list[float]:
    if arm.balance is None:
        return [0.0] * len(names)
    counts = {group.label: group.got for group in arm.balance.labels}
    return [counts.get(name, 0) / max(arm.balance.got, 1) for name in names]


def _pairs(data: ReportData) -> list[tuple[int, int]]:
    return list(itertools.combinations(range(len(data.measures)), 2))


def _archives(data: ReportData) -> dict[str, Any]:
    found = np.concatenate([arm.elites.objectives for arm in data.arms])
    limits = (float(found.min()), float(found.max())) if found.size else (0.0, 1.0)
    rows = [
        [
            {
                "title": arm.name,
                "picture": Markup(charts.heat_map(arm, data.measures, pair, limits)),
                "caption": charts.filled_places(arm, data.measures, pair),
            }
            for arm in data.arms
        ]
        for pair in _pairs(data)
    ]
    return {
        "rows": rows,
        "low": number(limits[0]),
        "high": number(limits[1]),
        "projected": len(data.measures) > 2,
    }


def _atlases(data: ReportData) -> list[Markup]:
    return [Markup(charts.atlas(picture, data.measures)) for picture in data.atlases]


def _spread(data: ReportData) -> dict[str, Any]:
    figures = [
        {
            "title": " and ".join(data.measures[i].name for i in pair),
            "picture": Markup(charts.scatter(data.arms, data.measures, pair)),
        }
        for pair in _pairs(data)
    ]
    figures += [
        {"title": m.name, "picture": Markup(charts.histogram(data.arms, data.measures, i))}
        for i, m in enumerate(data.measures)
    ]
    generated = all(arm.data is not None for arm in data.arms)
    return {"figures": figures, "generated": generated}


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
    series = dict.fromkeys(
        (s.name, charts.ROLE_STYLES[s.role])
        for chart in (*section.lines, *section.bars)
        for s in chart.series
    )
    figures = [{"title": c.title, "picture": Markup(charts.lines(c))} for c in section.lines]
    figures += [
        {"title": c.title, "picture": Markup(charts.bars(c)), "caption": c.caption}
        for c in section.bars
    ]
    tables = [
        {
            "title": table.title,
            "header": table.header,
            "rows": [[cell.replace("-", MINUS) for cell in row] for row in table.rows],
        }
        for table in section.tables
    ]
    return {
        "title": section.title,
        "words": section.words,
        "key": list(series),
        "tables": tables,
        "figures": figures,
    }
