"""Fenced blocks of the documentation, for the tests that run them.

A comment before a block says what is special about it; the reader of the page does not see it:

    <!-- snippet: skip because it needs a checkpoint that cannot be shared -->
    <!-- snippet: new -->

`new` begins a fresh namespace. What a page takes for granted stands in `tests/docs/preambles`, in a
file of the page's name, which is run at the start of every namespace.
"""

from __future__ import annotations

import contextlib
import dataclasses
import io
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from typer.main import get_command

from qdgs_jax.cli import app

ROOT = Path(__file__).resolve().parents[1]
PREAMBLES = ROOT / "tests" / "docs" / "preambles"

_FENCE = re.compile(r"^(?P<indent> *)```(?P<info>[^`\n]*)$")
_MARKER = re.compile(r"<!--\s*snippet:\s*(?P<text>(?:(?!-->).)*?)\s*-->\s*\Z", re.DOTALL)
_INLINE = re.compile(r"`(qdgs [^`]+)`")
_SHELL = ("", "sh", "bash", "console")
PLACEHOLDERS = {"KIND": "vae", "N": "1", "SEED": "0"}  # of words that are no paths


@dataclasses.dataclass(frozen=True)
class Block:
    """A fenced block.

    Attributes:
        page: the file, relative to the repository.
        line: number of its first line of text, from 1.
        language: the word after the fence, or "".
        text: what is inside.
        new: whether it begins a fresh namespace.
        skipped: why it is not run, or "".
    """

    page: str
    line: int
    language: str
    text: str
    new: bool = False
    skipped: str = ""

    @property
    def place(self) -> str:
        return f"{self.page}:{self.line}"


def pages() -> list[Path]:
    """Every page of the documentation."""
    return [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md"))]


def blocks(text: str, page: str) -> list[Block]:
    """Fenced blocks of a page, in order."""
    found: list[Block] = []
    lines = text.splitlines()
    number = 0
    while number < len(lines):
        fence = _FENCE.match(lines[number])
        number += 1
        if fence is None:
            continue
        start, indent = number, fence["indent"]
        while number < len(lines) and lines[number].strip() != "```":
            number += 1
        inside = "\n".join(line.removeprefix(indent) for line in lines[start:number])
        number += 1
        new, skipped = _marked("\n".join(lines[: start - 1]), f"{page}:{start}")
        language = (fence["info"].split() or [""])[0]
        found.append(Block(page, start + 1, language, inside, new, skipped))
    return found


def _marked(before: str, place: str) -> tuple[bool, str]:
    """Whether a block begins afresh and why it is skipped, from the comment before it."""
    marker = _MARKER.search(before)
    if marker is None:
        return False, ""
    text = " ".join(marker["text"].split())
    if text == "new":
        return True, ""
    if text.startswith("skip because ") and text != "skip because ":
        return False, text.removeprefix("skip because ")
    raise ValueError(f"{place}: {text!r} is no marker: give `new` or `skip because REASON`.")


def run_blocks(found: list[Block], preamble: str) -> None:
    """Run the Python of a page in order; line numbers of errors are the page's."""
    names: dict[str, Any] | None = None
    for block in found:
        if block.language != "python" or block.skipped:
            continue
        if names is None or block.new:
            names = {"__name__": "__main__"}
            exec(compile(preamble, f"preamble of {block.page}", "exec"), names)
        code = "\n" * (block.line - 1) + block.text
        exec(compile(code, block.page, "exec"), names)


def preamble_of(page: Path) -> Path:
    """Where a page's preamble is, if it has one."""
    name = page.relative_to(ROOT).with_suffix(".py").as_posix().removeprefix("docs/")
    return PREAMBLES / name


def commands(block: Block) -> Iterator[str]:
    """Command lines of a block of shell, without prompts, comments and what they are piped to."""
    if block.language not in _SHELL or block.skipped:
        return
    for line in block.text.replace("\\\n", " ").splitlines():
        for part in re.split(r"\s(?:\||\|\||&&|;|>)\s", line.strip().removeprefix("$ ")):
            words = re.sub(r"^(?:[A-Z_]+=\S+ )+", "", part)
            if words.startswith(("qdgs", "make", "python")):
                yield words


def inline_commands(text: str) -> list[str]:
    """Command lines of the program inside sentences."""
    outside = re.sub(r"^ *```.*?^ *```", "", text, flags=re.DOTALL | re.MULTILINE)
    return [" ".join(found.split()) for found in _INLINE.findall(outside)]


def check_command(line: str, complete: bool = True) -> None:
    """Check a line of `qdgs` against the program's commands and options.

    Args:
        line: the line; words in capitals stand for anything, [brackets] for what may be left out.
        complete: whether arguments that are required have to be there.

    Raises:
        ValueError: if the program would not take it.
    """
    plain = re.sub(r"[\[\]]|\.\.\.|…", " ", line)
    words = [word.split("|")[0] for word in shlex.split(plain, comments=True)][1:]
    if not words:
        return
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            _parser().main([PLACEHOLDERS.get(word, word) for word in words], standalone_mode=False)
    except Exception as error:
        if not hasattr(error, "format_message"):  # click's, of which typer may carry a copy
            raise
        if complete or type(error).__name__ != "MissingParameter":
            raise ValueError(f"`{line}`: {error.format_message()}") from None


def _parser() -> Any:
    """The program, whose commands take their arguments and do nothing."""
    program: Any = get_command(app)
    groups = [command for command in program.commands.values() if hasattr(command, "commands")]
    for group in (program, *groups):
        for command in group.commands.values():
            command.callback = lambda **_: None
    return program
