"""Pairs for verification on disk: shards of their pictures, each once, and a table of the pairs.

The table is an Arrow file (Feather, to pandas) with the columns `first` and `second`, rows of the
shards, `same` and, where there are groups, `group`. Its name begins with an underscore: who
reads the folder as Parquet passes it over. The manifest keeps its SHA-256, which is compared.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from qdgs_jax.datasets.manifest import Manifest, ShardError, read_manifest, shards_folder
from qdgs_jax.datasets.png import decode_png
from qdgs_jax.datasets.real_faces import SHARD_SIZE, batches_of, face_rows, notes_of
from qdgs_jax.datasets.shards import ROW_GROUP, read_table, write_shards
from qdgs_jax.files import arrow_file
from qdgs_jax.ports.faces.pairs import FacePairs, PairIndex
from qdgs_jax.ports.readers.stand_ins import reason

TABLE = "_pairs.arrow"
_SOURCE = "verification"  # what a manifest's source says of the pairs
_OLD = "pairs"  # what it said when each pair had two rows


def write_pairs(
    out: str | os.PathLike[str], pairs: FacePairs, *, source: Mapping[str, Any] | None = None
) -> Manifest:
    """Write pairs for verification, which `read_pairs` reads.

    Args:
        out: folder of the shards, a row for each picture.
        pairs: P pairs of N pictures.
        source: where they came from.

    Raises:
        ShardError: the folder holds a data set.
        OSError: the disk is full; nothing is left behind.
    """
    content = _to_arrow(pairs.index)
    about = {
        "pairs": len(pairs),
        "groups": sorted(set(pairs.index.groups)),
        "table": TABLE,
        "sha256": hashlib.sha256(content).hexdigest(),
    }
    return write_shards(
        out,
        face_rows(np.arange(len(pairs.images)), None),
        batches_of(iter(pairs.images)),
        label_names=("face",),
        measure_names=(),
        shard_size=SHARD_SIZE,
        source={**(source or {}), _SOURCE: about},
        notes=notes_of(pairs.damage),
        beside={TABLE: content},
    )


def read_pairs(folder: str | os.PathLike[str], *, verify: bool = False) -> FacePairs:
    """Read the pairs that `write_pairs` wrote.

    Args:
        folder: of the shards.
        verify: compare the shards with their checksums first.

    Raises:
        ShardError: there is no complete data set, it holds no pairs, or it is damaged.
    """
    manifest = read_manifest(folder, verify=verify)
    index = _index(folder, manifest)
    images = np.empty((manifest.count, *manifest.image_size, 3), np.uint8)
    for row, picture in enumerate(_pictures(folder, manifest)):
        images[row] = picture
    try:
        return FacePairs(images, index)
    except ValueError as error:
        raise ShardError(f"{folder}: {error} Import it again.") from None


def _pictures(folder: str | os.PathLike[str], manifest: Manifest) -> Iterator[np.ndarray]:
    """The pictures UInt8[H, W, 3] of a data set, one after the other.

    Raises:
        ShardError: a shard or picture is damaged.
    """
    row = 0
    for shard in manifest.shards:
        for content in _contents(shards_folder(folder) / shard.file, shard.count):
            try:
                picture = decode_png(content)
            except Exception as error:  # Pillow's are of many kinds
                raise ShardError(
                    f"{folder}: the picture of row {row} cannot be decoded: {error}."
                ) from None
            if picture.shape[:2] != manifest.image_size:
                raise ShardError(
                    f"{folder}: the picture of row {row} has {picture.shape[1]} x "
                    f"{picture.shape[0]} pixels, which the manifest does not say."
                )
            yield picture
            row += 1


def _contents(path: Path, count: int) -> Iterator[bytes]:
    """The files of a shard's pictures, some at a time, if there are as many."""
    try:
        shard = pq.ParquetFile(arrow_file(path))
        if (rows := shard.metadata.num_rows) != count:
            raise ShardError(
                f"{path} has {rows:,} rows, but the manifest says {count:,}: it was changed; copy "
                "the data set again, or write it anew."
            )
        for batch in shard.iter_batches(ROW_GROUP, columns=["image"]):
            yield from (picture["bytes"].as_py() for picture in batch.column(0))
    except (pa.ArrowException, OSError) as error:
        raise ShardError(f"{path} cannot be read as Parquet: {reason(path, error)}.") from None


def _index(folder: str | os.PathLike[str], manifest: Manifest) -> PairIndex:
    about = manifest.source.get(_SOURCE)
    if isinstance(about, Mapping):
        return _from_arrow(shards_folder(folder) / TABLE, str(about.get("sha256")))
    names = manifest.source.get("groups")
    if _OLD not in manifest.source or not isinstance(names, list):
        raise ShardError(
            f"{folder} holds no pairs: give a folder written by `qdgs import verification`."
        )
    labels = read_table(folder, ["label"])["label"].to_numpy()[::2]
    groups = tuple(str(names[label // 2]) for label in labels) if names else ()
    return PairIndex.in_rows(labels % 2, groups)


def _to_arrow(index: PairIndex) -> bytes:
    columns: dict[str, pa.Array] = {
        "first": pa.array(index.first, pa.int32()),
        "second": pa.array(index.second, pa.int32()),
        "same": pa.array(index.same, pa.bool_()),
    }
    if index.groups:
        columns["group"] = pa.array(index.groups, pa.string()).dictionary_encode()
    table = pa.table(columns)
    sink = pa.BufferOutputStream()
    with pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)
    content: bytes = sink.getvalue().to_pybytes()
    return content


def _from_arrow(path: Path, digest: str) -> PairIndex:
    cure = "copy the data set again, or import it anew"
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ShardError(f"{path} cannot be read ({error.strerror}): {cure}.") from None
    if hashlib.sha256(content).hexdigest() != digest:
        raise ShardError(f"{path} differs from its checksum in the manifest: {cure}.")
    with pa.ipc.open_file(pa.BufferReader(content)) as reader:
        table = reader.read_all().combine_chunks()
    groups: tuple[str, ...] = ()
    if "group" in table.column_names:
        group = table["group"].combine_chunks()
        names = group.dictionary.to_pylist()
        groups = tuple(names[number] for number in group.indices.to_pylist())
    first, second, same = (table[name].to_numpy() for name in ("first", "second", "same"))
    return PairIndex(first, second, same, groups)
