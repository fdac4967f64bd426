"""The command line `qdgs`: one file per group of commands.

Nothing heavy is imported before a command needs it, so that `qdgs --help` answers at once.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Annotated

import typer

from qdgs_jax.cli import (
    audit,
    compile,
    demo,
    generate,
    import_faces,
    init,
    port,
    report,
    search,
    train,
)
from qdgs_jax.cli.console import (
    Commands,
    guarded,
    note_interrupts,
    set_up_environment,
    show_any_text,
)

app = typer.Typer(
    name="qdgs",
    cls=Commands,
    help="Quality-Diversity Generative Sampling: from a biased generator to a balanced data set.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(wanted: bool) -> None:
    if wanted:
        from qdgs_jax import __version__

        typer.echo(f"qdgs-jax {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_print_version, is_eager=True, help="Show the version."),
    ] = False,
) -> None:
    pass


app.command()(demo.demo)
app.command()(init.init)
app.command()(search.search)
app.command()(generate.generate)
app.command()(audit.audit)
app.command()(train.train)
app.command()(report.report)
app.command()(port.port)
app.command("compile")(compile.compile_run)
app.add_typer(import_faces.app, name="import")


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line with these arguments; None takes the process's own."""
    show_any_text()
    set_up_environment()
    note_interrupts()
    sys.exit(guarded(lambda: app(arguments)))
