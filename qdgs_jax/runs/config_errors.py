"""What is wrong with a run file, one line each: the field, the value and what is allowed.

Pydantic finds the errors; here they get words that fit a file a person edits.
"""

from __future__ import annotations

import difflib
import typing
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails, PydanticCustomError

from qdgs_jax.runs.toml_text import is_array_of_tables, toml_value

ALLOWED = {  # what to say for each kind of error that pydantic finds; others keep its own words
    "int_type": "must be an integer",
    "float_type": "must be a number",
    "string_type": "must be a text in quotes",
    "tuple_type": "must be a list",
    "model_type": "must be a table",
    "finite_number": "must be a finite number",
    "greater_than": "must be more than {gt}",
    "greater_than_equal": "must be at least {ge}",
    "less_than": "must be less than {lt}",
    "less_than_equal": "must be at most {le}",
    "literal_error": "must be {expected}",
    "string_too_short": "must not be empty",
    "too_short": "must have at least {min_length} entries",
    "too_long": "must have at most {max_length} entries",
}


def refuse(message: str, **context: Any) -> PydanticCustomError:
    """Make an error for a validator to raise; `message` is a template over `context`."""
    return PydanticCustomError("refused", message, context or None)


def error_lines(error: ValidationError, model: type[BaseModel]) -> list[str]:
    """Describe everything that is wrong, a line each.

    Args:
        error: what pydantic found.
        model: the model that was validated.
    """
    return [_line(d, model) for d in error.errors() if not _follows_from_others(d)]


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Suggest the closest of the known names, if one is close."""
    close = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    return f'; did you mean "{close[0]}"?' if close else ""


def _follows_from_others(detail: ErrorDetails) -> bool:
    """Whether a list is called too short only because its entries were refused."""
    return detail["type"] == "too_short" and len(detail["input"]) >= detail["ctx"]["min_length"]


def _line(detail: ErrorDetails, model: type[BaseModel]) -> str:
    """One error of pydantic's in our words: field, value, what is allowed."""
    path = _path(detail["loc"])
    kind = detail["type"]
    if kind == "missing":
        *parents, name = detail["loc"]
        field = _fields(model, parents).get(str(name))
        wanted = field.description if field else None
        return f"{path} is missing" + (f": give {wanted}" if wanted else "")
    if kind == "extra_forbidden":
        *parents, name = detail["loc"]
        known = _fields(model, parents)
        hint = did_you_mean(str(name), known) or f"; known are {', '.join(known)}"
        return f"{path}: unknown field{hint}"
    allowed = detail["msg"]
    if kind in ALLOWED:
        allowed = ALLOWED[kind].format_map(detail.get("ctx", {}))
    if isinstance(detail["input"], Mapping):  # said of a whole table: the text names the field
        return f"{path}.{allowed}" if path else allowed
    if kind == "refused" and is_array_of_tables(detail["input"]):
        return f"{path}: {allowed}"
    return f"{path} = {toml_value(detail['input'])}: {allowed}"


def _path(location: Sequence[int | str]) -> str:
    path = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in location)
    return path.removeprefix(".")


def _fields(model: type[BaseModel], location: Sequence[int | str]) -> Mapping[str, FieldInfo]:
    """Find the fields of the table at a location; none where there is no table."""
    here: Any = model
    for part in location:
        if isinstance(part, str):
            here = here.model_fields[part].annotation
        else:  # a list: go on with the type of its entries
            here = typing.get_args(here)[0]
    fields: Mapping[str, FieldInfo] = getattr(here, "model_fields", {})
    return fields
