"""`qdgs port`: a foreign checkpoint in, a model folder of ours out."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from qdgs_jax.cli.console import console, say


def port(
    kind: Annotated[str, typer.Argument(help="Which model it is, for example vae.")],
    source: Annotated[Path, typer.Argument(help="The checkpoint, a file or a folder.")],
    destination: Annotated[
        Path | None, typer.Argument(help="Folder to create; not needed with --describe.")
    ] = None,
    dtype: Annotated[
        str | None, typer.Option(help="float32, bfloat16 or float16.  [default: float32]")
    ] = None,
    describe: Annotated[
        bool, typer.Option("--describe", help="List the checkpoint's tensors, convert nothing.")
    ] = False,
) -> None:
    """Convert a checkpoint of another framework; nothing in it is executed."""
    if describe:
        _describe(source)
        return
    if destination is None:
        raise typer.BadParameter("give a folder to write, or --describe", param_hint="destination")
    from qdgs_jax.ports import convert

    screen = console()
    if screen.is_terminal:
        with screen.status("porting") as status:
            summary = convert(kind, source, destination, dtype, status.update)
    else:
        summary = convert(kind, source, destination, dtype, say)
    say(f"{summary.layout}: {summary.parameters:,} parameters of {summary.dtype}")
    for name, value in summary.details.items():
        say(f"{name}: {value}")
    if summary.ignored:
        say(f"not needed by the model: {', '.join(summary.ignored)}")
    say(f"wrote {summary.destination}")


def _describe(source: Path) -> None:
    from qdgs_jax.ports import describe

    tensors = describe(source)
    width = max((len(tensor.name) for tensor in tensors), default=0)
    for tensor in tensors:
        shape = "x".join(map(str, tensor.shape)) or "scalar"
        say(f"{tensor.name:{width}}  {tensor.dtype:9} {shape}")
    say(f"{len(tensors)} tensors")
