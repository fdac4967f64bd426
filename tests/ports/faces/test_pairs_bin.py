"""InsightFace's `.bin` files: read without executing, damage by position."""

from __future__ import annotations

import io
import pickle

import face_files
import numpy as np
import pytest
from PIL import Image

from qdgs_jax.datasets import png
from qdgs_jax.ports.faces.damage import FaceSetError
from qdgs_jax.ports.faces.pairs_bin import read_pairs_bin
from qdgs_jax.ports.faces.pictures import decode_picture

IMAGES = face_files.faces(8)
PICTURES = [face_files.encoded(image) for image in IMAGES]
SAME = [True, False, True, False]


def written(tmp_path, content):
    path = tmp_path / "lfw.bin"
    path.write_bytes(content)
    return path


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_what_python_3_writes(protocol, tmp_path):
    found = read_pairs_bin(written(tmp_path, face_files.pairs_bin(PICTURES, SAME, protocol)))
    np.testing.assert_array_equal(found.images, IMAGES)
    np.testing.assert_array_equal(found.index.same, SAME)
    assert found.damage == ()


@pytest.mark.parametrize("protocol", [2, 4])
def test_truths_may_be_numpys(protocol, tmp_path):
    content = face_files.pairs_bin(PICTURES, np.array(SAME), protocol)
    np.testing.assert_array_equal(read_pairs_bin(written(tmp_path, content)).index.same, SAME)


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_what_python_2_wrote(kind, tmp_path):
    noise = np.random.default_rng(1).integers(0, 256, (8, 16, 16, 3), np.uint8)
    images = np.concatenate([IMAGES[:4], noise[4:]])  # texts of up to 255 bytes and longer ones
    pictures = [face_files.encoded(image, kind) for image in images]
    assert max(map(len, pictures)) > 255
    content = face_files.pairs_bin_of_python_2(pictures, SAME)
    assert pickle.loads(content, encoding="bytes") == (pictures, SAME)
    found = read_pairs_bin(written(tmp_path, content))
    decoded = [np.asarray(Image.open(io.BytesIO(picture))) for picture in pictures]
    np.testing.assert_array_equal(found.images, decoded)
    np.testing.assert_array_equal(found.index.same, SAME)


def test_a_file_that_is_no_pickle_is_told_without_its_words(tmp_path):
    with pytest.raises(FaceSetError, match=r"neither a \.bin file of InsightFace") as e:
        read_pairs_bin(written(tmp_path, b"PQ of something else"))
    assert "opcode" not in str(e.value)


class Hostile:
    def __reduce__(self):
        return (print, ("executed",))


def damaged_pictures():
    png, jpeg = PICTURES[5], face_files.encoded(IMAGES[5], "JPEG")
    big = face_files.encoded(face_files.faces(1, size=32)[0])
    return {
        "empty": (b"", "empty"),
        "text": (b"not a picture", "neither PNG nor JPEG"),
        "cut PNG": (png[:-20], "cut off"),
        "cut JPEG": (jpeg[: len(jpeg) // 2], "cut off"),
        "no end": (png[:-12], "no end"),
        "changed": (png[:50] + bytes([png[50] ^ 1]) + png[51:], "checksum"),
        "other size": (big, "32 x 32 pixels, 16 x 16 are expected"),
    }


@pytest.mark.parametrize("kind", list(damaged_pictures()))
def test_a_damaged_picture_is_named_and_skipped_only_on_demand(kind, tmp_path):
    bad, reason = damaged_pictures()[kind]
    pictures = [*PICTURES[:5], bad, *PICTURES[6:]]
    content = face_files.pairs_bin(pictures, SAME)
    path = written(tmp_path, content)
    with pytest.raises(FaceSetError, match=r"lfw\.bin: pair 2, image 5.*" + reason):
        read_pairs_bin(path)
    found = read_pairs_bin(path, skip_corrupt=True)
    np.testing.assert_array_equal(found.images, IMAGES[[0, 1, 2, 3, 6, 7]])
    np.testing.assert_array_equal(found.index.same, [True, False, False])
    assert len(found.damage) == 1
    assert reason in found.damage[0].reason
    if bad:
        assert f"image 5 at byte {content.index(bad)}" in found.damage[0].place


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "The file is empty"),
        (b"version https://git-lfs.github.com/spec/v1\n", "Git LFS pointer"),
        (b"<!DOCTYPE html><html>", "web page"),
        (face_files.pairs_bin(PICTURES, SAME)[:-40], "truncated|broken"),
        (face_files.pairs_bin(PICTURES, SAME) + b"more", "4 bytes follow"),
        (face_files.pairs_bin(PICTURES, SAME[:3]), "8 pictures and 3 truths"),
        (face_files.pairs_bin(PICTURES, [1, 0, 2, 1]), "truth of pair 2 is 2"),
        (face_files.pairs_bin([], []), "0 pictures"),
        (pickle.dumps({"a": 1}), "holds a dict"),
        (pickle.dumps(([Hostile()], [True])), "Refused: the pickle names 'builtins.print'"),
        (face_files.pairs_bin([b""] * 8, SAME), "empty"),
    ],
)
def test_what_is_no_verification_set_is_refused(content, message, tmp_path, capsys):
    with pytest.raises(FaceSetError, match=message):
        read_pairs_bin(written(tmp_path, content))
    assert "executed" not in capsys.readouterr().out


def test_a_set_without_a_pair_that_can_be_read_is_refused(tmp_path):
    with pytest.raises(FaceSetError, match="no pair that can be read"):
        read_pairs_bin(written(tmp_path, face_files.pairs_bin([b""] * 8, SAME)), skip_corrupt=True)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(FaceSetError, match=r"agedb_30\.bin cannot be read: No such file"):
        read_pairs_bin(tmp_path / "agedb_30.bin")


@pytest.mark.parametrize("old", [False, True], ids=["python 3", "python 2"])
def test_flips_end_as_an_error_a_report_or_the_same_pictures(old, tmp_path):
    """500 for each of both, of PNG pictures: a bit of JPEG's has no checksum that could tell."""
    make = face_files.pairs_bin_of_python_2 if old else face_files.pairs_bin
    path = written(tmp_path, make(PICTURES, SAME))
    rng = np.random.default_rng(old)
    outcomes = {"error": 0, "report": 0, "same": 0}
    for _ in range(500):
        try:
            with face_files.flipped(path, rng):
                found = read_pairs_bin(path, skip_corrupt=True)
        except FaceSetError:
            outcomes["error"] += 1
            continue
        kept = [pair for pair in range(4) if f"pair {pair}," not in str(found.damage)]
        rows = [row for pair in kept for row in (2 * pair, 2 * pair + 1)]
        np.testing.assert_array_equal(found.images, IMAGES[rows])
        outcomes["report" if found.damage else "same"] += 1
    assert outcomes["report"] > 300


@pytest.mark.parametrize("decode", [decode_picture, png.decode_picture])
def test_pictures_are_those_that_viewers_show(decode):
    buffer = io.BytesIO()
    levels = np.arange(256, dtype=np.uint16).reshape(16, 16) * 257
    Image.fromarray(levels).save(buffer, "PNG")
    np.testing.assert_array_equal(decode(buffer.getvalue())[..., 1], levels // 257)
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned to the right
    top = np.zeros((16, 16, 3), np.uint8)
    top[:8] = 255
    buffer = io.BytesIO()
    Image.fromarray(top).save(buffer, "JPEG", exif=exif, quality=95)
    assert decode(buffer.getvalue())[:, :, 0].mean(axis=0)[[2, 13]].round().tolist() == [0, 255]
