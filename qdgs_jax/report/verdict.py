"""The head of the page: whether the data are balanced now, by class and bin, arm beside arm."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from qdgs_jax.datasets.balance import Balance, Group, least_to_most
from qdgs_jax.report.contents import Arm, ReportData

BALANCED = 0.9  # images of the smallest group for one of the largest, from which it is called even
SHOWN = 24  # groups that the table shows; more are folded away


def verdict(data: ReportData) -> dict[str, Any] | None:
    """Answers whether the data are balanced now; None where there is no data set."""
    own = data.arms[0].balance
    if own is None:
        return None
    counted = [(arm, arm.balance) for arm in data.arms if arm.balance is not None]
    groups = _rows([balance.groups for _, balance in counted])
    return {
        "answer": answer(own),
        "header": ["class", "bin", "asked", *(arm.name for arm, _ in counted)],
        "styles": [style for arm, style in zip(data.arms, "ab", strict=False) if arm.balance],
        "labels": _rows([balance.labels for _, balance in counted]),
        "groups": groups,
        "folded": len(groups) > SHOWN,
        "notes": [(arm.name, note) for arm, _ in counted for note in arm.notes],
        "arms": [_figures(arm, balance, asked=arm is data.arms[0]) for arm, balance in counted],
    }


def answer(balance: Balance) -> str:
    """Whether a data set is balanced, in a sentence."""
    short, uneven = balance.short, balance.uneven
    if uneven is not None:
        even = least_to_most(balance.labels) >= BALANCED
        return f"{'Nearly' if even else 'No'}: {uneven}."
    if not short and balance.ratio >= BALANCED:
        return "Yes: every class has its share in every bin."
    if not short:
        return "Not quite: every group has what was asked, but some have more."
    worst = min(short, key=lambda group: group.got / max(group.asked, 1))
    named = f"{worst.label} ({worst.bin}) with {worst.got:,} of {worst.asked:,}"
    verb = "is" if len(short) == 1 else "are"
    count = f"{len(short)} of {len(balance.groups)} groups {verb} short, most of all {named}."
    return f"{'Nearly' if balance.ratio >= BALANCED else 'No'}: {count}"


def _figures(arm: Arm, balance: Balance, asked: bool) -> dict[str, str]:
    """What a card says of a data set; nothing is asked of a baseline, which is there to compare."""
    figures = [f"classes alone: {least_to_most(balance.labels):.2f}"]
    if asked:
        figures.append(f"groups short: {len(balance.short)} of {len(balance.groups)}")
        figures.append(f"images: {balance.got:,} of {balance.asked:,} asked")
    else:
        figures.append(f"images: {balance.got:,}")
    return {
        "name": arm.name,
        "groups": f"{least_to_most(balance.groups):.2f}",
        "beside": "; ".join(figures),
    }


def _rows(columns: Sequence[Sequence[Group]]) -> list[dict[str, Any]]:
    """A row per group: what was asked and what each arm got, also as shares of the most.

    Only the first arm can be short of a group: nothing is asked of a baseline.
    """
    tables = [{(group.label, group.bin): group for group in column} for column in columns]
    places = dict.fromkeys(place for table in tables for place in table)
    most = max((max(g.got, g.asked) for column in columns for g in column), default=0) or 1
    rows = []
    for place in places:
        found = [table.get(place) for table in tables]
        asked = next(group.asked for group in found if group is not None)
        counts = [0 if group is None else group.got for group in found]
        rows.append(
            {
                "label": place[0],
                "bin": place[1] or "all",
                "asked": f"{asked:,}",
                "mark": f"{asked / most:.4f}",
                "got": [
                    (f"{got:,}", number == 0 and got < asked, f"{got / most:.4f}")
                    for number, got in enumerate(counts)
                ],
            }
        )
    return rows
