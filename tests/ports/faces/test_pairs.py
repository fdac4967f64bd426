"""Pairs in memory: each picture once, whoever names it, and the size that a set's pictures have."""

from __future__ import annotations

import face_files
import numpy as np
import pytest

from qdgs_jax.ports.faces import pairs as module
from qdgs_jax.ports.faces import pictures
from qdgs_jax.ports.faces.carray import read_carray_pairs
from qdgs_jax.ports.faces.pair_lists import ListedPair, load_pairs
from qdgs_jax.ports.faces.pairs import FacePairs, PairIndex
from qdgs_jax.ports.faces.pairs_bin import read_pairs_bin

IMAGES = face_files.faces(3)
NAMED = [0, 1, 0, 2, 2, 1, 1, 1]  # pictures of four pairs
SAME = [True, False, True, False]


@pytest.fixture
def decoded(monkeypatch):
    """Counts pictures that are decoded."""
    found: list[bytes] = []
    decode = module.decode_picture

    def noted(content):
        found.append(content)
        return decode(content)

    monkeypatch.setattr(module, "decode_picture", noted)
    return found


def check(found, images=IMAGES):
    np.testing.assert_array_equal(found.images, images)
    ends = np.stack([found.index.first, found.index.second], axis=1)
    np.testing.assert_array_equal(ends, np.reshape(NAMED, (4, 2)))
    np.testing.assert_array_equal(found.index.same, SAME)


def test_pictures_of_a_bin_file_that_come_again_are_held_once(decoded, tmp_path):
    files = [face_files.encoded(IMAGES[number]) for number in NAMED]
    (tmp_path / "lfw.bin").write_bytes(face_files.pairs_bin(files, SAME))
    check(read_pairs_bin(tmp_path / "lfw.bin"))
    assert len(decoded) == 3


def test_files_that_a_list_names_again_are_held_once(decoded, tmp_path):
    for number, image in enumerate(IMAGES):
        (tmp_path / f"{number}.png").write_bytes(face_files.encoded(image))
    files = [f"{number}.png" for number in NAMED]
    listed = [ListedPair(*files[2 * i : 2 * i + 2], same) for i, same in enumerate(SAME)]
    check(load_pairs(listed, tmp_path))
    assert len(decoded) == 3


def test_pictures_of_a_bcolz_folder_that_come_again_are_held_once(tmp_path):
    face_files.memfile(tmp_path / "lfw", IMAGES[NAMED], SAME)
    check(read_carray_pairs(tmp_path / "lfw"))


def test_pictures_whose_pairs_are_all_left_out_are_let_go(decoded, tmp_path):
    for number in (0, 2):
        (tmp_path / f"{number}.png").write_bytes(face_files.encoded(IMAGES[number]))
    ends = [(1, 0), (2, 1), (2, 2), (0, 1), (2, 2)]
    listed = [ListedPair(f"{a}.png", f"{b}.png", True) for a, b in ends]
    found = load_pairs(listed, tmp_path, skip_corrupt=True)
    np.testing.assert_array_equal(found.images, IMAGES[2:])
    np.testing.assert_array_equal(found.index.first, [0, 0])
    assert [str(each).partition(":")[0] for each in found.damage] == [
        f"pair {pair}, file 1.png" for pair in (0, 1, 3)
    ]
    assert len(decoded) == 2


def test_indexes_that_do_not_fit_are_refused():
    rows = np.arange(2)
    with pytest.raises(ValueError, match=r"have \[2, 2, 3\] and 0 entries"):
        PairIndex(rows, rows, np.ones(3, bool))
    with pytest.raises(ValueError, match=r"have \[2, 2, 2\] and 1 entries"):
        PairIndex(rows, rows, np.ones(2, bool), ("dark",))
    for wrong in (-1, 3):
        index = PairIndex(rows, np.array([0, wrong]), np.ones(2, bool))
        with pytest.raises(ValueError, match=rf"names picture {wrong}, there are 3 from 0"):
            FacePairs(IMAGES, index)
    shown = repr(FacePairs(IMAGES, PairIndex(rows, rows, np.array([True, False]))))
    assert shown == "FacePairs(2 pairs of 3 pictures of 16 x 16 pixels, 1 of one person)"


BIG = face_files.encoded(face_files.faces(1, size=32)[0])
SMALL = [face_files.encoded(image) for image in face_files.faces(7)]


def test_the_size_of_most_pictures_counts_and_not_the_first_ones(tmp_path):
    path = tmp_path / "lfw.bin"
    path.write_bytes(face_files.pairs_bin([BIG, BIG, *SMALL[:6]], SAME))
    with pytest.raises(ValueError, match=r"image 0 .* has 32 x 32 pixels, 16 x 16 are expected"):
        read_pairs_bin(path)
    found = read_pairs_bin(path, skip_corrupt=True)
    np.testing.assert_array_equal(found.images, face_files.faces(7)[:6])
    assert len(found.damage) == 1
    found = read_pairs_bin(path, side=32, skip_corrupt=True)
    assert (len(found), len(found.damage)) == (1, 3)
    with pytest.raises(
        ValueError,
        match=r"no pair that can be read; the first of 4: pair 0, image 0 .* 64 x 64 are",
    ):
        read_pairs_bin(path, side=64, skip_corrupt=True)


def test_the_common_size():
    def size(*files):
        return pictures.common_size(len(files), lambda number: files[number])

    assert size(BIG, SMALL[0]) == (32, 32)  # the first of equals
    assert size(BIG, SMALL[0], b"", SMALL[1]) == (16, 16)
    assert size(b"", b"text") is None
    wide = face_files.encoded(np.zeros((20, 40, 3), np.uint8), "JPEG")
    assert size(wide) == (20, 40)


def test_the_common_size_is_told_by_pictures_spread_over_the_set(monkeypatch):
    monkeypatch.setattr(pictures, "SAMPLE", 5)
    files = [BIG] * 9 + [SMALL[0]] * 12
    assert pictures.common_size(21, lambda number: files[number]) == (16, 16)
    only = [b""] * 7 + [BIG] + [b""] * 8  # nothing that is looked at can be read
    assert pictures.common_size(16, lambda number: only[number]) == (32, 32)
