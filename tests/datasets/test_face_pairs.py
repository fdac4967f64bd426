"""Pairs on disk: each picture once, a table of pairs beside them, and what older folders hold."""

from __future__ import annotations

import dataclasses
import errno
import json

import face_files
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from qdgs_jax.datasets import shards
from qdgs_jax.datasets.face_pairs import TABLE, read_pairs, write_pairs
from qdgs_jax.datasets.manifest import MANIFEST, ShardError, read_manifest
from qdgs_jax.datasets.real_faces import batches_of, face_rows, write_identities
from qdgs_jax.datasets.shards import write_shards
from qdgs_jax.ports.faces.damage import Damage
from qdgs_jax.ports.faces.pairs import FacePairs, PairIndex

IMAGES = face_files.faces(4)
GROUPS = ("light", "dark", "dark", "light", "dark")
FIRST, SECOND = np.array([0, 0, 3, 2, 2]), np.array([1, 2, 0, 2, 1])
SAME = np.array([True, False, False, True, True])


def pairs(groups=GROUPS):
    return FacePairs(IMAGES, PairIndex(FIRST, SECOND, SAME, groups), (Damage("image 3", "cut"),))


@pytest.mark.parametrize("groups", [(), GROUPS])
def test_pairs_are_read_back_and_each_picture_is_there_once(groups, tmp_path):
    manifest = write_pairs(tmp_path / "lfw", pairs(groups), source={"file": "lfw.bin"})
    found = read_pairs(tmp_path / "lfw", verify=True)
    np.testing.assert_array_equal(found.images, IMAGES)
    for name in ("first", "second", "same"):
        np.testing.assert_array_equal(getattr(found.index, name), getattr(pairs().index, name))
    assert found.index.groups == groups
    assert manifest.count == len(pd.read_parquet(tmp_path / "lfw")) == 4
    assert manifest.source["file"] == "lfw.bin"
    assert manifest.notes == ("left out: image 3: cut.",)
    table = pd.read_feather(tmp_path / "lfw" / TABLE)
    assert list(table.columns) == ["first", "second", "same", *(["group"] if groups else [])]


def test_pairs_are_written_alike_and_not_over_others(tmp_path):
    for name in ("one", "other"):
        write_pairs(tmp_path / name, pairs())
    for path in (tmp_path / "one").iterdir():
        assert path.read_bytes() == (tmp_path / "other" / path.name).read_bytes()
    with pytest.raises(ShardError, match="already holds a data set"):
        write_pairs(tmp_path / "one", pairs())


@pytest.mark.parametrize("groups", [(), GROUPS])
def test_a_folder_of_two_rows_for_each_pair_is_read_still(groups, tmp_path):
    names = sorted(set(groups))
    numbers = np.array([names.index(group) for group in groups]) if groups else 0
    rows = face_rows(np.arange(10), np.arange(5).repeat(2))
    images = IMAGES[np.stack([FIRST, SECOND], axis=1).reshape(-1)]
    write_shards(
        tmp_path / "lfw",
        dataclasses.replace(rows, labels=(SAME + 2 * numbers).repeat(2)),
        batches_of(iter(images)),
        label_names=[f"{name}: {word}" for name in names or ["all"] for word in ("not", "same")],
        measure_names=(),
        shard_size=4,
        source={"pairs": 5, "groups": names},
    )
    found = read_pairs(tmp_path / "lfw")
    np.testing.assert_array_equal(found.images[found.index.first], IMAGES[FIRST])
    np.testing.assert_array_equal(found.images[found.index.second], IMAGES[SECOND])
    np.testing.assert_array_equal(found.index.same, SAME)
    assert found.index.groups == groups


def test_a_set_of_identities_holds_no_pairs(tmp_path):
    write_identities(tmp_path / "out", IMAGES, np.arange(4))
    with pytest.raises(ShardError, match="holds no pairs"):
        read_pairs(tmp_path / "out")


def test_a_table_that_was_changed_or_is_missing_is_named(tmp_path):
    write_pairs(tmp_path / "lfw", pairs())
    table = tmp_path / "lfw" / TABLE
    content = bytearray(table.read_bytes())
    content[len(content) // 2] ^= 1
    table.write_bytes(content)
    with pytest.raises(ShardError, match=f"{TABLE} differs from its checksum .*import it anew"):
        read_pairs(tmp_path / "lfw")
    table.unlink()
    with pytest.raises(ShardError, match=f"{TABLE} cannot be read"):
        read_pairs(tmp_path / "lfw")


def test_pictures_that_were_changed_are_named(tmp_path):
    write_pairs(tmp_path / "lfw", pairs())
    manifest = tmp_path / "lfw" / MANIFEST
    text = manifest.read_text()
    manifest.write_text(text.replace('"image_size": [\n    16,', '"image_size": [\n    32,'))
    with pytest.raises(ShardError, match="picture of row 0 has 16 x 16 pixels"):
        read_pairs(tmp_path / "lfw")
    manifest.write_text(text)
    shard = tmp_path / "lfw" / "shard-00000.parquet"
    whole = pq.read_table(shard)
    pq.write_table(whole.slice(0, 3), shard)
    with pytest.raises(ShardError, match="has 3 rows, but the manifest says 4"):
        read_pairs(tmp_path / "lfw")
    broken = whole["image"].to_pylist()
    broken[2]["bytes"] = broken[2]["bytes"][:40]
    column = pa.array(broken, whole.schema.field("image").type)
    pq.write_table(whole.set_column(0, "image", column), shard)
    with pytest.raises(ShardError, match="picture of row 2 cannot be decoded"):
        read_pairs(tmp_path / "lfw")


def test_a_manifest_of_fewer_pictures_than_pairs_name_is_refused(tmp_path):
    write_pairs(tmp_path / "lfw", pairs())
    shard = tmp_path / "lfw" / "shard-00000.parquet"
    pq.write_table(pq.read_table(shard).slice(0, 3), shard)
    fields = json.loads((tmp_path / "lfw" / MANIFEST).read_text())
    fields["count"] = fields["shards"][0]["count"] = 3
    (tmp_path / "lfw" / MANIFEST).write_text(json.dumps(fields))
    assert read_manifest(tmp_path / "lfw").count == 3
    with pytest.raises(ShardError, match=r"names picture 3, there are 3 .*Import it again"):
        read_pairs(tmp_path / "lfw")


def test_a_full_disk_leaves_no_table_and_no_shard(tmp_path, monkeypatch):
    write = shards.write_atomically

    def full(path, content):
        if path.name == MANIFEST:
            raise OSError(errno.ENOSPC, "No space left on device")
        write(path, content)

    monkeypatch.setattr(shards, "write_atomically", full)
    with pytest.raises(OSError, match="No space left"):
        write_pairs(tmp_path / "lfw", pairs())
    assert list((tmp_path / "lfw").iterdir()) == []
