"""The tables [audit.ATTRIBUTE] of a run file: groups of people or things, and texts for each."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, BeforeValidator, Field, PlainSerializer

from qdgs_jax.runs.config_errors import refuse, toml_value
from qdgs_jax.runs.tables import split_texts

GroupTexts = Annotated[
    tuple[str, ...],
    BeforeValidator(split_texts),
    PlainSerializer(" | ".join),
    Field(description="a text, or several separated by |"),
]
PRODUCT = "×"  # between the names of attributes that are counted together
Groups = dict[str, GroupTexts]  # of an attribute, by their names


def _tell_groups_apart(attributes: dict[str, Groups]) -> dict[str, Groups]:
    """Refuse attributes whose groups no image could be told apart by."""
    if not attributes:
        raise refuse("ATTRIBUTE is missing: give a table of groups, such as [audit.skin]")
    for name, groups in attributes.items():
        field = toml_value(name)[1:-1]
        if not name.strip() or "," in name or PRODUCT in name:
            raise refuse(
                "{field}: the name of an attribute must not be empty and has no comma and no "
                "{product}, which names products of attributes",
                field=field,
                product=PRODUCT,
            )
        if len(groups) < 2:
            raise refuse(
                "{field} has {got}: give at least two groups, a text for each",
                field=field,
                got=f"the single group {next(iter(groups))}" if groups else "no groups",
            )
        owner: dict[str, str] = {}
        for group, texts in groups.items():
            for text in texts:
                if text in owner:
                    raise refuse(
                        "{field}.{group} = {text}: {owner} has this text, too; the texts of an "
                        "attribute must differ",
                        field=field,
                        group=group,
                        text=toml_value(text),
                        owner=owner[text],
                    )
                owner[text] = f"{field}.{group}"
    return attributes


AuditTables = Annotated[dict[str, Groups], AfterValidator(_tell_groups_apart)]
