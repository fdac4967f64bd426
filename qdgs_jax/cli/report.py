"""`qdgs report`: a finished run as one page."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from qdgs_jax.cli.console import say


def report(run: Annotated[Path, typer.Argument(help="A run folder.", metavar="RUN")]) -> None:
    """Write a finished run's report, one HTML file that needs no network."""
    from qdgs_jax.report import build_report

    say(f"report: {build_report(run)}")
