"""`qdgs report`: a finished run as one page."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from qdgs_jax.cli.console import if_stopped, say


def report(run: Annotated[Path, typer.Argument(help="A run folder.", metavar="RUN")]) -> None:
    """Write a finished run's report, one HTML file that needs no network."""
    say(f"{run}: reading what was found")
    from qdgs_jax.runs.folder import RunFolder

    RunFolder(run).check_finished()
    with if_stopped(lambda: "the report was not written; the same command begins again"):
        from qdgs_jax.report import build_report

        say(f"report: {build_report(run)}")
