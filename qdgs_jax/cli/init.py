"""`qdgs init`: a run file to start from."""

from __future__ import annotations

import importlib.resources
import shlex
from pathlib import Path
from typing import Annotated

import typer

from qdgs_jax.cli.console import say


def packaged_run(name: str) -> str:
    """Read a run file that the package carries.

    Raises:
        ValueError: there is none of that name.
    """
    assets = importlib.resources.files("qdgs_jax") / "assets"
    known = sorted(a.name.removesuffix(".toml") for a in assets.iterdir() if a.name[-5:] == ".toml")
    if name not in known:
        raise ValueError(f"no packaged run file {name!r}: there are {', '.join(known)}.")
    return (assets / f"{name}.toml").read_text(encoding="utf-8")


def init(
    name: Annotated[
        str,
        typer.Argument(
            help="Which packaged run file: shapes, faces, faces-accelerator, drawn-faces; or the "
            "recipe recognition."
        ),
    ],
    file: Annotated[Path, typer.Argument(help="Where to write it.")],
) -> None:
    """Copy a packaged run file, to be edited and searched."""
    text = packaged_run(name)
    try:
        with file.open("x", encoding="utf-8") as stream:
            stream.write(text)
    except FileExistsError:
        raise ValueError(f"{file} exists already: give another name.") from None
    except FileNotFoundError:
        if file.parent.is_dir():  # one where files cannot be made
            raise
        raise ValueError(f"there is no folder {file.parent}: make it first.") from None
    given = shlex.quote(str(file))
    is_recipe = name == "recognition"
    use = f"train with it: `qdgs train DATA --config {given}`"
    say(f"wrote {file}; {use if is_recipe else f'search it with `qdgs search {given}`'}")
