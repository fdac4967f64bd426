"""Notebooks run without Jupyter: cells in order, in one namespace, in the current folder.

Of what IPython adds to Python, `!qdgs ...` and `%%writefile NAME` are understood.
"""

from __future__ import annotations

import ast
import json
import shlex
from pathlib import Path
from typing import Any

from qdgs_jax.cli import main

_COMMAND = "!qdgs "
_FILE = "%%writefile "


def code_cells(notebook: Path) -> list[str]:
    """Sources of a notebook's code cells."""
    cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    return ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]


def run_notebook(notebook: Path) -> dict[str, Any]:
    """Run a notebook and return its names."""
    names: dict[str, Any] = {"__name__": "__main__", "_qdgs": qdgs}
    for number, cell in enumerate(code_cells(notebook), 1):
        if cell.startswith(_FILE):
            head, _, text = cell.partition("\n")
            Path(head.removeprefix(_FILE)).write_text(text + "\n", encoding="utf-8")
            continue
        code = ast.parse(plain_python(cell), f"{notebook.name}, code cell {number}")
        exec(compile(code, f"{notebook.name}, code cell {number}", "exec"), names)
    return names


def plain_python(cell: str) -> str:
    """A cell whose command lines are calls of `_qdgs`."""
    lines = (
        f"_qdgs({line[1:]!r})" if line.startswith(_COMMAND) else line for line in cell.split("\n")
    )
    return "\n".join(lines)


def qdgs(line: str) -> None:
    """Run a command line of the program in this process; it must succeed."""
    program, *arguments = shlex.split(line)
    try:
        main(arguments)
    except SystemExit as end:
        if end.code:
            raise AssertionError(
                f"{program} {shlex.join(arguments)} ended with {end.code}"
            ) from None
