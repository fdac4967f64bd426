"""`qdgs import`: sets of real faces in the formats of other programs become shards."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from qdgs_jax.cli.console import if_stopped, say
from qdgs_jax.cli.generate import counting

if TYPE_CHECKING:
    from qdgs_jax.datasets.manifest import Manifest
    from qdgs_jax.ports.faces.pairs import FacePairs

app = typer.Typer(
    help="Turn sets of real faces into shards; nothing in them is executed.",
    no_args_is_help=True,
)
_SHARD_SIZE = 5000
GROUP_COLUMNS = "att1,att2"  # of BFW's lists
_Out = Annotated[Path, typer.Argument(help="Folder of the shards.", metavar="OUT")]
_SkipCorrupt = Annotated[
    bool, typer.Option("--skip-corrupt", help="Leave out what is damaged, and say what it was.")
]
_Side = Annotated[
    int | None,
    typer.Option(
        min=1,
        help="Pixels per side of the pictures; others are damage.",
        show_default="what most pictures have",
    ),
]
_ShardSize = Annotated[int, typer.Option(min=1, help="Images per shard.")]


@app.command()
def insightface(
    folder: Annotated[
        Path, typer.Argument(help="A folder with train.rec, or a .rec file.", metavar="FOLDER")
    ],
    out: _Out,
    side: _Side = None,
    skip_corrupt: _SkipCorrupt = False,
    shard_size: _ShardSize = _SHARD_SIZE,
) -> None:
    """Import InsightFace's RecordIO, such as MS1MV2; a stopped import goes on when repeated."""
    say(f"{folder}: reading the records")
    from qdgs_jax.datasets.real_faces import import_records

    with if_stopped(lambda: _kept(out)), counting("images") as progress:
        manifest = import_records(
            folder,
            out,
            side=side,
            skip_corrupt=skip_corrupt,
            shard_size=shard_size,
            progress=progress,
        )
    _show(out, manifest)


@app.command("folder")
def folder_of_images(
    folder: Annotated[
        Path,
        typer.Argument(help="A folder with a folder of images per identity.", metavar="FOLDER"),
    ],
    out: _Out,
    side: _Side = None,
    skip_corrupt: _SkipCorrupt = False,
    shard_size: _ShardSize = _SHARD_SIZE,
) -> None:
    """Import a folder of images for each identity; a stopped import goes on when repeated."""
    say(f"{folder}: reading the images")
    from qdgs_jax.datasets.real_faces import import_identities

    with if_stopped(lambda: _kept(out)), counting("images") as progress:
        manifest = import_identities(
            folder,
            out,
            side=side,
            skip_corrupt=skip_corrupt,
            shard_size=shard_size,
            progress=progress,
        )
    _show(out, manifest)


@app.command()
def verification(
    source: Annotated[
        Path,
        typer.Argument(
            help="InsightFace's .bin file, AdaFace's bcolz folder, or a list of pairs "
            "(.txt, .csv) with --images.",
            metavar="SOURCE",
        ),
    ],
    out: _Out,
    images: Annotated[
        Path | None, typer.Option(help="Folder of the images of a list of pairs.")
    ] = None,
    group: Annotated[str | None, typer.Option(help="Group of all pairs of a .txt list.")] = None,
    group_columns: Annotated[
        str | None,
        typer.Option(
            help="Columns of a .csv list with the images' groups; may be empty.",
            show_default=GROUP_COLUMNS,
        ),
    ] = None,
    side: _Side = None,
    skip_corrupt: _SkipCorrupt = False,
) -> None:
    """Import pairs for verification: LFW, CFP-FP, AgeDB-30, RFW, BFW and the like."""
    say(f"{source}: reading the pairs")
    from qdgs_jax.datasets.face_pairs import write_pairs
    from qdgs_jax.datasets.manifest import refuse_other_dataset

    refuse_other_dataset(out)
    with if_stopped(lambda: f"nothing was written to {out}; the same command begins again"):
        pairs = _pairs(source, images, group, group_columns, side, skip_corrupt)
        manifest = write_pairs(out, pairs, source={"file": source.name})
    groups = ", ".join(sorted(set(pairs.index.groups)))
    say(
        f"{out}: {len(pairs):,} pairs of {len(pairs.images):,} pictures, "
        f"{int(pairs.index.same.sum()):,} of one person"
        + (f", of the groups {groups}" if groups else "")
    )
    _warn(manifest)


def _pairs(
    source: Path,
    images: Path | None,
    group: str | None,
    group_columns: str | None,
    side: int | None,
    skip_corrupt: bool,
) -> FacePairs:
    """The pairs of a file or folder, by its kind."""
    from qdgs_jax.ports.faces.carray import read_carray_pairs
    from qdgs_jax.ports.faces.pair_lists import load_pairs, read_pairs_csv, read_pairs_txt
    from qdgs_jax.ports.faces.pairs_bin import read_pairs_bin

    kind = "" if source.is_dir() else source.suffix.lower()
    for name, given, kinds in (
        ("images", images, (".txt", ".csv")),
        ("group", group, (".txt",)),
        ("group-columns", group_columns, (".csv",)),
    ):
        if given is not None and kind not in kinds:
            raise typer.BadParameter(
                f"--{name} is for {' and '.join(kinds)} lists, not for {source.name}",
                param_hint=name,
            )
    if source.is_dir():
        if side is not None:
            raise typer.BadParameter(
                f"--side is for files; the folder {source.name} tells its pictures' size itself",
                param_hint="side",
            )
        return read_carray_pairs(source, skip_corrupt=skip_corrupt)
    if kind not in (".txt", ".csv"):
        return read_pairs_bin(source, side=side, skip_corrupt=skip_corrupt)
    if images is None:
        raise typer.BadParameter(
            f"{source.name} lists image files: give their folder with --images", param_hint="images"
        )
    if kind == ".txt":
        listed = read_pairs_txt(source, group=group or "")
    else:
        named = GROUP_COLUMNS if group_columns is None else group_columns
        columns = [name.strip() for name in named.split(",") if name.strip()]
        listed = read_pairs_csv(source, group_columns=columns)
    return load_pairs(listed, images, side=side, skip_corrupt=skip_corrupt)


def _show(out: Path, manifest: Manifest) -> None:
    say(f"{out}: {manifest.count:,} images of {manifest.source['identities']:,} identities")
    _warn(manifest)


def _warn(manifest: Manifest) -> None:
    for note in manifest.notes:
        say(f"warning: {note}", "yellow")


def _kept(out: Path) -> str:
    done = len(list(out.glob("shard-*.parquet"))) if out.is_dir() else 0
    return f"{done} shards in {shlex.quote(str(out))} kept; the same command goes on"
