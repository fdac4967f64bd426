"""AdaFace's folders of verification sets: chunks of Blosc, and the uncompressed copy."""

from __future__ import annotations

import json
import sys

import face_files
import numpy as np
import pytest

from qdgs_jax.ports.faces.carray import read_carray_pairs
from qdgs_jax.ports.faces.damage import FaceSetError

IMAGES = np.random.default_rng(0).integers(0, 256, (8, 16, 16, 3), np.uint8)
SAME = [True, False, True, False]


@pytest.fixture
def folder(tmp_path):
    pytest.importorskip("blosc")
    face_files.carray(tmp_path / "lfw", IMAGES, SAME)
    return tmp_path / "lfw"


@pytest.fixture
def plain(tmp_path):
    face_files.memfile(tmp_path / "cfp_fp", IMAGES, SAME)
    return tmp_path / "cfp_fp"


def test_chunks_are_the_pictures_with_red_first(folder):
    found = read_carray_pairs(folder)
    np.testing.assert_array_equal(found.images, IMAGES)
    np.testing.assert_array_equal(found.index.same, SAME)


def test_every_brightness_survives(plain):
    ramp = np.arange(256, dtype=np.uint8).repeat(24).reshape(8, 16, 16, 3)
    face_files.memfile(plain.with_name("ramp"), ramp, SAME)
    np.testing.assert_array_equal(read_carray_pairs(plain.with_name("ramp")).images, ramp)
    np.testing.assert_array_equal(read_carray_pairs(plain).images, IMAGES)


def change(path, at, value):
    content = bytearray(path.read_bytes())
    content[at : at + len(value)] = value
    path.write_bytes(bytes(content))


CHUNK_DAMAGE = {
    "missing": (lambda p: p.unlink(), "cannot be read"),
    "cut": (lambda p: p.write_bytes(p.read_bytes()[:-5]), "bytes but declares"),
    "empty": (lambda p: p.write_bytes(b""), "no chunk of bcolz"),
    "magic": (lambda p: change(p, 0, b"X"), "no chunk of bcolz"),
    "length": (lambda p: change(p, 20, b"\xff\xff"), "bytes of pictures"),
    "version": (lambda p: change(p, 16, b"\x77"), "Blosc cannot open it"),
    "stream": (lambda p: change(p, 40, bytes(300)), "Blosc cannot open it|no brightnesses"),
}


@pytest.mark.parametrize("kind", CHUNK_DAMAGE)
def test_a_damaged_chunk_is_named_and_skipped_only_on_demand(kind, folder):
    damage, reason = CHUNK_DAMAGE[kind]
    damage(folder / "data" / "__1.blp")  # images 3 to 5
    with pytest.raises(FaceSetError, match=rf"lfw: images 3 to 5, __1\.blp: .*({reason})"):
        read_carray_pairs(folder)
    found = read_carray_pairs(folder, skip_corrupt=True)
    np.testing.assert_array_equal(found.images, IMAGES[[0, 1, 6, 7]])
    np.testing.assert_array_equal(found.index.same, [True, False])
    assert len(found.damage) == 1


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("meta/sizes", "{", "is no JSON"),
        ("meta/sizes", "[1]", "no table"),
        ("meta/sizes", '{"shape": [8, 16, 16, 3]}', r"of shape \[8, 16, 16, 3\]"),
        ("meta/sizes", '{"shape": [9, 3, 16, 16]}', "9 pictures, but there are 4 truths"),
        ("meta/storage", '{"dtype": "object", "chunklen": 3}', "'object'"),
        ("meta/storage", '{"dtype": "float32", "chunklen": 0}', "gives 0 rows"),
    ],
)
def test_a_damaged_description_is_named(file, content, message, folder):
    (folder / file).write_text(content)
    with pytest.raises(FaceSetError, match=message):
        read_carray_pairs(folder, skip_corrupt="9 pictures" in message)


def test_damage_of_the_uncompressed_copy_is_named(plain):
    memory = plain / "memfile" / "mem_file.dat"
    change(memory, 4000, b"\xff\xff\xff\x7f")
    with pytest.raises(FaceSetError, match="images from 0: its numbers are no brightnesses"):
        read_carray_pairs(plain)
    memory.write_bytes(memory.read_bytes()[:-1])
    with pytest.raises(FaceSetError, match=r"24575 bytes but declares 24576"):
        read_carray_pairs(plain)
    memory.with_name("mem_file.dat.conf").write_text(json.dumps({"shape": [8], "dtype": "float32"}))
    with pytest.raises(FaceSetError, match=r"of shape \[8\]"):
        read_carray_pairs(plain)


def test_truths_that_are_missing_or_objects_are_refused(plain):
    truths = plain.with_name("cfp_fp_list.npy")
    np.save(truths, np.array([print], dtype=object))
    with pytest.raises(FaceSetError, match="cannot be read: Object arrays"):
        read_carray_pairs(plain)
    np.save(truths, np.array([0, 1, 2, 1]))
    with pytest.raises(FaceSetError, match="no list of booleans"):
        read_carray_pairs(plain)
    truths.unlink()
    with pytest.raises(FaceSetError, match=r"cfp_fp_list\.npy is missing"):
        read_carray_pairs(plain)
    with pytest.raises(FaceSetError, match="is no folder"):
        read_carray_pairs(plain / "nothing")


def test_without_blosc_the_way_on_is_told(plain, monkeypatch):
    (plain / "meta").mkdir()
    (plain / "meta/sizes").write_text('{"shape": [8, 3, 16, 16]}')
    (plain / "meta/storage").write_text('{"dtype": "float32", "chunklen": 3}')
    (plain / "memfile/mem_file.dat").unlink()
    monkeypatch.setitem(sys.modules, "blosc", None)
    with pytest.raises(FaceSetError, match=r"pip install \"qdgs-jax\[faces\]\""):
        read_carray_pairs(plain)
