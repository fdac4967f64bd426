"""What every table of a run file has in common."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from qdgs_jax.runs.config_errors import error_lines


class Table(BaseModel):
    """A table of the run file: immutable, no unknown fields, no silent conversion of types."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    def __init__(self, **values: Any) -> None:
        """Make a table in Python.

        Raises:
            ValueError: one line for each value that is wrong or unknown.
        """
        try:
            super().__init__(**values)
        except ValidationError as error:
            kind = type(self)
            lines = [f"{kind.__name__}: {line}" for line in error_lines(error, kind)]
            if any(detail["type"] == "extra_forbidden" for detail in error.errors()):
                lines.append(f"{kind.__name__} takes {', '.join(kind.model_fields)}.")
            raise ValueError("\n".join(lines)) from None

    __init__.__pydantic_base_init__ = True  # type: ignore[attr-defined] # not for reading files
