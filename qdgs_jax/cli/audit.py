"""`qdgs audit`: what is in a data set, beside random sampling and other data sets."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from qdgs_jax.cli.console import if_stopped, say, show_table
from qdgs_jax.cli.generate import counting

if TYPE_CHECKING:
    from qdgs_jax.experiments.audit_plan import Plan


def audit(
    shards: Annotated[
        Path, typer.Argument(help="A run folder, or a data set's folder.", metavar="SHARDS")
    ],
    against: Annotated[
        list[Path] | None,
        typer.Option(
            help="A further data set, or a folder of Parquet files with a column of images; can "
            "be given several times. The run's random sampling comes by itself.",
        ),
    ] = None,
    column: Annotated[
        list[str] | None,
        typer.Option(help="Also count the classes of a column, such as label."),
    ] = None,
    cross: Annotated[
        str | None,
        typer.Option(
            help="Attributes whose product is counted, such as skin,age.",
            show_default="those of the label measures",
        ),
    ] = None,
    judge: Annotated[
        str | None,
        typer.Option(
            help="embedded:NAME or the folder of a face_regressor that also tells groups."
        ),
    ] = None,
    run: Annotated[
        Path | None,
        typer.Option(
            help="Run folder or run file whose CLIP, groups and measures are used.",
            show_default="that of SHARDS",
        ),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder for the results.", show_default="RUN/audit")
    ] = None,
    paper: Annotated[
        bool, typer.Option("--paper", help="Show the paper's shares of faces beside.")
    ] = False,
) -> None:
    """Count groups of people or things in a data set, and how it spreads over the measures."""
    say(f"{shards}: reading the data")
    from qdgs_jax.experiments.audit_plan import plan_audit

    plan = plan_audit(
        shards,
        against or (),
        run=run,
        out=out,
        columns=column or (),
        cross=None if cross is None else [name.strip() for name in cross.split(",")],
        judge=judge,
        paper=paper,
    )
    with if_stopped(lambda: "nothing was written; the same command begins again"):
        count_groups(plan)


def count_groups(plan: Plan) -> None:
    """Look at the images of a plan, print the tables and keep the results."""
    from qdgs_jax.datasets.audit import write_audit
    from qdgs_jax.experiments.audit import make_audit
    from qdgs_jax.experiments.audit_section import audit_tables, failures, rarest_groups

    for place in plan.places:
        say(f"{place.name}: {place.pictures.count:,} images in {place.pictures.folder}")
    with counting("images looked at") as progress:
        found = make_audit(plan, progress)
    for shown in audit_tables(found):
        show_table(shown.title, shown.full_header, shown.rows)
    for line in rarest_groups(found):
        say(line)
    for line in failures(found):
        say(f"warning: {line}", "yellow")
    for hint in plan.hints:
        say(hint, "yellow")
    if plan.target is None:
        say("nothing was written: --out FOLDER keeps the results")
        return
    write_audit(plan.target, found)
    say(f"{plan.target}: shares.csv, spread.csv, audit.json")
