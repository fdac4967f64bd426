"""InsightFace's RecordIO: what MXNet would read, without it; damage by position."""

from __future__ import annotations

import struct

import face_files
import numpy as np
import pytest

from qdgs_jax.ports.faces.damage import FaceSetError
from qdgs_jax.ports.faces.recordio import MAGIC, FaceRecords

IMAGES = face_files.faces(6)
PICTURES = [face_files.encoded(image) for image in IMAGES]
PEOPLE = [0, 0, 1, 2, 2, 2]


def read(folder, **options):
    """Keys, identities and pictures of a set, and what was skipped."""
    with FaceRecords(folder, **options) as records:
        found = list(records.pictures())
        keys = [record.key for record, _ in found]
        people = [record.identity for record, _ in found]
        return keys, people, [picture for _, picture in found], records.damage


def check(found, rows):
    keys, people, pictures, _ = found
    assert keys == [row + 1 for row in rows]
    assert people == [PEOPLE[row] for row in rows]
    np.testing.assert_array_equal(pictures, IMAGES[list(rows)])


@pytest.mark.parametrize("lists", [True, False], ids=["indexed", "walked"])
@pytest.mark.parametrize("numbers", [1, 2])
def test_pictures_come_in_order_with_their_identities(numbers, lists, tmp_path):
    face_files.insightface(tmp_path, PICTURES, PEOPLE, numbers=numbers, lists=lists)
    found = read(tmp_path)
    check(found, range(6))
    assert found[3] == ()
    check(read(tmp_path / "train.rec"), range(6))


def test_records_can_be_read_from_anywhere(tmp_path):
    face_files.insightface(tmp_path, PICTURES, PEOPLE)
    with FaceRecords(tmp_path) as records:
        assert len(records) == 6
        assert [record.content for record in records.records([5, 2])] == [PICTURES[4], PICTURES[1]]


@pytest.mark.parametrize("at", [0, 4, 5])
def test_a_picture_that_holds_the_magic_is_put_together_again(at, tmp_path):
    start = len(face_files.labelled(1, [0], b""))
    content = bytes(-start % 4) + bytes(at) + 2 * MAGIC + b"rest" + MAGIC
    starts = face_files.insightface(tmp_path, [content], [0])
    part = (tmp_path / "train.rec").read_bytes()[starts[1] + 7] >> 5
    assert part == (1 if at % 4 == 0 else 0)  # the first of several, or whole
    with FaceRecords(tmp_path) as records:
        assert next(records.records()).content == content


def test_without_a_header_record_all_records_are_pictures(tmp_path):
    contents = [face_files.labelled(k, [PEOPLE[k]], PICTURES[k]) for k in range(6)]
    (tmp_path / "train.rec").write_bytes(b"".join(map(face_files.record, contents)))
    keys, people, pictures, _ = read(tmp_path)
    assert (keys, people) == ([0, 1, 2, 3, 4, 5], PEOPLE)
    np.testing.assert_array_equal(pictures, IMAGES)


def test_a_list_of_mxnets_kind_is_compared(tmp_path):
    face_files.insightface(tmp_path, PICTURES, PEOPLE)
    lines = [f"{k + 1}\t{person}.0\tfaces/{k}.jpg\n" for k, person in enumerate(PEOPLE)]
    (tmp_path / "train.lst").write_text("".join(lines))
    check(read(tmp_path), range(6))
    (tmp_path / "train.lst").write_text("".join(lines).replace("4\t2.0", "4\t1.0"))
    with pytest.raises(FaceSetError, match=r"record 4 at byte \d+: its label is 2, in the list 1"):
        read(tmp_path)


def changed(at, value):
    def change(content, start):
        return content[: start + at] + value + content[start + at + len(value) :]

    return change


