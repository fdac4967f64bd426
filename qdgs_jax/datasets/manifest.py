"""What a data set's folder says of itself.

The manifest's name begins with an underscore: pyarrow and pandas, given the folder, pass such files
over and read the shards alone.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from qdgs_jax.datasets.balance import Balance
from qdgs_jax.ports.readers.stand_ins import reason

MANIFEST = "_manifest.json"
PLAN = "_plan"  # folder beside shards that are not complete, see plan.py
DATA = "data"  # folder of the shards, in the folder of their card
PEOPLE = (
    "people"  # in a run's folder, the card's folder of people beside a data set of single faces
)
FORMAT = "qdgs-dataset-2"
CHOSEN_BY = (  # fields of a source by which images are chosen and drawn
    "generator",
    "clip",
    "prompts",
    "label",
    "label_bins",
    "margin",
    "bins",
    "subject_size",
    "augmentations",
    "align",
)


class ShardError(ValueError):
    """A data set that cannot be read or written; the message names the file and what to do."""


@dataclasses.dataclass(frozen=True)
class Shard:
    """One file of a data set: its name, its number of rows and its SHA-256 in hexadecimal."""

    file: str
    count: int
    sha256: str


@dataclasses.dataclass(frozen=True)
class Manifest:
    """What a data set folder holds.

    Attributes:
        count: number of rows in all shards.
        image_size: (height, width) in pixels.
        label_names: name of each class.
        label_counts: number of rows of each class.
        measure_names: name of each measure.
        columns: names of the columns.
        shards: the files, in order.
        source: where the data came from, in the writer's words.
        balance: what was asked of each class and bin, and what it got; None where nobody counted.
        notes: what is doubtful about the data, in sentences.
    """

    count: int
    image_size: tuple[int, int]
    label_names: tuple[str, ...]
    label_counts: tuple[int, ...]
    measure_names: tuple[str, ...]
    columns: tuple[str, ...]
    shards: tuple[Shard, ...]
    source: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    balance: Balance | None = None
    notes: tuple[str, ...] = ()

    def to_json(self) -> str:
        """The text of the manifest."""
        balance = None if self.balance is None else self.balance.to_dict()
        fields = {"format": FORMAT, **dataclasses.asdict(self), "balance": balance}
        return json.dumps(fields, indent=2) + "\n"

    @classmethod
    def from_json(cls, text: str) -> Manifest:
        """Parse `to_json`'s text.

        Raises:
            ValueError: it is not JSON, of another format, or fields are missing.
        """
        fields = json.loads(text)
        if not isinstance(fields, dict) or fields.pop("format", None) != FORMAT:
            raise ValueError(f'"format" is not "{FORMAT}"')
        try:
            shards = tuple(Shard(**shard) for shard in fields.pop("shards"))
            balance = fields.pop("balance")
            counted = None if balance is None else Balance.from_dict(balance)
            lists = (
                "image_size",
                "label_names",
                "label_counts",
                "measure_names",
                "columns",
                "notes",
            )
            known = {**fields, **{name: tuple(fields[name]) for name in lists}}
            return cls(**known, shards=shards, balance=counted)
        except (KeyError, TypeError) as error:
            raise ValueError(f"its fields do not fit: {error}") from None


def digest_of(manifest: Path) -> str:
    """SHA-256 of a manifest, which tells its data set from others that may lie in its place."""
    return hashlib.sha256(manifest.read_bytes()).hexdigest()


def written_anew(manifest: Path, digest: str) -> bool:
    """Whether a manifest is there and another one than that of a digest."""
    return manifest.is_file() and digest_of(manifest) != digest


def refuse_other_dataset(folder: str | os.PathLike[str]) -> None:
    """Check that a data set can be written to a folder, or that one begun there can go on.

    Raises:
        ShardError: it is a file, or holds a data set, or part of one without its plan.
    """
    target = Path(folder)
    if target.exists() and not target.is_dir():
        raise ShardError(f"{target} is a file: give a folder for the data set.")
    whole = (target / MANIFEST).exists()
    found = [target / MANIFEST] if whole else sorted(target.glob("shard-*.parquet"))
    if found and (whole or not (target / PLAN).is_dir()):
        held = "already holds a data set" if whole else "holds part of a data set, without its end"
        raise ShardError(
            f"{target} {held} ({found[0].name}): give another folder, or delete this one first."
        )


def shards_folder(folder: str | os.PathLike[str]) -> Path:
    """Where the shards of a data set are: its folder, or `DATA` in the folder of its card."""
    path = Path(folder)
    inner = path / DATA
    return inner if not (path / MANIFEST).exists() and (inner / MANIFEST).exists() else path


def read_manifest(folder: str | os.PathLike[str], *, verify: bool = False) -> Manifest:
    """Read what a data set folder holds.

    Args:
        folder: a folder written by `write_shards`, or that of its card.
        verify: also compare every shard with its checksum.

    Raises:
        ShardError: there is no complete data set, or a shard is missing or was changed.
    """
    path = shards_folder(folder) / MANIFEST
    try:
        manifest = Manifest.from_json(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        raise ShardError(
            f"{folder}: no data set here ({MANIFEST} is missing): give a folder written by "
            "`qdgs generate`; for one that stopped half-way, repeat the command that began it."
        ) from None
    except ValueError as error:
        raise ShardError(f"{path}: not a manifest of ours: {reason(path, error)}.") from None
    for shard in manifest.shards:
        file = path.with_name(shard.file)
        if not file.is_file():
            raise ShardError(f"{file} is missing: copy the data set again, or write it anew.")
        if verify and hashlib.sha256(file.read_bytes()).hexdigest() != shard.sha256:
            raise ShardError(
                f"{file} differs from its checksum in {MANIFEST}: copy the data set again, or "
                "write it anew."
            )
    return manifest


def unlike(folder: Path, baseline: Path) -> str | None:
    """In what a baseline's data set was not chosen as the one that it is compared with, a sentence.

    Args:
        folder: of the data set.
        baseline: of the baseline's.

    Returns:
        None where they were chosen alike, or one is not there.

    Raises:
        ShardError: one is damaged.
    """
    if not all((place / MANIFEST).is_file() for place in (folder, baseline)):
        return None
    own, other = (read_manifest(place) for place in (folder, baseline))
    pairs = [(name, other.source.get(name), own.source.get(name)) for name in CHOSEN_BY]
    pairs.append(("image_size", list(other.image_size), list(own.image_size)))
    differ = [
        f"{name} {there!r} instead of {here!r}" for name, there, here in pairs if there != here
    ]
    if not differ:
        return None
    return (
        f"{baseline} was not chosen as {folder} was: {'; '.join(differ)}. To compare them, delete "
        "it and write it anew."
    )
