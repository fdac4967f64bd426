"""Labelled data sets on disk: Parquet shards beside a manifest, readable without this package.

Each row holds a PNG picture and what the search knew about it. The picture is a struct of bytes and
path and the schema carries Hugging Face's description of the columns, so that
`datasets.load_dataset("parquet", data_files="FOLDER/*.parquet")` shows images and class names,
while pyarrow alone reads the same files. A shard appears by atomic rename or not at all; the
manifest with the shards' SHA-256 comes last, so a folder with a manifest is complete.
"""

from __future__ import annotations

import hashlib
import json
import operator
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from qdgs_jax.datasets.balance import Balance
from qdgs_jax.datasets.card import CARD, check_place, write_card
from qdgs_jax.datasets.manifest import (
    MANIFEST,
    Manifest,
    Shard,
    ShardError,
    read_manifest,
    refuse_other_dataset,
    shards_folder,
)
from qdgs_jax.datasets.png import decode_png, encode_png
from qdgs_jax.datasets.selection import Labelled
from qdgs_jax.files import arrow_file, sweep, write_atomically
from qdgs_jax.ports.readers.stand_ins import reason

ROW_GROUP = 16  # rows that are read together: few, so that trainings can shuffle what they read
_IMAGE = pa.struct({"bytes": pa.binary(), "path": pa.string()})
_COLUMNS = {  # column of `Labelled` -> of the file, element type
    "labels": ("label", pa.int64()),
    "cells": ("cell", pa.int32()),
    "objectives": ("objective", pa.float32()),
    "measures": ("measures", pa.float32()),
    "latents": ("latent", pa.float32()),
    "subjects": ("subject", pa.int32()),
    "augmentations": ("augmentation", pa.int32()),
}


def write_shards(
    folder: str | os.PathLike[str],
    rows: Labelled,
    images: Iterable[np.ndarray] | Callable[[int], Iterable[np.ndarray]],
    *,
    label_names: Sequence[str],
    measure_names: Sequence[str],
    shard_size: int = 500,
    source: Mapping[str, Any] | None = None,
    balance: Balance | None = None,
    notes: Sequence[str] = (),
    beside: Mapping[str, bytes] | None = None,
    card: Path | None = None,
) -> Manifest:
    """Write a data set. Equal data give equal files.

    Args:
        folder: where to; made if needed. It may hold other files, but no data set.
        rows: N rows; latents and subjects are left out where there are none.
        images: the N pictures in the order of the rows, as batches UInt8[B, H, W, 3] of any sizes,
            so that they can be decoded while they are written. Or a function of the first row that
            is missing, which gives the pictures from there on: then shards that the folder holds
            already are taken as those of these rows, and stay whatever happens.
        label_names: name of each class, at least as many as there are labels.
        measure_names: name of each of the M measures.
        shard_size: rows per shard; the last may have fewer.
        source: anything JSON can hold that says where the data came from.
        balance: how the rows are shared among classes and bins, for the manifest.
        notes: what is doubtful about the data, for the manifest.
        beside: other files of the data set, by name; they are there when the manifest is.
        card: the folder whose `DATA` is `folder`, for a card of the data set; None writes no card.

    Returns:
        The manifest, as written.

    Raises:
        ShardError: the folder already holds a data set, the card's place is taken, or rows, images
            and names do not fit together.
        OSError: the disk is full or cannot be written. As after every error, shards written so far
            are removed again, unless they can be gone on with.
    """
    target = Path(folder)
    _check_rows(rows, label_names, measure_names, shard_size)
    if card is None:
        refuse_other_dataset(target)
    else:
        check_place(card)
    target.mkdir(parents=True, exist_ok=True)
    sweep(target, rf"shard-\d+\.parquet|{re.escape(MANIFEST)}")
    resumable = callable(images)
    shards = _kept_shards(target, rows, shard_size) if resumable else []
    begun = sum(shard.count for shard in shards)
    pictures_left = images(begun) if callable(images) else images
    written: list[Path] = []
    counted = np.bincount(rows.labels, minlength=len(label_names))
    size = _picture_size(target / shards[0].file) if shards else None
    try:
        for start, pictures in _regroup(pictures_left, shard_size, len(rows), begun):
            size = size or pictures.shape[1:3]
            part = rows.take(np.arange(start, start + len(pictures)))
            content = _encode_shard(part, pictures, start, label_names)
            path = target / f"shard-{len(shards):05d}.parquet"
            written.append(path)
            _write(path, content, kept=len(shards) if resumable else None)
            shards.append(Shard(path.name, len(pictures), hashlib.sha256(content).hexdigest()))
        manifest = Manifest(
            count=len(rows),
            image_size=size or (0, 0),
            label_names=tuple(label_names),
            label_counts=tuple(int(n) for n in counted),
            measure_names=tuple(measure_names),
            columns=("image", *(c for name, (c, _) in _COLUMNS.items() if name in rows.columns())),
            shards=tuple(shards),
            source=dict(source or {}),
            balance=balance,
            notes=tuple(notes),
        )
        for name, content in (beside or {}).items():
            written.append(target / name)
            _write(target / name, content, kept=len(shards) if resumable else None)
        if card is not None:
            written.append(card / CARD)
            write_card(card, manifest, _widths(rows))
        content = manifest.to_json().encode()
        _write(target / MANIFEST, content, kept=len(shards) if resumable else None)
    except BaseException:
        for path in written if not resumable else ():
            path.unlink(missing_ok=True)
        raise
    return manifest


