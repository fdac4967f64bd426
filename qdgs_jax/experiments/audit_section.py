"""An audit as tables for the terminal, and as a section of the report."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from qdgs_jax.datasets.audit import Attribute, Audit, Given, Tally
from qdgs_jax.experiments.protocol import Bars, Card, Section, Series, Table

NOTHING = "–"  # where a share is not known
POSITIONS = 10  # of images that could not be looked at, before they are only counted
WORDS = {  # who tells groups, in a title
    "CLIP": "by CLIP's nearest text",
    "oracle": "by an oracle",
    "column": "by a column",
}


def audit_tables(audit: Audit) -> list[Table]:
    """What a terminal shows: shares, a table per judge and kind, then the spread."""
    return [*_share_tables(audit), spread_table(audit)]


def audit_section(audit: Audit, stale: Sequence[str] = ()) -> Section:
    """What the report shows.

    Args:
        audit: what was counted.
        stale: names of data sets that were written anew after the audit.
    """
    counted = ", ".join(f"{each.name} ({each.images:,} images)" for each in audit.data_sets)
    words = f"Whom or what the images show, in per cent: {counted}."
    if any(each.by == "CLIP" for each in audit.attributes):
        words += (
            " CLIP chose the group whose texts are nearest, however near. It also guided the "
            "search, so it judges its own work."
        )
    if any(each.by == "oracle" for each in audit.attributes):
        words += " The oracle was trained without CLIP; unclear is what it cannot tell."
    words += " Spread is over the run's measures, evaluated again for every image."
    notes = failures(audit)
    notes += [f"{name} was written anew after the audit: `qdgs audit` again." for name in stale]
    return Section(
        title="Audit",
        words=" ".join([words, *notes]),
        cards=_cards(audit),
        tables=audit_tables(audit),
        bars=[_bars(audit, attribute) for attribute in audit.attributes],
    )


def failures(audit: Audit) -> list[str]:
    """Which images could not be looked at, a sentence per data set."""
    told = []
    for each in audit.data_sets:
        if each.failed:
            shown = ", ".join(map(str, each.failed[:POSITIONS]))
            more = len(each.failed) - POSITIONS
            shown += f" and {more:,} more" if more > 0 else ""
            told.append(
                f"{each.name}: {len(each.failed):,} of {each.images + len(each.failed):,} images "
                f"cannot be decoded or have another size, at {shown}."
            )
    return told


def rarest_groups(audit: Audit) -> list[str]:
    """The rarest group of each product, a sentence per data set."""
    told = []
    for attribute in audit.attributes:
        for each, tally in zip(audit.data_sets, attribute.tallies, strict=True):
            if attribute.product and tally is not None:
                group, share = attribute.groups[tally.rarest], tally.shares[tally.rarest]
                told.append(
                    f"{each.name}: rarest group of {attribute.name} {WORDS[attribute.by]} is "
                    f"{group}, {100 * share:.1f} %"
                )
    return told


def spread_table(audit: Audit) -> Table:
    """The spread over the measures: a row per data set and kind of place."""
    rows = [
        [
            each.name,
            f"{spread.covered:,} of {spread.places:,} {spread.over}",
            f"{spread.entropy:.3f}",
            f"{100 * spread.smallest / each.images:.1f}" if spread.where else NOTHING,
            spread.where or NOTHING,
        ]
        for each, spreads in zip(audit.data_sets, audit.spread, strict=True)
        for spread in spreads
    ]
    header = ["data set", "covered", "entropy", "smallest, %", "which is"]
    return Table("Spread over the measures", header, rows)


def _share_tables(audit: Audit) -> list[Table]:
    """A table per judge, one for its attributes and one for their product."""
    kinds = itertools.groupby(audit.attributes, key=lambda each: (each.by, each.product))
    return [_share_table(audit, by, list(members)) for (by, _), members in kinds]


def _share_table(audit: Audit, by: str, attributes: Sequence[Attribute]) -> Table:
    header, spans = ["data set", "images"], [("", 2)]
    for attribute in attributes:
        names = [*attribute.groups, *(["unclear"] if attribute.can_be_unclear else [])]
        header += names
        spans.append((attribute.name, len(names)))
    rows = [
        [
            each.name,
            f"{each.images:,}",
            *(cell for attribute in attributes for cell in _cells(attribute, number)),
        ]
        for number, each in enumerate(audit.data_sets)
    ]
    for given in audit.given if by != "column" else ():
        cells = [cell for attribute in attributes for cell in _given_cells(attribute, given)]
        if any(cell != NOTHING for cell in cells):
            rows.append([given.name, NOTHING, *cells])
    if len(attributes) == 1:
        return Table(f"Shares of {attributes[0].name} {WORDS[by]}, %", header, rows)
    return Table(f"Shares {WORDS[by]}, %", header, rows, spans)


def _cells(attribute: Attribute, number: int) -> list[str]:
    tally = attribute.tallies[number]
    if tally is None:
        return [NOTHING] * (len(attribute.groups) + attribute.can_be_unclear)
    return [f"{100 * share:.1f}" for share in _shares(attribute, tally)]


def _given_cells(attribute: Attribute, given: Given) -> list[str]:
    known = {} if attribute.product else given.shares.get(attribute.name, {})
    names = [*attribute.groups, *(["unclear"] if attribute.can_be_unclear else [])]
    return [f"{100 * known[name]:.1f}" if name in known else NOTHING for name in names]


def _shares(attribute: Attribute, tally: Tally) -> list[float]:
    return [*tally.shares, *([tally.unclear_share] if attribute.can_be_unclear else [])]


def _bars(audit: Audit, attribute: Attribute) -> Bars:
    series = [
        Series(each.name, each.role, tally.shares)
        for each, tally in zip(audit.data_sets, attribute.tallies, strict=True)
        if tally is not None
    ]
    unclear = [
        f"{100 * tally.unclear_share:.1f} % of {each.name}"
        for each, tally in zip(audit.data_sets, attribute.tallies, strict=True)
        if tally is not None and attribute.can_be_unclear
    ]
    caption = f"Unclear: {', '.join(unclear)}." if unclear else ""
    return Bars(f"{attribute.name}, {WORDS[attribute.by]}", attribute.groups, series, caption)


def _cards(audit: Audit) -> list[Card]:
    """The rarest group of each product, for the head of the report."""
    cards = []
    for attribute in audit.attributes:
        own = attribute.tallies[0]
        if not attribute.product or own is None:
            continue
        group = attribute.groups[own.rarest]
        others = [
            f"{each.name}: {100 * tally.shares[tally.rarest]:.1f} %"
            for each, tally in zip(audit.data_sets[1:], attribute.tallies[1:], strict=True)
            if tally is not None
        ]
        cards.append(
            Card(
                f"Rarest group of {attribute.name}, {WORDS[attribute.by]}",
                f"{100 * own.shares[own.rarest]:.1f} %",
                "; ".join([group, *others]),
            )
        )
    return cards
