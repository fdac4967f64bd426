"""`qdgs generate`: from a finished search to labelled data sets."""

from __future__ import annotations

import contextlib
import shlex
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from qdgs_jax.cli.console import PLAIN_EVERY, console, if_stopped, print_table, say
from qdgs_jax.cli.search import load

if TYPE_CHECKING:
    from qdgs_jax.datasets.balance import Balance
    from qdgs_jax.datasets.manifest import Manifest
    from qdgs_jax.domains.protocol import Domain
    from qdgs_jax.runs.folder import RunFolder

OF_BASELINE = "random samples are what the generator draws by itself, there to compare with"


def generate(
    run: Annotated[Path, typer.Argument(help="A run folder.", metavar="RUN")],
    out: Annotated[
        Path | None,
        typer.Option(
            help="Folder for the run's data set alone: its card, and the shards in OUT/data.",
            show_default="RUN",
        ),
    ] = None,
    images: Annotated[
        int | None, typer.Option(min=1, help="Instead of the run file's number of images.")
    ] = None,
    margin: Annotated[
        float | None, typer.Option(min=0.0, help="Instead of the run file's margin.")
    ] = None,
    strict: Annotated[
        bool, typer.Option("--strict", help="Write nothing where a class or bin would be short.")
    ] = False,
    plain: Annotated[
        bool,
        typer.Option(
            "--plain", help="An image per latent as it is drawn, though the run file has subjects."
        ),
    ] = False,
) -> None:
    """Decode a finished run's elites into a labelled, balanced data set.

    If it is stopped, the same command goes on after the last complete file.
    """
    say(f"{run}: reading the run")
    from qdgs_jax.runs.folder import RunFolder

    folder = RunFolder(run)
    folder.check_finished()
    given = {"images": images, "margin": margin}
    changes: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
    if plain:
        changes["subjects"] = None
    missing = missing_data_sets(folder, out)
    with if_stopped(lambda: _kept(folder, out)):
        domain = load(folder.config())
        write_data_sets(folder, domain, missing, out=out, changes=changes, strict=strict)


def missing_data_sets(folder: RunFolder, out: Path | None = None) -> list[RunFolder]:
    """The finished runs, a run and its baseline, whose data sets can be written.

    Args:
        folder: the run.
        out: folder for its data set alone, or None.

    Raises:
        ShardError: there are none: all data sets exist, or their places are taken.
    """
    from qdgs_jax.datasets.card import check_place
    from qdgs_jax.datasets.manifest import MANIFEST, ShardError

    finished = [folder] if out else [f for f in (folder, folder.baseline) if f.finished]
    missing = [f for f in finished if out or not (f.data / MANIFEST).exists()] or finished
    for each in missing:
        try:
            check_place(out or each.path)
        except ShardError as error:
            raise ShardError(f"{error} --out FOLDER says where else.") from None
    return missing


def write_data_sets(
    folder: RunFolder,
    domain: Domain[Any],
    missing: Sequence[RunFolder],
    *,
    out: Path | None = None,
    changes: Mapping[str, Any] | None = None,
    strict: bool = False,
) -> None:
    """Write the data sets that a run and its baseline lack, and say whether they are balanced.

    Args:
        folder: the run.
        domain: its generator and CLIP.
        missing: see `missing_data_sets`.
        out: folder for the run's data set; None for its own.
        changes: fields of the table [dataset] to change.
        strict: refuse a run's data set with short groups. A baseline's may have them: what the
            generator draws by itself is what it is compared by.
    """
    from qdgs_jax.datasets.generate import generate_dataset
    from qdgs_jax.datasets.manifest import unlike

    for each in missing:
        algorithm = each.config().search.algorithm
        root = out or each.path
        with counting(f"images of {algorithm}") as progress:
            manifest = generate_dataset(
                each,
                domain,
                progress,
                out=root,
                changes=changes,
                strict=strict and each is folder,
                tell=_Talk(algorithm).say,
            )
        show_manifest(root, algorithm, manifest)
    differ = None if out else unlike(folder.data, folder.baseline.data)
    if differ is not None:
        say(f"warning: {differ}", "yellow")


