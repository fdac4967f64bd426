"""What is wrong with a run file, one line each: the field, the value and what is allowed.

Pydantic finds the errors; here they get words that fit a file a person edits.
"""

from __future__ import annotations

import difflib
import json
import typing
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails, PydanticCustomError

ALLOWED = {  # what to say for each kind of error that pydantic finds; others keep its own words
    "int_type": "must be an integer",
    "int_parsing": "must be an integer",
    "int_from_float": "must be an integer",
    "float_type": "must be a number",
    "float_parsing": "must be a number",
    "string_type": "must be a text in quotes",
    "tuple_type": "must be a list",
    "model_type": "must be a table",
    "finite_number": "must be a finite number",
    "greater_than": "must be more than {gt}",
    "greater_than_equal": "must be at least {ge}",
    "less_than": "must be less than {lt}",
    "less_than_equal": "must be at most {le}",
    "multiple_of": "must be a multiple of {multiple_of}",
    "literal_error": "must be {expected}",
    "string_too_short": "must not be empty",
    "too_short": "must have at least {min_length} entries",
    "too_long": "must have at most {max_length} entries",
    "bool_type": "must be true or false",
    "dict_type": "must be a table",
    "model_attributes_type": "must be a table",
}
RENAMED = {"classifier": "repair"}  # tables that had another name


def refuse(message: str, **context: Any) -> PydanticCustomError:
    """Make an error for a validator to raise; `message` is a template over `context`."""
    return PydanticCustomError("refused", message, context or None)


def contradict(message: str, **context: Any) -> PydanticCustomError:
    """Like `refuse`, of fields in several tables, all of which the message names in full."""
    return PydanticCustomError("contradiction", message, context)


def error_lines(error: ValidationError, model: type[BaseModel]) -> list[str]:
    """Describe everything that is wrong, a line each.

    Args:
        error: what pydantic found.
        model: the model that was validated.
    """
    return [_line(d, model) for d in error.errors() if not _follows_from_others(d)]


def allowed(detail: ErrorDetails) -> str:
    """What may stand in place of a value that pydantic refused."""
    words = ALLOWED.get(detail["type"], detail["msg"])
    return words.format_map(detail.get("ctx", {})) if detail["type"] in ALLOWED else words


def is_recipe(table: Mapping[str, Any]) -> bool:
    """Whether a file is for `qdgs train --config`: it has such tables, and none of a run's."""
    return not is_run_file(table) and bool({"network", "head", "optimizer"} & table.keys())


def is_run_file(table: Mapping[str, Any]) -> bool:
    """Whether a file has a table that every run file has, and no recipe."""
    return bool({"domain", "objective", "measures", "search", "dataset"} & table.keys())


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Suggest the closest of the known names, if one is close."""
    close = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    return f'; did you mean "{close[0]}"?' if close else ""


def _follows_from_others(detail: ErrorDetails) -> bool:
    """Whether a list is called too short only because its entries were refused."""
    return detail["type"] == "too_short" and len(detail["input"]) >= detail["ctx"]["min_length"]


def toml_value(value: object) -> str:
    """Write a value as in a run file: a text, a truth value, a number or a list of these."""
    if isinstance(value, str):  # JSON's escapes are TOML's, but for the delete character
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    if isinstance(value, float):
        return repr(value)
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(toml_value, value))}]"
    return json.dumps(value, default=str)


def _line(detail: ErrorDetails, model: type[BaseModel]) -> str:
    """One error of pydantic's in our words: field, value, what is allowed."""
    location = _without_tags(model, detail["loc"])
    path = _path(location)
    kind = detail["type"]
    if kind == "contradiction":
        return detail["msg"]
    if kind == "missing":
        field = _fields(model, detail["loc"][:-1]).get(str(location[-1]))
        wanted = field.description if field else None
        return f"{path} is missing" + (f": give {wanted}" if wanted else "")
    if kind == "union_tag_not_found":
        tags = " or ".join(toml_value(tag) for tag in _tags(_kind_at(model, location)))
        return f"{path}.{detail['ctx']['discriminator'].strip(chr(39))} is missing: give {tags}"
    if kind == "union_tag_invalid":
        name = detail["ctx"]["discriminator"].strip("'")
        tags = " or ".join(toml_value(tag) for tag in _tags(_kind_at(model, location)))
        return f"{path}.{name} = {toml_value(detail['input'][name])}: must be {tags}"
    if kind == "extra_forbidden":
        name = str(location[-1])
        known = _fields(model, detail["loc"][:-1])
        hint = did_you_mean(name, known) or f"; known are {', '.join(known)}"
        if RENAMED.get(name) in known:
            hint = f"; it is called [{RENAMED[name]}]"
        return f"{path}: unknown field{hint}"
    words = allowed(detail)
    given = detail["input"]
    if isinstance(given, Mapping):  # said of a whole table: the text names the field
        return f"{path}.{words}" if path else words
    if kind == "refused" and isinstance(given, list | tuple) and _is_table(given):
        return f"{path}: {words}"
    return f"{path} = {toml_value(given)}: {words}"


def _is_table(rows: Sequence[object]) -> bool:
    return bool(rows) and isinstance(rows[0], Mapping)


def _path(location: Sequence[int | str]) -> str:
    path = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in location)
    return path.removeprefix(".")


# Where pydantic says that an error is: fields, places in lists, and the tags of unions.


def _walk(model: type[BaseModel], location: Sequence[int | str]) -> Iterator[tuple[bool, Any]]:
    """Follow a location: for each part, whether it is a tag, and the type that it leads to."""
    here: Any = model
    for part in location:
        tagged = _tags(here)
        if part in tagged:
            here = tagged[str(part)]
            yield True, here
            continue
        if isinstance(part, int):  # a list: go on with the type of its entries
            here = next(iter(typing.get_args(_unwrapped(here))), None)
        else:
            field = getattr(_unwrapped(here), "model_fields", {}).get(part)
            here = field.annotation if field else None
        yield False, here


def _without_tags(model: type[BaseModel], location: Sequence[int | str]) -> list[int | str]:
    steps = zip(location, _walk(model, location), strict=True)
    return [part for part, (is_tag, _) in steps if not is_tag]


def _fields(model: type[BaseModel], location: Sequence[int | str]) -> Mapping[str, FieldInfo]:
    """Find the fields of the table at a location; none where there is no table."""
    fields: Mapping[str, FieldInfo] = getattr(
        _unwrapped(_kind_at(model, location)), "model_fields", {}
    )
    return fields


def _kind_at(model: type[BaseModel], location: Sequence[int | str]) -> Any:
    """The type of what stands at a location."""
    return [model, *(kind for _, kind in _walk(model, location))][-1]


def _tags(kind: Any) -> dict[str, type[BaseModel]]:
    """The members of a union of tables by their literal `kind`; none of other types."""
    members = [m for m in typing.get_args(kind) if "kind" in getattr(m, "model_fields", {})]
    return {typing.get_args(m.model_fields["kind"].annotation)[0]: m for m in members}


def _unwrapped(kind: Any) -> Any:
    """The type itself, where it is annotated or may be None."""
    if typing.get_origin(kind) is typing.Annotated:
        return _unwrapped(typing.get_args(kind)[0])
    members = [member for member in typing.get_args(kind) if member is not type(None)]
    optional = type(None) in typing.get_args(kind) and len(members) == 1
    return _unwrapped(members[0]) if optional else kind
