"""Pictures of any data set, batch by batch: our shards, or Parquet files of other origin.

Only a batch is held at a time. Pictures that cannot be decoded are passed over and told by their
position; the others are averaged down to one size, so that all data sets are seen equally sharp.
"""

from __future__ import annotations

import dataclasses
import json
import os
import struct
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from qdgs_jax.datasets.manifest import (
    MANIFEST,
    ShardError,
    digest_of,
    read_manifest,
    shards_folder,
)
from qdgs_jax.datasets.png import decode_picture
from qdgs_jax.files import arrow_file
from qdgs_jax.ports.readers.stand_ins import reason

Size = tuple[int, int]  # height and width
UNDECODABLE = (  # PictureSizeError is a ValueError
    OSError,
    SyntaxError,
    ValueError,
    EOFError,
    struct.error,
    Image.DecompressionBombError,
)


class Batch(NamedTuple):
    """Some rows of a data set.

    Attributes:
        pictures: UInt8[B, H, W, 3], those that could be decoded.
        columns: what else was asked for, for these B rows.
        failed: positions in the data set of the others.
        rows: how many rows there were, decoded or not.
    """

    pictures: np.ndarray
    columns: dict[str, list[Any]]
    failed: list[int]
    rows: int


@dataclasses.dataclass(frozen=True)
class PictureSet:
    """A data set of pictures; see `open_pictures`.

    Attributes:
        folder: that of the files.
        files: its Parquet files, in order.
        column: the one that holds pictures.
        count: rows in all.
        size: of its pictures; of others than our shards, of the first that can be decoded.
        digest: SHA-256 of the manifest of our shards; None for others.
    """

    folder: Path
    files: tuple[Path, ...]
    column: str
    count: int
    size: Size
    digest: str | None = None

    def has(self, column: str) -> bool:
        """Whether there is a column of this name."""
        return column in _schema(self.files[0]).names

    def class_names(self, column: str) -> tuple[str, ...] | None:
        """Names of the classes of a column, where the files give them; None without.

        Raises:
            ShardError: there is no such column, or it holds neither texts nor whole numbers.
        """
        schema = _schema(self.files[0])
        if column not in schema.names:
            raise ShardError(
                f"{self.folder} has no column {column!r}: it has {', '.join(schema.names)}."
            )
        kind = schema.field(column).type
        if not (pa.types.is_integer(kind) or pa.types.is_string(kind) or _is_large_text(kind)):
            raise ShardError(
                f"the column {column!r} of {self.folder} holds {kind}: give one of classes, texts "
                "or whole numbers."
            )
        try:
            told = json.loads((schema.metadata or {}).get(b"huggingface", b"{}"))
            return tuple(map(str, told["info"]["features"][column]["names"]))
        except (ValueError, KeyError, TypeError):
            return None

    def batches(self, size: Size, rows: int, columns: Sequence[str] = ()) -> Iterator[Batch]:
        """Read the data set once, in order.

        Args:
            size: that pictures are averaged down to.
            rows: at a time.
            columns: further columns to read.

        Raises:
            ShardError: a file is damaged.
        """
        start = 0
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            for file in self.files:
                for table in _read(file, rows, [self.column, *columns]):
                    contents = (_bytes(row) for row in table.column(0).to_pylist())
                    decoded = list(pool.map(lambda content: _decoded(content, size), contents))
                    pictures = [picture for picture in decoded if picture is not None]
                    kept = [i for i, picture in enumerate(decoded) if picture is not None]
                    others = table.take(pa.array(kept, pa.int64()))
                    yield Batch(
                        np.stack(pictures) if pictures else np.zeros((0, *size, 3), np.uint8),
                        {name: others.column(name).to_pylist() for name in columns},
                        [start + i for i, picture in enumerate(decoded) if picture is None],
                        len(decoded),
                    )
                    start += len(decoded)


def open_pictures(folder: str | os.PathLike[str]) -> PictureSet:
    """Open a data set: a folder of our shards, of their card, or of Parquet files with pictures.

    In files of other origin, pictures are the first column of structs with `bytes`, as Hugging
    Face's data sets have it.

    Raises:
        ShardError: there is no such folder, no data set in it, no picture in that, or a file is
            damaged.
    """
    path = Path(folder)
    if not path.is_dir():
        what = "is a file" if path.exists() else "does not exist"
        raise ShardError(f"{path} {what}: give the folder of a data set.")
    place = shards_folder(path)
    if (place / MANIFEST).exists() or any(place.glob("shard-*.parquet")):
        manifest = read_manifest(place)
        files = tuple(place / shard.file for shard in manifest.shards)
        digest = digest_of(place / MANIFEST)
        return PictureSet(place, files, "image", manifest.count, manifest.image_size, digest)
    files = tuple(file for file in sorted(path.rglob("*.parquet")) if _is_shown(file, path))
    if not files:
        raise ShardError(
            f"{path} is no data set: give a folder written by `qdgs generate`, or one of Parquet "
            "files with a column of images."
        )
    column = _image_column(files[0])
    for file in files:
        if column not in _schema(file).names:
            raise ShardError(f"{file} has no column {column!r}, which {files[0]} has.")
    count = sum(pq.read_metadata(arrow_file(file)).num_rows for file in files)
    return PictureSet(path, files, column, count, _first_size(path, files, column))


def _first_size(path: Path, files: Sequence[Path], column: str) -> Size:
    for file in files:
        for table in _read(file, 1, [column]):
            content = _bytes(table.column(0)[0].as_py())
            try:
                height, width = decode_picture(content or b"").shape[:2]
            except UNDECODABLE:
                continue
            return height, width
    raise ShardError(f"{path} has no image that can be decoded: PNG, JPEG and WebP can be.")


def _is_shown(file: Path, root: Path) -> bool:
    return not any(part.startswith((".", "_")) for part in file.relative_to(root).parts)


def _image_column(file: Path) -> str:
    schema = _schema(file)
    for field in schema:
        if pa.types.is_struct(field.type) and field.type.get_field_index("bytes") >= 0:
            return str(field.name)
    raise ShardError(
        f"{file} has no column of images, structs with bytes: it has {', '.join(schema.names)}."
    )


def _schema(file: Path) -> pa.Schema:
    try:
        return pq.read_schema(arrow_file(file))
    except (pa.ArrowInvalid, OSError) as error:
        raise ShardError(f"{file} cannot be read as Parquet: {reason(file, error)}.") from None


def _read(file: Path, rows: int, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
    try:
        with arrow_file(file) as source, pq.ParquetFile(source) as opened:
            yield from (
                batch.select(columns) for batch in opened.iter_batches(rows, columns=list(columns))
            )
    except (pa.ArrowInvalid, OSError) as error:
        raise ShardError(f"{file} cannot be read as Parquet: {reason(file, error)}.") from None


def _is_large_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_large_string(kind) or pa.types.is_dictionary(kind))


def _bytes(row: dict[str, Any] | None) -> bytes | None:
    return None if row is None else row["bytes"]


def _decoded(content: bytes | None, size: Size) -> np.ndarray | None:
    try:
        return decode_picture(content or b"", size)
    except UNDECODABLE:
        return None