def _kept(folder: RunFolder, out: Path | None) -> str:
    """What there is of the data sets that were asked for, and how to get the rest."""
    from qdgs_jax.datasets.manifest import DATA, MANIFEST, PLAN

    roots = [out] if out is not None else [folder.path, folder.baseline.path]
    begun = [root / DATA for root in roots if (root / DATA / PLAN).is_dir()]
    if begun:
        shards = sum(len(list(place.glob("shard-*.parquet"))) for place in begun)
        places = " and ".join(map(str, begun))
        return f"{shards} files kept in {places}; the same command goes on from there"
    if out is not None:
        return f"nothing was written to {out}"
    kept = [str(f.data) for f in (folder, folder.baseline) if (f.data / MANIFEST).exists()]
    cure = f"`qdgs generate {shlex.quote(str(folder.path))}` writes what is missing"
    return f"{' and '.join(kept) or 'no data set'} kept; {cure}"


def show_manifest(root: Path, algorithm: str, manifest: Manifest) -> None:
    """Print what a data set holds, whether it is balanced, and what is doubtful about it."""
    from qdgs_jax.datasets.card import CARD
    from qdgs_jax.datasets.manifest import DATA

    say(f"{root / DATA}: {manifest.count} images of {algorithm}; {root / CARD} describes them")
    if manifest.balance is not None:
        show_balance(manifest.balance, algorithm)
    for note in manifest.notes:
        say(f"warning: {note}", "yellow")


def show_balance(balance: Balance, algorithm: str) -> None:
    """Print what was asked of each class and bin, and what it got."""
    from rich.table import Table
    from rich.text import Text

    from qdgs_jax.runs.tables import BASELINE

    title = Text(f"{algorithm}: images by class and bin")
    table = Table(title=title, title_justify="left")
    for name in ("class", "bin"):
        table.add_column(name)
    for name in ("asked", "got"):
        table.add_column(name, justify="right")
    for group in balance.labels:
        table.add_row(Text(group.label), "all", str(group.asked), str(group.got))
    table.add_section()
    for group in balance.groups:
        table.add_row(Text(group.label), Text(group.bin), str(group.asked), str(group.got))
    print_table(table)
    say(f"{balance.got} of {balance.asked} images; smallest to largest group {balance.ratio:.2f}")
    if balance.uneven is not None:
        say(f"the classes are not equally large: {balance.uneven}", "yellow")
    if balance.short:
        count = f"{len(balance.short)} of {len(balance.groups)} groups"
        cure = OF_BASELINE if algorithm == BASELINE else balance.cure
        say(f"{count} are short: {cure}", "yellow")


@contextlib.contextmanager
def counting(what: str) -> Iterator[Callable[[int, int], None]]:
    """Show how much is done: a bar on a terminal, a line now and then elsewhere."""
    screen = console()
    if not screen.is_terminal:
        say(f"{what} ...")
        yield _Lines(what).show
        return
    from rich.progress import Progress

    with Progress(console=screen, transient=True) as bar:
        task = bar.add_task(what, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


class _Talk:
    """Says what is being done: the first of its kind at once, others with some time between."""

    def __init__(self, what: str) -> None:
        self._what = what
        self._last: dict[str, float] = {}

    def say(self, text: str) -> None:
        """Tell what is done; texts are of a kind where they begin alike, up to the colon."""
        kind, now = text.partition(":")[0], time.monotonic()
        if now - self._last.get(kind, -PLAIN_EVERY) >= PLAIN_EVERY:
            self._last[kind] = now
            say(f"{self._what}: {text}")


class _Lines:
    """Progress as lines with some time between."""

    def __init__(self, what: str) -> None:
        self._what = what
        self._last = time.monotonic()

    def show(self, done: int, total: int) -> None:
        """Tell how much is done of how much."""
        if time.monotonic() - self._last >= PLAIN_EVERY:
            self._last = time.monotonic()
            say(f"{self._what}: {done:,}/{total:,}")
