"""TOML text from plain values; Python reads TOML but does not write it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any


def to_toml(table: Mapping[str, Any]) -> str:
    """Write a table of values, lists of values, tables of these and lists of such tables."""
    return "\n".join(_lines(table)) + "\n"


def _lines(table: Mapping[str, Any]) -> Iterator[str]:
    tables = {k: v for k, v in table.items() if isinstance(v, Mapping)}
    arrays = {k: v for k, v in table.items() if is_array_of_tables(v)}
    for key, value in table.items():
        if key not in tables and key not in arrays:
            yield f"{key} = {toml_value(value)}"
    for key, value in table.items():
        for row in (value,) if key in tables else arrays.get(key, ()):
            yield ""
            yield f"[{key}]" if key in tables else f"[[{key}]]"
            yield from _lines(row)


def is_array_of_tables(value: object) -> bool:
    """Whether TOML writes a value as [[tables]]."""
    return isinstance(value, list | tuple) and bool(value) and isinstance(value[0], Mapping)


def toml_value(value: object) -> str:
    """Write one value: a text, a truth value, a number or a list of these."""
    if isinstance(value, str):  # JSON's escapes are TOML's, but for the delete character
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    if isinstance(value, float):
        return repr(value)
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(toml_value, value))}]"
    return json.dumps(value)