def _kept_shards(folder: Path, rows: Labelled, shard_size: int) -> list[Shard]:
    """The shards of a data set that a folder holds already, from the first on.

    What follows the first that is missing, cannot be read or is of other rows is removed.
    """
    count = len(rows)
    columns = {_COLUMNS[name][0]: values for name, values in rows.columns().items()}
    kept: list[Shard] = []
    starts = range(0, count, shard_size)
    paths = [folder / f"shard-{number:05d}.parquet" for number in range(len(starts))]
    for path, start in zip(paths, starts, strict=True):
        wanted = min(shard_size, count - start)
        if not _holds(path, {name: c[start : start + wanted] for name, c in columns.items()}):
            break
        content = path.read_bytes()
        kept.append(Shard(path.name, wanted, hashlib.sha256(content).hexdigest()))
    for path in folder.glob("shard-*.parquet"):
        if path not in paths[: len(kept)]:
            path.unlink()
    return kept


def _holds(path: Path, columns: Mapping[str, np.ndarray]) -> bool:
    """Whether a file is a shard with these columns, of as many rows; lists are not compared."""
    wanted = {name: values for name, values in columns.items() if values.ndim == 1}
    try:
        shard = pq.ParquetFile(arrow_file(path))
        if set(shard.schema_arrow.names) != {"image", *columns}:
            return False
        held = shard.read(columns=list(wanted))
    except (pa.ArrowException, OSError):
        return False
    return all(
        np.array_equal(column := held[name].to_numpy(), values.astype(column.dtype))
        for name, values in wanted.items()
    )


def _picture_size(path: Path) -> tuple[int, int]:
    first = next(pq.ParquetFile(arrow_file(path)).iter_batches(1, columns=["image"]))
    picture = decode_png(first.column(0)[0]["bytes"].as_py())
    return (picture.shape[0], picture.shape[1])


def _widths(rows: Labelled) -> dict[str, int]:
    """Length of each column of lists, by its name in the file."""
    columns = rows.columns().items()
    return {_COLUMNS[name][0]: c.shape[1] for name, c in columns if c.ndim == 2}


def read_table(folder: str | os.PathLike[str], columns: Sequence[str] | None = None) -> pa.Table:
    """All rows of a data set as one Arrow table; pictures stay PNG bytes.

    Args:
        folder: a folder written by `write_shards`, or that of its card.
        columns: which columns; None reads all.
    """
    manifest = read_manifest(folder)
    place = shards_folder(folder)
    return pa.concat_tables(_read_shard(place / s.file, columns) for s in manifest.shards)


def read_rows(folder: str | os.PathLike[str]) -> Labelled:
    """All columns of a data set but the pictures."""
    manifest = read_manifest(folder)
    names = {field: column for field, (column, _) in _COLUMNS.items() if column in manifest.columns}
    table = read_table(folder, list(names.values()))
    return Labelled.from_columns({f: _to_numpy(table[column]) for f, column in names.items()})


class ShardSource:
    """Random access to the pictures and labels of a data set, as Grain's data sources want it.

    A record is a dict: `image` UInt8[H, W, 3] and `label` int. A shard is read when one of its rows
    is first asked for; its PNG bytes then stay in memory and pictures are decoded at each access.
    """

    def __init__(self, folder: str | os.PathLike[str], *, verify: bool = False):
        """Open a data set; `verify` compares every shard with its checksum first."""
        self.folder = shards_folder(folder)
        self.manifest = read_manifest(folder, verify=verify)
        self._starts = np.cumsum([0] + [shard.count for shard in self.manifest.shards])
        self._tables: dict[int, pa.Table] = {}

    def __len__(self) -> int:
        return self.manifest.count

    def __getitem__(self, index: Any) -> dict[str, Any]:
        row = operator.index(index)
        if not 0 <= row < len(self):
            raise IndexError(f"row {row} of a data set of {len(self)} rows")
        number = int(np.searchsorted(self._starts, row, side="right")) - 1
        table = self._tables.get(number)
        if table is None:
            path = self.folder / self.manifest.shards[number].file
            table = self._tables[number] = _read_shard(path, ["image", "label"])
        offset = row - int(self._starts[number])
        picture = table["image"][offset]["bytes"].as_py()
        return {"image": decode_png(picture), "label": table["label"][offset].as_py()}

    def __repr__(self) -> str:
        return f"ShardSource({str(self.folder)!r})"


