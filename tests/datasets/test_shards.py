"""Data sets on disk: pyarrow, datasets and Grain read what was written; failures leave nothing."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path

import grain
import numpy as np
import pandas as pd
import pyarrow.dataset as pads
import pyarrow.parquet as pq
import pytest
from labelled_rows import labelled

from qdgs_jax import files
from qdgs_jax.datasets.balance import Balance, Group
from qdgs_jax.datasets.manifest import MANIFEST, Manifest, ShardError, read_manifest
from qdgs_jax.datasets.pictures import open_pictures
from qdgs_jax.datasets.png import decode_png
from qdgs_jax.datasets.selection import Labelled
from qdgs_jax.datasets.shards import ShardSource, read_rows, read_table, write_shards
from qdgs_jax.elites import Elites

NAMES = {"label_names": ("triangle", "square"), "measure_names": ("colour", "shape")}


def make_rows(count: int = 11, **changes: np.ndarray | None) -> Labelled:
    rng = np.random.default_rng(1)
    columns = {
        "cells": rng.permutation(100)[:count],
        "labels": np.arange(count) % 2,
        "objectives": rng.normal(size=count).astype(np.float32),
        "measures": rng.normal(size=(count, 2)).astype(np.float32),
        "latents": rng.normal(size=(count, 6)).astype(np.float32),
    }
    return labelled(**{**columns, **changes})  # type: ignore[arg-type]


def make_images(count: int = 11, size: int = 8) -> np.ndarray:
    return np.random.default_rng(2).integers(0, 256, (count, size, size, 3), np.uint8)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data") / "set"
    images = make_images()
    batches = (images[i : i + 3] for i in range(0, 11, 3))
    write_shards(folder, make_rows(), batches, **NAMES, shard_size=5, source={"seed": 7})
    return folder


def test_the_folder_holds_shards_and_a_manifest_that_describes_them(dataset: Path) -> None:
    names = [f"shard-{i:05d}.parquet" for i in range(3)]
    assert sorted(path.name for path in dataset.iterdir()) == ["_manifest.json", *names]
    manifest = read_manifest(dataset, verify=True)
    assert (manifest.count, manifest.image_size) == (11, (8, 8))
    assert (manifest.label_names, manifest.label_counts) == (("triangle", "square"), (6, 5))
    assert [(s.file, s.count) for s in manifest.shards] == list(zip(names, (5, 5, 1), strict=True))
    assert manifest.source == {"seed": 7}
    assert Manifest.from_json(manifest.to_json()) == manifest


def test_all_columns_come_back(dataset: Path) -> None:
    rows, read = make_rows(), read_rows(dataset)
    assert read.columns().keys() == rows.columns().keys()
    for name, column in rows.columns().items():
        np.testing.assert_array_equal(read.columns()[name], column)
    table = read_table(dataset)
    pictures = [decode_png(image["bytes"]) for image in table["image"].to_pylist()]
    np.testing.assert_array_equal(pictures, make_images())


def test_optional_columns(tmp_path: Path) -> None:
    subjects = np.arange(11) // 2
    rows = make_rows(latents=None, subjects=subjects)
    manifest = write_shards(tmp_path, rows, [make_images()], **NAMES)
    assert manifest.columns == ("image", "label", "cell", "objective", "measures", "subject")
    assert read_rows(tmp_path).elites.latents.shape == (11, 0)
    np.testing.assert_array_equal(read_rows(tmp_path).subjects, subjects)


def test_hugging_face_datasets_shows_pictures_and_class_names(
    dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    datasets = pytest.importorskip("datasets")
    loaded = datasets.load_dataset(
        "parquet", data_files=str(dataset / "*.parquet"), split="train", cache_dir=str(tmp_path)
    )
    assert isinstance(loaded.features["image"], datasets.Image)
    assert loaded.features["label"].names == ["triangle", "square"]
    row = loaded[7]
    assert row["image"].size == (8, 8)
    np.testing.assert_array_equal(np.asarray(row["image"]), make_images()[7])
    assert row["label"] == 1
    np.testing.assert_array_equal(np.float32(row["measures"]), make_rows().elites.measures[7])
    assert len(row["latent"]) == 6


def test_grain_reads_any_row_in_any_order(dataset: Path) -> None:
    source = ShardSource(dataset, verify=True)
    assert isinstance(source, grain.sources.RandomAccessDataSource)
    assert len(source) == 11
    with pytest.raises(IndexError, match="row 11"):
        source[11]
    shuffled = list(grain.MapDataset.source(source).seed(3).shuffle())
    in_order = [source[index] for index in range(11)]
    assert sorted(map(content, shuffled)) == sorted(map(content, in_order))
    assert list(map(content, shuffled)) != list(map(content, in_order))
    np.testing.assert_array_equal(source[np.int64(10)]["image"], make_images()[10])
    assert source[10]["label"] == 0


def content(record: dict[str, object]) -> tuple[bytes, object]:
    image = record["image"]
    assert isinstance(image, np.ndarray)
    return image.tobytes(), record["label"]


def test_equal_data_give_equal_files(dataset: Path, tmp_path: Path) -> None:
    write_shards(tmp_path, make_rows(), [make_images()], **NAMES, shard_size=5, source={"seed": 7})
    for path in dataset.iterdir():
        assert (tmp_path / path.name).read_bytes() == path.read_bytes()


@pytest.mark.parametrize("leftover", ["_manifest.json", "shard-00000.parquet"])
def test_a_folder_with_another_data_set_is_refused(tmp_path: Path, leftover: str) -> None:
    (tmp_path / leftover).write_text("mine")
    with pytest.raises(ShardError, match=f"holds (a|part of a) data set.* \\({leftover}\\)"):
        write_shards(tmp_path, make_rows(), [make_images()], **NAMES)
    assert [path.name for path in tmp_path.iterdir()] == [leftover]
    assert (tmp_path / leftover).read_text() == "mine"


def test_what_a_killed_process_left_is_told_or_swept(tmp_path: Path) -> None:
    write_shards(tmp_path / "data", make_rows(), [make_images()], **NAMES)
    (tmp_path / "data" / MANIFEST).unlink()  # comes last
    with pytest.raises(ShardError, match="holds part of a data set, without its end"):
        write_shards(tmp_path / "data", make_rows(), [make_images()], **NAMES)
    other = tmp_path / "other"
    other.mkdir()
    (other / ".shard-00000.parquet.x1.tmp").write_text("half")
    (other / ".mine.x1.tmp").write_text("mine")
    write_shards(other, make_rows(), [make_images()], **NAMES)
    assert [path.name for path in other.glob(".*")] == [".mine.x1.tmp"]


def test_a_file_in_place_of_the_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ShardError, match="is a file"):
        write_shards(tmp_path / "file", make_rows(), [make_images()], **NAMES)


@pytest.mark.parametrize("failing_write", [1, 2, 4])
def test_a_full_disk_leaves_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing_write: int
) -> None:
    """The disk fills up while a shard (or the manifest, the fourth file) is flushed to it."""
    flushed: list[int] = []
    real_fsync = os.fsync

    def fsync(handle: int) -> None:
        flushed.append(handle)
        if len(flushed) == failing_write:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real_fsync(handle)

    monkeypatch.setattr(files.os, "fsync", fsync)
    with pytest.raises(OSError, match=r"No space left.*make room") as caught:
        write_shards(tmp_path, make_rows(), [make_images()], **NAMES, shard_size=5)
    assert caught.value.errno == errno.ENOSPC
    assert list(tmp_path.iterdir()) == []
    monkeypatch.undo()
    write_shards(tmp_path, make_rows(), [make_images()], **NAMES, shard_size=5)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
def test_a_disk_that_is_really_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def on_full_disk(*, dir: Path, prefix: str, suffix: str) -> tuple[int, str]:
        return os.open("/dev/full", os.O_WRONLY), str(dir / f"{prefix}{suffix}")

    monkeypatch.setattr(files.tempfile, "mkstemp", on_full_disk)
    with pytest.raises(OSError, match="No space left") as caught:
        write_shards(tmp_path, make_rows(), [make_images()], **NAMES)
    assert caught.value.errno == errno.ENOSPC
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("images", "message"),
    [
        ([make_images(10)], "10 images for 11 rows"),
        ([make_images(12)], "more images than the 11 rows"),
        ([make_images(6), make_images(5, size=16)], "give one size"),
        ([make_images() / 255.0], r"give uint8\[B, H, W, 3\]"),
    ],
)
def test_images_that_do_not_fit_are_refused(
    tmp_path: Path, images: list[np.ndarray], message: str
) -> None:
    with pytest.raises(ShardError, match=message):
        write_shards(tmp_path, make_rows(), images, **NAMES, shard_size=4)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"label_names": ("triangle",)}, "labels reach from 0 to 1 but there are 1"),
        ({"measure_names": ("colour",)}, "2 measures but 1 measure names"),
        ({"shard_size": 0}, "shard_size is 0"),
    ],
)
def test_settings_that_do_not_fit_are_refused(
    tmp_path: Path, changes: dict[str, object], message: str
) -> None:
    with pytest.raises(ShardError, match=message):
        write_shards(tmp_path / "set", make_rows(), [make_images()], **{**NAMES, **changes})  # type: ignore[arg-type]
    assert not (tmp_path / "set").exists()


def test_a_changed_shard_is_found_when_asked(dataset: Path, tmp_path: Path) -> None:
    for path in dataset.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    shard = tmp_path / "shard-00001.parquet"
    content = bytearray(shard.read_bytes())
    content[len(content) // 2] ^= 1
    shard.write_bytes(content)
    read_manifest(tmp_path)
    with pytest.raises(ShardError, match=r"shard-00001.parquet differs from its checksum"):
        ShardSource(tmp_path, verify=True)
    shard.unlink()
    with pytest.raises(ShardError, match=r"shard-00001.parquet is missing"):
        read_manifest(tmp_path)


@pytest.mark.parametrize("content", [None, "", "[]", '{"format": "other"}', "{"])
def test_a_folder_without_a_whole_manifest_is_no_data_set(
    tmp_path: Path, content: str | None
) -> None:
    if content is not None:
        (tmp_path / MANIFEST).write_text(content)
    with pytest.raises(ShardError, match=r"_manifest\.json"):
        read_manifest(tmp_path)


def test_a_manifest_with_missing_fields_is_refused(dataset: Path, tmp_path: Path) -> None:
    fields = json.loads((dataset / MANIFEST).read_text())
    del fields["count"]
    (tmp_path / MANIFEST).write_text(json.dumps(fields))
    with pytest.raises(ShardError, match="count"):
        read_manifest(tmp_path)


def test_schema_types(dataset: Path) -> None:
    schema = pq.read_schema(dataset / "shard-00000.parquet")
    types = {field.name: str(field.type) for field in schema}
    assert types == {
        "image": "struct<bytes: binary, path: string>",
        "label": "int64",
        "cell": "int32",
        "objective": "float",
        "measures": "fixed_size_list<element: float>[2]",
        "latent": "fixed_size_list<element: float>[6]",
    }


def test_the_folder_as_a_whole_is_a_table_for_pandas_and_pyarrow(dataset: Path) -> None:
    frame = pd.read_parquet(dataset)
    assert len(frame) == 11
    np.testing.assert_array_equal(frame["label"], make_rows().labels)
    assert pads.dataset(dataset).count_rows() == 11
    assert pq.read_table(dataset).num_rows == 11


def test_hugging_face_datasets_takes_the_folder_too(dataset: Path, tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    loaded = datasets.load_dataset(str(dataset), split="train", cache_dir=str(tmp_path))
    assert len(loaded) == 11
    assert loaded.features["label"].names == ["triangle", "square"]


def test_the_manifest_keeps_balance_and_notes(tmp_path: Path) -> None:
    balance = Balance(12, (Group("triangle", "red", 6, 6), Group("square", "red", 6, 5)))
    notes = ("no image is labelled 'circle'.",)
    names = {"label_names": ("triangle", "square"), "measure_names": ("colour", "shape")}
    write_shards(tmp_path, make_rows(), [make_images()], **names, balance=balance, notes=notes)
    manifest = read_manifest(tmp_path)
    assert (manifest.balance, manifest.notes) == (balance, notes)
    assert json.loads((tmp_path / MANIFEST).read_text())["balance"]["min_to_max"] == 0.8333


def test_a_folder_whose_name_is_no_text_is_read(tmp_path: Path) -> None:
    """Systems allow any bytes in a name; pyarrow takes only paths in UTF-8."""
    folder = tmp_path / os.fsdecode(b"latin-1 \xe9")
    rows = labelled(np.array([0, 1]), np.zeros((2, 1)), latents=np.ones((2, 3), np.float32))
    pictures = [np.zeros((2, 4, 4, 3), np.uint8)]
    write_shards(folder, rows, pictures, label_names=("a", "b"), measure_names=("m",))
    assert read_rows(folder).labels.tolist() == [0, 1]
    assert ShardSource(folder)[1]["label"] == 1
    rows.elites.to_parquet(folder / "archive.parquet")
    assert len(Elites.from_parquet(folder / "archive.parquet")) == 2
    assert len(list(open_pictures(folder).batches((4, 4), 2, []))) == 1
