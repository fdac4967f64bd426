"""`qdgs port`: a foreign checkpoint in, a model folder of ours out."""

from __future__ import annotations

import collections
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated

import typer

from qdgs_jax.cli.console import console, if_stopped, say
from qdgs_jax.ports.errors import printable
from qdgs_jax.ports.registry import PORTED

_LISTED = 8  # parts of a summary


def _known(kind: str) -> str:
    if kind not in PORTED:
        raise typer.BadParameter(f"{kind!r} is not one of {', '.join(map(repr, PORTED))}.")
    return kind


def port(
    kind: Annotated[
        str,
        typer.Argument(
            help=f"Which model it is: {', '.join(PORTED[:-1])} or {PORTED[-1]}.",
            metavar="KIND",
            callback=_known,
        ),
    ],
    source: Annotated[Path, typer.Argument(help="The checkpoint, a file or a folder.")],
    destination: Annotated[
        Path | None, typer.Argument(help="Folder to create; not needed with --describe.")
    ] = None,
    dtype: Annotated[
        str, typer.Option(help="Type of the parameters: float32, bfloat16 or float16.")
    ] = "float32",
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
    say(f"reading {source}")
    from rich.text import Text

    from qdgs_jax.ports import convert

    screen = console()
    with if_stopped(lambda: f"{destination} was not written; the same command begins again"):
        if screen.is_terminal:
            with screen.status("porting") as status:  # Text, for names of files may hold brackets
                summary = convert(
                    kind, source, destination, dtype, lambda line: status.update(Text(line))
                )
        else:
            summary = convert(kind, source, destination, dtype, say)
    say(f"{summary.layout}: {summary.parameters:,} parameters of {summary.dtype}")
    for name, value in summary.details.items():
        say(f"{name}: {printable(str(value))}")
    for name, reason in summary.assumed.items():
        say(f"assumed {name}: {printable(reason)}", style="yellow")
    if summary.ignored:
        say(f"not needed by the model: {_ignored(summary.ignored)}")
    if summary.elsewhere:
        say(f"left in the file: {_elsewhere(summary.elsewhere)}")
    say(f"wrote {summary.destination}")


def _ignored(names: Sequence[str]) -> str:
    """Names of tensors in short: those that end alike are counted."""
    groups: dict[str, list[str]] = collections.defaultdict(list)
    for name in names:
        groups[name.rpartition(".")[2]].append(name)
    return _listed(
        [
            f"{len(group)} x {ending}" if len(group) > 1 else group[0]
            for ending, group in groups.items()
        ]
    )


def _elsewhere(counts: Mapping[str, int]) -> str:
    return _listed([f"{part} ({_tensors(count)})" for part, count in counts.items()])


def _listed(parts: Sequence[str]) -> str:
    more = f" and {len(parts) - _LISTED} more" if len(parts) > _LISTED else ""
    return ", ".join(map(printable, parts[:_LISTED])) + more


def _tensors(count: int) -> str:
    return f"{count} tensor{'' if count == 1 else 's'}"


def _describe(source: Path) -> None:
    from qdgs_jax.ports import describe

    lines = [(printable(info.name) or "(unnamed)", info) for info in describe(source)]
    width = max((len(name) for name, _ in lines), default=0)
    for name, info in lines:
        shape = "x".join(map(str, info.shape)) or "scalar"
        say(f"{name:{width}}  {info.dtype:9} {shape}")
    say(_tensors(len(lines)))