def _check_rows(
    rows: Labelled, label_names: Sequence[str], measure_names: Sequence[str], shard_size: int
) -> None:
    if shard_size < 1:
        raise ShardError(f"shard_size is {shard_size}: give at least one row per shard.")
    if len(rows) == 0:
        raise ShardError("there are no rows to write: select some elites first.")
    if rows.labels.min() < 0 or rows.labels.max() >= len(label_names):
        raise ShardError(
            f"labels reach from {rows.labels.min()} to {rows.labels.max()} but there are "
            f"{len(label_names)} label names: give one name per class, counted from 0."
        )
    if rows.elites.measures.shape[1] != len(measure_names):
        raise ShardError(
            f"{rows.elites.measures.shape[1]} measures but {len(measure_names)} measure names: "
            "give one name per measure."
        )


def _regroup(
    batches: Iterable[np.ndarray], shard_size: int, count: int, start: int = 0
) -> Iterator[tuple[int, np.ndarray]]:
    """Turn batches of any sizes into (first row, pictures) of a shard each, up to row `count`."""
    waiting: list[np.ndarray] = []
    held = 0
    shape: tuple[int, ...] | None = None
    for batch in batches:
        if batch.dtype != np.uint8 or batch.ndim != 4 or batch.shape[3] != 3:
            raise ShardError(
                f"a batch of images is {batch.dtype}{list(batch.shape)}: give uint8[B, H, W, 3]."
            )
        shape = shape or batch.shape[1:]
        if batch.shape[1:] != shape:
            raise ShardError(f"images of {batch.shape[1:]} after images of {shape}: give one size.")
        waiting.append(batch)
        held += len(batch)
        if start + held > count:
            raise ShardError(f"more images than the {count} rows: give one image per row.")
        while held >= shard_size:
            pictures = np.concatenate(waiting)
            yield start, pictures[:shard_size]
            start, held, waiting = start + shard_size, held - shard_size, [pictures[shard_size:]]
    if start + held < count:
        raise ShardError(f"{start + held} images for {count} rows: give one image per row.")
    if held:
        yield start, np.concatenate(waiting)


def _encode_shard(
    rows: Labelled, pictures: np.ndarray, start: int, label_names: Sequence[str]
) -> bytes:
    """A whole Parquet file in memory."""
    content = [encode_png(picture) for picture in pictures]
    paths = [f"{start + i:06d}.png" for i in range(len(pictures))]
    fields = [pa.field("image", _IMAGE)]
    arrays = [pa.StructArray.from_arrays([content, paths], fields=list(_IMAGE))]
    features: dict[str, Any] = {"image": {"_type": "Image"}}
    columns = rows.columns()
    for name, (column, kind) in _COLUMNS.items():
        if name not in columns:
            continue
        values = columns[name]
        array = pa.array(values.reshape(-1), kind)
        dtype = np.dtype(kind.to_pandas_dtype()).name
        feature: dict[str, Any] = {"dtype": dtype, "_type": "Value"}
        if name == "labels":
            feature = {"names": list(label_names), "_type": "ClassLabel"}
        if values.ndim == 2:
            width = values.shape[1]
            array = pa.FixedSizeListArray.from_arrays(array, width)
            feature = {"feature": feature, "length": width, "_type": "Sequence"}
        arrays.append(array)
        fields.append(pa.field(column, array.type))
        features[column] = feature
    description = json.dumps({"info": {"features": features}})
    schema = pa.schema(fields, metadata={"huggingface": description})
    sink = pa.BufferOutputStream()
    table = pa.table(arrays, schema=schema)
    pq.write_table(table, sink, use_dictionary=False, row_group_size=ROW_GROUP)
    return sink.getvalue().to_pybytes()


def _write(path: Path, content: bytes, kept: int | None) -> None:
    """Write a file; `kept` shards before it stay if that fails, None for none."""
    try:
        write_atomically(path, content)
    except OSError as error:
        advice = (
            "no part of the data set is left behind: make room or give a folder on another disk, "
            "then run again"
            if kept is None
            else f"the {kept} shards before it are kept: make room, and the same command goes on"
        )
        raise OSError(
            error.errno,
            f"{error.strerror} while writing {len(content)} bytes; {advice}",
            str(path),
        ) from error


def _read_shard(path: Path, columns: Sequence[str] | None) -> pa.Table:
    try:
        return pq.read_table(arrow_file(path), columns=columns, partitioning=None)
    except (pa.ArrowInvalid, OSError) as error:
        raise ShardError(f"{path} cannot be read as Parquet: {reason(path, error)}.") from None


def _to_numpy(column: pa.ChunkedArray) -> np.ndarray:
    array = column.combine_chunks()
    if pa.types.is_fixed_size_list(array.type):
        return array.flatten().to_numpy().reshape(len(array), array.type.list_size)
    return array.to_numpy()
