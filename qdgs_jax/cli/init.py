"""`qdgs init`: a run file to start from."""

from __future__ import annotations

import importlib.resources
import itertools
import shlex
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Annotated

import typer

from qdgs_jax.cli.console import say


def packaged_run(name: str) -> str:
    """Read a run file that the package carries.

    Raises:
        ValueError: there is none of that name.
    """
    known = packaged_names()
    if name not in known:
        raise ValueError(f"no packaged run file {name!r}: there are {', '.join(known)}.")
    return (_assets() / f"{name}.toml").read_text(encoding="utf-8")


def packaged_names() -> list[str]:
    """The names of the run files, and of the recipe, that the package carries."""
    return sorted(
        file.name.removesuffix(".toml") for file in _assets().iterdir() if file.name[-5:] == ".toml"
    )


def _assets() -> Traversable:
    return importlib.resources.files("qdgs_jax") / "assets"


def _list() -> None:
    """Say which run files there are, each by the first sentence of its comment."""
    for name in packaged_names():
        comment = itertools.takewhile(
            lambda line: line.startswith("#"), packaged_run(name).splitlines()
        )
        words = " ".join(line.lstrip("# ") for line in comment)
        say(f"{name}: {words.partition('. ')[0].rstrip('.')}.")
    say("`qdgs init NAME` writes one into this folder, `qdgs init NAME FILE` elsewhere")


def init(
    name: Annotated[
        str | None,
        typer.Argument(
            help="Which packaged run file: shapes, faces, faces-accelerator, drawn-faces; or the "
            "recipe recognition. Without, they are listed.",
            show_default=False,
        ),
    ] = None,
    file: Annotated[
        Path | None, typer.Argument(help="Where to write it.", show_default="NAME.toml")
    ] = None,
) -> None:
    """Copy a packaged run file, to be edited and searched."""
    if name is None:
        _list()
        return
    text = packaged_run(name)
    file = file or Path(f"{name}.toml")
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
