"""Faces from shards, in a seeded order, without ever holding the set.

The files of pictures lie in row groups of Parquet. Each epoch puts these in an order of its own and
cuts it into windows of so many images; a window's images are shuffled among each other. So no more
than the windows at hand are in memory, as files, and what comes at a position follows from the seed
and the position alone: a training that goes on needs no other memory of its data than its count of
steps. Grain's threads decode ahead.
"""

from __future__ import annotations

import bisect
import functools
import os
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import grain
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from qdgs_jax import keys
from qdgs_jax.datasets.manifest import ShardError, read_manifest, shards_folder
from qdgs_jax.datasets.png import decode_picture
from qdgs_jax.datasets.shards import read_table
from qdgs_jax.files import arrow_file
from qdgs_jax.ports.faces.pictures import check_png
from qdgs_jax.ports.readers.stand_ins import reason

SUBJECT = "subject"
_AHEAD = 4  # batches that are decoded before they are asked for


class _Group(NamedTuple):
    """A row group: its file, its number there, and its first row in the whole set."""

    file: Path
    number: int
    start: int
    rows: int


class FaceShards:
    """A folder of shards as identities to learn from.

    Attributes:
        folder: of the shards.
        manifest: theirs.
        count: number of images.
        image_size: side of the images.
        num_identities: how many people there are.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        """Open a data set; its identities are read, its pictures are not.

        Raises:
            ShardError: there is no complete data set, it has no subjects, one subject alone, or
                images without one.
        """
        self.folder = shards_folder(folder)
        manifest = self.manifest = read_manifest(folder)
        height, width = manifest.image_size
        if SUBJECT not in manifest.columns:
            raise ShardError(
                f"{folder} has no column `{SUBJECT}`, so nobody knows who is on its images: give "
                "shards of `qdgs import insightface` or `folder`, or of a run whose file has "
                "[dataset.subjects]."
            )
        if height != width:
            raise ShardError(f"{folder} has images of {width} x {height} pixels: give square ones.")
        self.count, self.image_size = manifest.count, height
        column = read_table(folder, [SUBJECT])[SUBJECT]
        if column.null_count:
            raise ShardError(
                f"{folder} does not say of {column.null_count:,} images who is on them: leave such "
                "images out."
            )
        if len(column) != manifest.count:
            raise ShardError(
                f"{folder} has {len(column):,} rows, but its manifest says {manifest.count:,}: "
                "shards were changed; copy the data set again, or write it anew."
            )
        subjects = column.to_numpy()
        found, self.identities = np.unique(subjects, return_inverse=True)
        self.num_identities = len(found)
        if self.num_identities < 2:
            raise ShardError(f"{folder} shows a single identity: two are needed to tell apart.")
        self.groups: list[_Group] = []
        for shard in manifest.shards:
            file = self.folder / shard.file
            metadata = _opened(file).metadata
            for number in range(metadata.num_row_groups):
                before = self.groups[-1] if self.groups else _Group(file, 0, 0, 0)
                rows = metadata.row_group(number).num_rows
                self.groups.append(_Group(file, number, before.start + before.rows, rows))

    def read(self, group: _Group) -> list[bytes]:
        """The files of the pictures of a row group."""
        try:
            table = _opened(group.file).read_row_group(group.number, columns=["image"])
        except (pa.ArrowInvalid, OSError) as error:
            raise ShardError(
                f"{group.file} cannot be read as Parquet: {reason(group.file, error)}."
            ) from None
        return [picture["bytes"].as_py() for picture in table["image"]]


def _opened(file: Path) -> pq.ParquetFile:
    try:
        return pq.ParquetFile(arrow_file(file))
    except (pa.ArrowInvalid, OSError) as error:
        raise ShardError(f"{file} cannot be read as Parquet: {reason(file, error)}.") from None


class _Epoch(NamedTuple):
    """An epoch's order: row groups, and where each window begins in groups and in images."""

    groups: np.ndarray
    first_groups: list[int]
    starts: list[int]