DAMAGE = {  # of record 3: what changes it, and what is said of it
    "magic": (changed(0, b"XXXX"), "does not begin with a record's magic number"),
    "longer": (changed(4, struct.pack("<I", 9999)), "the file ends within it"),
    "shorter": (changed(4, struct.pack("<I", 60)), "it ends at byte"),
    "part": (changed(7, b"\x40"), "parts are out of order"),
    "labels": (changed(8, struct.pack("<I", 999)), "declares 999 labels"),
    "fraction": (changed(12, struct.pack("<f", 1.5)), r"label 1\.5 is no number of an identity"),
    "nan": (changed(12, struct.pack("<f", np.nan)), "label nan"),
    "negative": (changed(12, struct.pack("<f", -1)), r"label -1\.0"),
    "beyond": (changed(12, struct.pack("<f", 77)), "label is 77, but the set has 3 identities"),
    "other": (changed(12, struct.pack("<f", 2)), "label is 2, in the list 1"),
    "picture": (changed(60, b"?"), "checksum"),
    "no picture": (changed(32, bytes(30)), "neither PNG nor JPEG"),
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_a_damaged_record_is_named_and_skipped_only_on_demand(kind, tmp_path):
    starts = face_files.insightface(tmp_path, PICTURES, PEOPLE)
    change, reason = DAMAGE[kind]
    path = tmp_path / "train.rec"
    path.write_bytes(change(path.read_bytes(), starts[3]))
    with pytest.raises(
        FaceSetError, match=rf"train\.rec: record 3 at byte {starts[3]}: .*{reason}"
    ):
        read(tmp_path)
    found = read(tmp_path, skip_corrupt=True)
    check(found, [0, 1, 3, 4, 5])
    assert [damage.place for damage in found[3]] == [f"record 3 at byte {starts[3]}"]


def test_a_file_that_is_cut_off(tmp_path):
    starts = face_files.insightface(tmp_path, PICTURES, PEOPLE)
    path = tmp_path / "train.rec"
    path.write_bytes(path.read_bytes()[: starts[5] + 20])
    with pytest.raises(FaceSetError, match=rf"record 5 at byte {starts[5]}: the file ends"):
        read(tmp_path)
    found = read(tmp_path, skip_corrupt=True)
    check(found, range(4))
    assert len(found[3]) == 2
    for name in ("train.idx", "train.lst"):
        (tmp_path / name).unlink()
    with pytest.raises(FaceSetError, match=r"record 5 .*without an index \(train\.idx\)"):
        read(tmp_path)
    found = read(tmp_path, skip_corrupt=True)
    check(found, range(4))
    assert "2 records from 5 to 6" in str(found[3][1])


def test_without_an_index_what_follows_damage_is_lost_and_said_so(tmp_path):
    starts = face_files.insightface(tmp_path, PICTURES, PEOPLE, lists=False)
    path = tmp_path / "train.rec"
    path.write_bytes(changed(0, b"XXXX")(path.read_bytes(), starts[3]))
    found = read(tmp_path, skip_corrupt=True)
    check(found, [0, 1])
    assert f"record 3 at byte {starts[3]}" in str(found[3][0])
    assert "4 records from 3 to 6" in str(found[3][1])


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("train.rec", b"", "The file is empty"),
        ("train.rec", b"XXXX" * 20, "record 0, which tells pictures from the rest"),
        ("train.idx", b"0\t0\nx\t5\n", r"train\.idx, line 2: 'x\\t5'"),
        ("train.idx", b"0\t0\n0\t5\n", "the number 0 for several records"),
        ("train.idx", b"0\t0\n1\t0\n", "the place 0 for several records"),
        ("train.idx", b"0\t0\n1\t99999999999999999999\n", "line 2"),
        ("train.idx", b"0\t0\n3000000000\t5\n", "line 2: '3000000000"),
        ("train.idx", b"", "has no records"),
        ("train.idx", b"0\t0\n\xff\t5\n", "no text in UTF-8"),
        ("train.lst", b"1\tpath\t0\n", "lists 1 pictures, the records hold 6"),
        ("train.lst", b"1\tpath\n", r"train\.lst, line 1"),
        ("train.lst", 7 * b"1\tpath\t0\n", r"train\.lst, line 7.*one too many"),
        ("train.lst", b"".join(b"%d\t0\tpath\n" % k for k in range(6)), "or others"),
        ("property", b"85742\n", "holds '85742'"),
    ],
)
def test_damaged_files_are_named(name, content, message, tmp_path):
    face_files.insightface(tmp_path, PICTURES, PEOPLE)
    (tmp_path / name).write_bytes(content)
    with pytest.raises(FaceSetError, match=message):
        read(tmp_path)


def test_a_header_record_that_makes_no_sense_is_refused(tmp_path):
    for labels in ([3.0], [7.5, 9.0], [7.0, 3.0], [np.nan, 9.0], [1.0, 2.0, 3.0]):
        content = face_files.record(face_files.labelled(0, labels, b""))
        (tmp_path / "train.rec").write_bytes(content)
        with pytest.raises(FaceSetError, match="two rising numbers"):
            read(tmp_path)


def test_the_size_of_most_pictures_counts_unless_somebody_says_another(tmp_path):
    big = [face_files.encoded(image) for image in face_files.faces(2, size=32)]
    starts = face_files.insightface(tmp_path, [*big, *PICTURES[2:]], PEOPLE, lists=False)
    match = rf"record 1 at byte {starts[1]}: .*32 x 32 pixels, 16 x 16 are expected"
    with pytest.raises(FaceSetError, match=match):
        read(tmp_path)
    check(read(tmp_path, skip_corrupt=True), range(2, 6))
    assert read(tmp_path, side=32, skip_corrupt=True)[0] == [1, 2]
    (tmp_path / "property").write_text("3,32,32\n")
    assert read(tmp_path, skip_corrupt=True)[0] == [1, 2]
    assert read(tmp_path, side=32, skip_corrupt=True)[0] == [1, 2]
    with pytest.raises(FaceSetError, match=r"property says .* 32 x 32 pixels, not 16 x 16"):
        read(tmp_path, side=16, skip_corrupt=True)


def test_a_folder_without_records_is_refused(tmp_path):
    with pytest.raises(FaceSetError, match=r"train\.rec is missing"):
        FaceRecords(tmp_path)


def test_flips_end_as_an_error_a_report_or_the_same_pictures(tmp_path):
    """1,000 of PNG pictures, a tenth in the index: a bit of JPEG's has no checksum to tell."""
    face_files.insightface(tmp_path, PICTURES, PEOPLE)
    rng = np.random.default_rng(0)
    outcomes = {"error": 0, "report": 0, "same": 0}
    for number in range(1000):
        try:
            with face_files.flipped(tmp_path / ("train.rec" if number % 10 else "train.idx"), rng):
                keys, people, pictures, damage = read(tmp_path, skip_corrupt=True)
        except FaceSetError:
            outcomes["error"] += 1
            continue
        rows = [key - 1 for key in keys]
        assert people == [PEOPLE[row] for row in rows]
        np.testing.assert_array_equal(pictures, IMAGES[rows])
        assert damage or len(rows) == 6
        outcomes["report" if damage else "same"] += 1
    assert outcomes["report"] > 500
