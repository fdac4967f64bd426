"""What all commands share: errors in one line, progress on terminals and elsewhere, stopping."""

from __future__ import annotations

import io
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType, TracebackType
from typing import TYPE_CHECKING, Any, Self

import typer
import typer.core

from qdgs_jax.ports.errors import printable

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress, TaskID
    from rich.table import Table

    from qdgs_jax.runs.folder import Row

BAD_INPUT = 2
FAILURE = 1
SIGNALLED = 128  # as shells report a program that a signal ended, plus the signal's number
LATER = 0.05  # seconds from an interrupt that comes at a bad time to the next try
WIDEST = 1000  # characters of a line of a table where there is no terminal
PLAIN_EVERY = 10.0  # seconds between lines of progress where there is no terminal


def console(*, stderr: bool = False) -> Console:
    """Open a console that writes plain text where there is no terminal."""
    from rich.console import Console

    return Console(stderr=stderr, highlight=False, soft_wrap=True)


def say(text: str, style: str = "") -> None:
    """Print a line; it may contain brackets."""
    console().print(text, style=style, markup=False)


def show_table(title: str, header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table whose first column names its rows and whose others hold numbers.

    One that is wider than the terminal is turned, where that makes it narrower.
    """
    from rich.table import Table
    from rich.text import Text

    screen = console()
    if screen.is_terminal:
        header, rows = turned_to_fit(header, rows, screen.width)
    table = Table(title=Text(title), title_justify="left")
    for number, name in enumerate(header):
        table.add_column(Text(name), justify="right" if number else "left", overflow="fold")
    for row in rows:
        table.add_row(*map(Text, row))
    print_table(table)


def turned_to_fit(
    header: Sequence[str], rows: Sequence[Sequence[str]], width: int
) -> tuple[Sequence[str], Sequence[Sequence[str]]]:
    """A table as it is, or with its columns as rows, if it is too wide and narrower so.

    Args:
        header: a name per column; lines of a name are joined where it comes to name a row.
        rows: a text per column.
        width: characters that fit.
    """
    as_it_is = _width([header, *rows])
    names = [" ".join(name.split("\n")) for name in header]
    columns = list(zip(*rows, strict=True))
    if as_it_is <= width or not columns:
        return header, rows
    turned_header = [names[0], *columns[0]]
    turned = [[name, *cells] for name, cells in zip(names[1:], columns[1:], strict=True)]
    if _width([turned_header, *turned]) >= as_it_is:
        return header, rows
    return turned_header, turned


def _width(lines: Sequence[Sequence[str]]) -> int:
    """Characters that a table takes, with its frame."""
    columns = zip(*lines, strict=True)
    return 1 + sum(3 + max(len(part) for text in c for part in text.split("\n")) for c in columns)


def print_table(table: Table) -> None:
    """Print a table, as wide as it is where there is no terminal that it has to fit into."""
    screen = console()
    if not screen.is_terminal:
        screen.width = WIDEST  # `print` takes no width beyond its console's
    screen.print(table)


class _Interrupts:
    """Remembers Ctrl-C, which libraries turn into errors of their own, such as a failed import.

    SIGTERM, by which a machine that is shut down ends programs, is handled alike. A compiled
    extension that is interrupted while it sets itself up can take the process down: there the
    signal is sent again a moment later.
    """

    came = False
    number: int = signal.SIGINT

    @property
    def exit_code(self) -> int:
        """What shells report of a program that the signal ended."""
        return SIGNALLED + self.number

    def note(self, number: int, frame: FrameType | None) -> None:
        """Handle the signal as Python handles Ctrl-C, and remember it."""
        self.came, self.number = True, number
        if _in_extension(frame):
            threading.Timer(LATER, os.kill, (os.getpid(), number)).start()
        else:
            raise KeyboardInterrupt


def _in_extension(frame: FrameType | None) -> bool:
    """Whether a compiled extension is being imported."""
    while frame is not None:
        if frame.f_code.co_qualname.startswith("ExtensionFileLoader."):
            return True
        frame = frame.f_back
    return False


_interrupts = _Interrupts()


def note_interrupts() -> None:
    """Remember Ctrl-C and SIGTERM from now on; one that the process was told to ignore is not."""
    usual = {signal.SIGINT: signal.default_int_handler, signal.SIGTERM: signal.SIG_DFL}
    for number, handler in usual.items():
        if signal.getsignal(number) is handler:
            signal.signal(number, _interrupts.note)


def stopped(hint: str) -> typer.Exit:
    """Say that somebody stopped the command and how to go on, and return what ends it."""
    console(stderr=True).print(f"stopped: {hint}", style="red", markup=False)
    return typer.Exit(_interrupts.exit_code)


@contextmanager
def if_stopped(hint: Callable[[], str]) -> Iterator[None]:
    """Say on Ctrl-C and SIGTERM what was kept and how to go on, and end the command.

    Raises:
        typer.Exit: somebody stopped it.
    """
    try:
        yield
    except typer.Exit:  # it was said already
        raise
    except (KeyboardInterrupt, Exception) as error:
        if not (isinstance(error, KeyboardInterrupt) or _interrupts.came):
            raise
        raise stopped(hint()) from None


def set_up_environment() -> None:
    """Tell libraries what users of the command line want; their own settings come first.

    Compiled programs are kept between processes, where JAX_COMPILATION_CACHE_DIR says; each CPU
    core is a device, on which classifiers train side by side; and transformers does not mention
    that PyTorch is missing: only its tokenizers are used.
    """
    base = _cache_folder()
    if base is not None:
        os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(base / "qdgs-jax" / "compiled"))
    os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.5")
    os.environ.setdefault("JAX_NUM_CPU_DEVICES", str(os.cpu_count() or 1))
    os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")


def _cache_folder() -> Path | None:
    """Where programs keep what they can make again; None for a user without a home."""
    if os.environ.get("XDG_CACHE_HOME"):
        return Path(os.environ["XDG_CACHE_HOME"])
    try:
        return Path.home() / ".cache"
    except RuntimeError:  # nobody said, and the system has no entry of the user
        return None


def show_any_text() -> None:
    """Write what the output's encoding has no letters for as escapes, rather than fail."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper) and not stream.encoding.lower().startswith("utf"):
            stream.reconfigure(errors="backslashreplace")


class Commands(typer.core.TyperGroup):
    """Commands that say when Ctrl-C ended them; typer would end them without a word."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command of a context."""

        def hint() -> str:
            name = f"qdgs {ctx.invoked_subcommand or ''}".rstrip()
            return f"`{name}` did not finish; the same command begins again"

        with if_stopped(hint):
            try:
                return super().invoke(ctx)
            except typer.BadParameter as error:
                error.message = _of_option(error)
                raise


def _of_option(error: typer.BadParameter) -> str:
    """What is wrong with an option's value, where pydantic found it in words of its own."""
    found = error.__cause__
    if not isinstance(found, ValueError) or not hasattr(found, "errors"):
        return error.message
    from qdgs_jax.runs.config_errors import allowed

    detail = found.errors()[0]
    return f"{detail['input']} {allowed(detail)}"


def guarded(command: Callable[[], object]) -> int:
    """Run a command and return its exit code.

    What the user can mend is one line without a traceback: errors that this package raises about
    its input (2) and failures of the machine such as a full disk (1). Anything else is a defect
    and keeps its traceback, as everything does when QDGS_DEBUG is set.
    """
    try:
        command()
    except (KeyboardInterrupt, Exception) as error:
        if isinstance(error, KeyboardInterrupt) or _interrupts.came:
            console(stderr=True).print("stopped", style="red")
            return _interrupts.exit_code
        if not isinstance(error, ValueError | RuntimeError | OSError):
            raise
        expected = isinstance(error, OSError) or _is_ours(error.__traceback__)
        if not expected or os.environ.get("QDGS_DEBUG"):
            raise
        message = "\n".join(map(printable, _in_words(error).split("\n")))
        console(stderr=True).print(f"error: {message}", style="red", markup=False)
        return BAD_INPUT if isinstance(error, ValueError) else FAILURE
    except SystemExit as stop:
        return stop.code if isinstance(stop.code, int) else FAILURE
    return 0


def _in_words(error: Exception) -> str:
    """What an error says; of one of the system, the file and the reason, without its number."""
    if not isinstance(error, OSError) or not error.strerror:
        return str(error)
    named = isinstance(error.filename, str | Path)
    return f"{error.filename}: {error.strerror}" if named else error.strerror


def _is_ours(trace: TracebackType | None) -> bool:
    """Whether an error was raised by a line of this package."""
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    name = trace.tb_frame.f_globals.get("__name__", "") if trace else ""
    return bool(name.partition(".")[0] == "qdgs_jax")


class Stopping:
    """Turns Ctrl-C (and SIGTERM) into a wish that a loop can ask about; a second one stops at once.

    Used as a context manager; `requested` is what `run_search` wants as `should_stop`. `when` says
    in words when the loop will ask.
    """

    def __init__(self, when: str = "after this chunk") -> None:
        self._wished = False
        self._when = when

    def __enter__(self) -> Self:
        self._before = {s: signal.signal(s, self._note) for s in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        _interrupts.number = number
        if self._wished:
            raise KeyboardInterrupt
        self._wished = True
        print(f"\nstopping {self._when}; once more stops at once", file=sys.stderr, flush=True)

    def requested(self) -> bool:
        """Whether somebody asked to stop."""
        return self._wished


class SearchProgress:
    """Shows how far a search is: a bar on a terminal, a line now and then elsewhere."""

    def __init__(self, name: str, budget: int, bar: Progress | None) -> None:
        self._name = name
        self._budget = budget
        self._bar = bar
        self._task: TaskID | None = None
        self._first: tuple[float, float] | None = None  # when a row came first, its evaluations
        self._last_line: float | None = None
        if bar is not None:
            self._task = bar.add_task(name, total=budget, figures="")

    def show(self, row: Row) -> None:
        """Tell the metrics of a chunk."""
        now = time.monotonic()
        figures = f"coverage {100 * row['coverage']:.1f} %  QD-score {row['qd_score']:,.0f}"
        if self._first is None:
            if row["step"]:  # the time before went into compilation
                self._first = (now, row["evaluations"])
        elif now > self._first[0]:
            rate = (row["evaluations"] - self._first[1]) / (now - self._first[0])
            figures = f"{rate:,.0f}/s  {figures}"
        if self._bar is not None and self._task is not None:
            self._bar.update(self._task, completed=row["evaluations"], figures=figures)
        elif (
            self._last_line is None
            or now - self._last_line >= PLAIN_EVERY
            or row["evaluations"] >= self._budget
        ):
            self._last_line = now
            say(f"{self._name}: {row['evaluations']:,}/{self._budget:,} evaluations  {figures}")

    def tell(self, text: str) -> None:
        """Say something in words, beside the figures."""
        self._print(f"{self._name}: {text}")

    def warn(self, text: str) -> None:
        """Say what is doubtful, beside the figures."""
        self._print(f"warning: {self._name}: {text}", "yellow")

    def _print(self, text: str, style: str = "") -> None:
        screen = console() if self._bar is None else self._bar.console
        screen.print(text, style=style, markup=False)


@contextmanager
def search_progress(name: str, budget: int) -> Iterator[SearchProgress]:
    """Show the progress of a search of so many evaluations."""
    screen = console()
    if not screen.is_terminal:
        yield SearchProgress(name, budget, None)
        return
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TextColumn("{task.fields[figures]}"),
    )
    with Progress(*columns, console=screen) as bar:
        yield SearchProgress(name, budget, bar)