class FaceOrder:
    """Images in the order of a training, by position, as Grain's data sources want it.

    A record is a dict: `image` UInt8[S, S, 3] and `identity` Int32. Windows are read when one of
    their images is asked for, and the next one ahead; several threads may ask.

    Args:
        shards: the images.
        seed: of the order.
        batch_size: images of a step; the incomplete rest of an epoch is left out, and as every
            epoch has its own order, another one each time.
        epochs: passes over the images.
        window: images that are shuffled among each other.

    Raises:
        ValueError: there are fewer images than a step takes.
    """

    def __init__(
        self, shards: FaceShards, seed: int, batch_size: int, epochs: int, window: int
    ) -> None:
        if shards.count < batch_size:
            raise ValueError(
                f"{shards.folder} has {shards.count:,} images and a step takes {batch_size:,}: "
                "give a smaller optimizer.batch_size, or more images."
            )
        self.steps_per_epoch = shards.count // batch_size
        self._shards, self._seed, self._window = shards, seed, window
        self._per_epoch = self.steps_per_epoch * batch_size
        self._epochs = epochs
        self._epoch = functools.lru_cache(2)(self._order_of)
        self._lock = threading.Lock()
        self._reader = ThreadPoolExecutor(1, "face-window")
        self._windows: dict[tuple[int, int], Future[list[tuple[bytes, int]]]] = {}

    def __len__(self) -> int:
        return self._epochs * self._per_epoch

    def __repr__(self) -> str:
        return f"FaceOrder({str(self._shards.folder)!r})"

    def __getitem__(self, position: Any) -> dict[str, Any]:
        epoch, place = divmod(int(position), self._per_epoch)
        starts = self._epoch(epoch).starts
        number = bisect.bisect_right(starts, place) - 1
        size = (starts[number + 1] if number + 1 < len(starts) else self._per_epoch) - starts[
            number
        ]
        inside = place - starts[number]
        content, row = self._files(epoch, number, ahead=2 * inside >= size)[inside]
        return {
            "image": self._decoded(content, row),
            "identity": np.int32(self._shards.identities[row]),
        }

    def _decoded(self, content: bytes, row: int) -> np.ndarray:
        size = self._shards.image_size
        try:
            check_png(content)
            picture = decode_picture(content)
        except Exception as error:  # Pillow's are of many kinds
            raise ShardError(
                f"{self._shards.folder}: the picture of row {row} cannot be decoded: {error}."
            ) from None
        if picture.shape != (size, size, 3):
            raise ShardError(
                f"{self._shards.folder}: the picture of row {row} has {picture.shape[1]} x "
                f"{picture.shape[0]} pixels, not {size} x {size}."
            )
        return picture

    def _order_of(self, epoch: int) -> _Epoch:
        groups = self._shards.groups
        order = self._random(epoch).permutation(len(groups))
        first_groups, starts, held, done = [0], [0], 0, 0
        for at, group in enumerate(order):
            if held >= self._window and done < self._per_epoch:
                first_groups.append(at)
                starts.append(done)
                held = 0
            held += groups[group].rows
            done += groups[group].rows
        return _Epoch(order, first_groups, starts)

    def _random(self, *parts: int) -> np.random.Generator:
        return keys.numpy_stream(self._seed, "/".join(map(str, ("train/faces/order", *parts))))

    def _files(self, epoch: int, number: int, ahead: bool) -> Sequence[tuple[bytes, int]]:
        """Files and rows of a window, in their order; `ahead` asks for the next window too."""
        here = (epoch, number)
        with self._lock:
            wanted = [here]
            if ahead:
                last = number + 1 == len(self._epoch(epoch).starts)
                following = (epoch + 1, 0) if last else (epoch, number + 1)
                wanted += [following] if following[0] < self._epochs else []
                self._windows = {k: v for k, v in self._windows.items() if k in wanted}
            for each in wanted:
                if each not in self._windows:
                    self._windows[each] = self._reader.submit(self._read, *each)
            found = self._windows[here]
        return found.result()

    def _read(self, epoch: int, number: int) -> list[tuple[bytes, int]]:
        order = self._epoch(epoch)
        firsts = [*order.first_groups, len(order.groups)]
        found: list[tuple[bytes, int]] = []
        for at in sorted(order.groups[firsts[number] : firsts[number + 1]]):  # as they lie on disk
            group = self._shards.groups[at]
            rows = range(group.start, group.start + group.rows)
            found += zip(self._shards.read(group), rows, strict=True)
        mixed = self._random(epoch, number).permutation(len(found))
        return [found[row] for row in mixed]


def batches(
    order: FaceOrder, batch_size: int, first: int, threads: int = 0
) -> Iterator[dict[str, np.ndarray]]:
    """Batches of an order, from step `first` on: `image` UInt8[B, S, S, 3], `identity` Int32[B].

    Args:
        order: the images.
        batch_size: as the order was made for.
        first: steps that were done before.
        threads: that decode; 0 takes the number of cores.
    """
    options = grain.ReadOptions(
        num_threads=threads or os.cpu_count() or 1, prefetch_buffer_size=_AHEAD * batch_size
    )
    images = grain.MapDataset.source(order)[first * batch_size :]
    return iter(images.to_iter_dataset(options).batch(batch_size, drop_remainder=True))
