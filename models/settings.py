"""Settings of networks as they stand in the config.json of a model folder."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

Config = TypeVar("Config")
DESCRIPTIONS = ("kind", "assumed")  # what a config.json may hold beside any network's settings


def known_settings(config: type, fields: Mapping[str, Any]) -> dict[str, Any]:
    """Check the settings for a config class, and leave out what only describes a file.

    Args:
        config: a dataclass.
        fields: its fields by name, and perhaps "kind" and "assumed".

    Raises:
        ValueError: if this is no table, a setting is unknown, or one without a default is missing.
    """
    if not isinstance(fields, Mapping):
        raise ValueError(f"the settings are a {type(fields).__name__}: give a table.")
    values = {name: value for name, value in fields.items() if name not in DESCRIPTIONS}
    known = {field.name: field.default for field in dataclasses.fields(config)}
    what = config.__name__.removesuffix("Config")
    if unknown := sorted(set(values) - set(known)):
        raise ValueError(f"unknown {what} settings {unknown}: remove them from the config.")
    needed = {name for name, default in known.items() if default is dataclasses.MISSING}
    if missing := sorted(needed - set(values)):
        raise ValueError(f"{what} settings {missing} are missing: add them to the config.")
    return values


def read_settings(config: type[Config], fields: Mapping[str, Any]) -> Config:
    """Make a config of plain values, as they come from JSON.

    Args:
        config: a frozen dataclass; its own `from_dict` is used where it has one.
        fields: its fields by name; lists stand for tuples.

    Raises:
        ValueError: as `known_settings`, or what the class says about a value.
    """
    own: Callable[[Mapping[str, Any]], Config] | None = getattr(config, "from_dict", None)
    if own is not None:
        return own(fields)
    values = known_settings(config, fields)
    return config(**{k: tuple(v) if isinstance(v, list) else v for k, v in values.items()})
