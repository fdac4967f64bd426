"""Pictures of any data set: our shards and Parquet files of others, batch by batch."""

import io
import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from labelled_rows import labelled
from PIL import Image

from qdgs_jax.datasets.manifest import ShardError
from qdgs_jax.datasets.pictures import open_pictures
from qdgs_jax.datasets.png import decode_png
from qdgs_jax.datasets.shards import write_shards

IMAGE = pa.struct({"bytes": pa.binary(), "path": pa.string()})


def encoded(value, size=(8, 8), kind="PNG"):
    """The bytes of an even picture, size as (height, width)."""
    buffer = io.BytesIO()
    Image.fromarray(np.full((*size, 3), value, np.uint8)).save(buffer, kind)
    return buffer.getvalue()


def write_foreign(folder, contents, name="part.parquet", column="picture", **columns):
    """A Parquet file with pictures, as others write it."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = [None if each is None else {"bytes": each, "path": None} for each in contents]
    table = pa.table({**columns, column: pa.array(rows, IMAGE)})
    pq.write_table(table, folder / name)
    return folder


def write_own(folder, values, size=8, names=("a", "b")):
    """A data set of ours of even pictures, labelled in turn."""
    pictures = np.stack([np.full((size, size, 3), value, np.uint8) for value in values])
    rows = labelled(np.arange(len(values)) % 2, np.zeros((len(values), 2)))
    write_shards(
        folder, rows, [pictures], label_names=names, measure_names=("colour", "shape"), shard_size=3
    )
    return folder


def read(found, size, rows=4, columns=()):
    """All of a data set: values of the pictures, columns, positions that failed."""
    batches = list(found.batches(size, rows, columns))
    assert sum(batch.rows for batch in batches) == found.count
    values = [int(picture[0, 0, 0]) for batch in batches for picture in batch.pictures]
    cells = {name: [v for b in batches for v in b.columns[name]] for name in columns}
    return values, cells, [position for batch in batches for position in batch.failed]


def test_our_shards_are_read_in_order(tmp_path):
    found = open_pictures(write_own(tmp_path / "data", range(10, 80, 10)))
    assert (found.count, found.size, found.column) == (7, (8, 8), "image")
    assert len(found.digest) == 64
    assert found.class_names("label") == ("a", "b")
    values, cells, failed = read(found, (8, 8), rows=2, columns=["label"])
    assert values == list(range(10, 80, 10))
    assert cells["label"] == [0, 1, 0, 1, 0, 1, 0]
    assert failed == []
    assert open_pictures(tmp_path).folder == tmp_path / "data"  # the folder of the card will do


def test_files_of_others_are_averaged_down_and_failures_are_told_by_position(tmp_path):
    good = [encoded(10), encoded(20, (16, 16), "JPEG"), encoded(30, (32, 32), "WEBP")]
    bad = [None, b"", b"no picture", encoded(1)[:-30], encoded(1, (8, 16)), encoded(1, (4, 4))]
    folder = write_foreign(tmp_path / "ref", [bad[0], *good], "a.parquet")
    write_foreign(folder / "deeper", [*bad[1:], encoded(40)], "1.parquet")
    write_foreign(folder / "_hidden", [encoded(99)])
    found = open_pictures(folder)
    assert (found.count, found.column, found.digest) == (10, "picture", None)
    assert found.size == (8, 8)
    values, _, failed = read(found, (8, 8), rows=3)
    np.testing.assert_allclose(values, [10, 20, 30, 40], atol=3)
    assert failed == [0, 4, 5, 6, 7, 8]


def test_pictures_are_averaged_as_areas(tmp_path):
    checks = np.kron([[0, 200], [200, 0]], np.ones((1, 1)))[..., None].repeat(3, -1)
    buffer = io.BytesIO()
    Image.fromarray(np.tile(checks, (4, 4, 1)).astype(np.uint8)).save(buffer, "PNG")
    found = open_pictures(write_foreign(tmp_path / "ref", [buffer.getvalue()]))
    batch = next(found.batches((4, 4), 1))
    np.testing.assert_array_equal(batch.pictures, np.full((1, 4, 4, 3), 100))


def test_classes_of_a_column(tmp_path):
    folder = write_foreign(tmp_path / "ref", [encoded(1)], sex=[1], who=["x"], weight=[0.5])
    found = open_pictures(folder)
    assert found.class_names("sex") is None
    assert found.class_names("who") is None
    with pytest.raises(ShardError, match=r"no column 'age': it has sex, who, weight, picture"):
        found.class_names("age")
    with pytest.raises(ShardError, match=r"'weight' .* holds double"):
        found.class_names("weight")
    told = {"info": {"features": {"sex": {"names": ["f", "m"], "_type": "ClassLabel"}}}}
    table = pq.read_table(folder / "part.parquet")
    table = table.replace_schema_metadata({"huggingface": json.dumps(told)})
    pq.write_table(table, folder / "part.parquet")
    assert found.class_names("sex") == ("f", "m")


def test_what_is_no_data_set_is_refused_by_name(tmp_path):
    with pytest.raises(ShardError, match="missing does not exist"):
        open_pictures(tmp_path / "missing")
    (tmp_path / "file").touch()
    with pytest.raises(ShardError, match="file is a file"):
        open_pictures(tmp_path / "file")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ShardError, match="empty is no data set"):
        open_pictures(tmp_path / "empty")
    pq.write_table(pa.table({"text": ["a"]}), tmp_path / "empty" / "x.parquet")
    with pytest.raises(ShardError, match="no column of images, structs with bytes: it has text"):
        open_pictures(tmp_path / "empty")
    (tmp_path / "empty" / "x.parquet").write_bytes(b"PAR1 and so on")
    with pytest.raises(ShardError, match="cannot be read as Parquet"):
        open_pictures(tmp_path / "empty")
    whole = pa.BufferOutputStream()
    pq.write_table(pa.table({"text": ["a" * 99]}), whole)
    (tmp_path / "empty" / "x.parquet").write_bytes(whole.getvalue().to_pybytes()[:-20])
    with pytest.raises(ShardError, match="it is no Parquet file, or its end is missing"):
        open_pictures(tmp_path / "empty")
    dark = write_foreign(tmp_path / "dark", [None, b"x"])
    with pytest.raises(ShardError, match="no image that can be decoded: PNG, JPEG and WebP"):
        open_pictures(dark)
    half = write_own(tmp_path / "half", [1, 2])
    (half / "_manifest.json").unlink()
    with pytest.raises(ShardError, match="stopped half-way"):
        open_pictures(half)
    write_foreign(dark, [encoded(1)], "b.parquet", column="other")
    with pytest.raises(ShardError, match=r"part\.parquet has no column 'other'"):
        open_pictures(dark)


def test_our_own_shards_hold_png_alone():
    with pytest.raises(OSError, match="cannot identify"):
        decode_png(encoded(1, kind="JPEG"))
