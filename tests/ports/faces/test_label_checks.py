"""Labels that a RecordIO set itself contradicts, without a list beside it."""

from __future__ import annotations

import struct

import face_files
import numpy as np
import pytest

from qdgs_jax.ports.faces import label_checks
from qdgs_jax.ports.faces.damage import FaceSetError
from qdgs_jax.ports.faces.recordio import FaceRecords

PICTURE = face_files.encoded(face_files.faces(1)[0])
PEOPLE = np.repeat(np.arange(6), [3, 4, 1, 2, 5, 3])
LABEL = 12  # bytes from a record's begin to its label


def written(folder, people=PEOPLE):
    """A set without lists; gives where its records begin."""
    return face_files.insightface(folder, [PICTURE] * len(people), people.tolist(), lists=False)


def relabel(folder, at, label):
    with (folder / "train.rec").open("r+b") as file:
        file.seek(at + LABEL)
        file.write(struct.pack("<f", label))


def contradicted(folder, **options):
    """Records whose labels are contradicted, and what is told."""
    with FaceRecords(folder, **options) as records:
        found = [(record.key, record.identity) for record in records.records()]
        keys, identities = np.array(found).T
        return keys[records.contradicted(keys, identities)].tolist(), records.damage


@pytest.mark.parametrize(
    ("people", "lists"),
    [
        (PEOPLE, False),
        (np.array([0, 0, 0, 1, 1, 2, 0, 3, 3, 2]), False),  # identities that come again
        (np.random.default_rng(0).integers(0, 9, 300), False),  # in no order
        (7 * PEOPLE + 3, False),  # with gaps
        (PEOPLE[::-1].copy(), False),
        (PEOPLE, True),
    ],
)
def test_whole_sets_are_not_called_damaged(people, lists, tmp_path):
    pictures = [PICTURE] * len(people)
    face_files.insightface(tmp_path, pictures, people.tolist(), lists=lists)
    assert contradicted(tmp_path) == ([], ())


@pytest.mark.parametrize(
    ("record", "label", "reason"),
    [
        (1, 3, "its label is 3, by its place among the others 0"),
        (5, 0, "its label is 0, by its place among the others 1"),
        (8, 1, "its label is 1, by its place among the others 2"),  # the only one of its identity
        (10, 2, "its label is 2, by its place among the others 3"),  # one of two
        (18, 4, "its label is 4, by its place among the others 5"),  # the last one
    ],
)
def test_a_label_that_its_identitys_range_contradicts_is_named(record, label, reason, tmp_path):
    starts = written(tmp_path)
    relabel(tmp_path, starts[record], label)
    place = f"record {record} at byte {starts[record]}"
    with pytest.raises(FaceSetError, match=f"{place}: {reason}; mend"):
        contradicted(tmp_path)
    found, damage = contradicted(tmp_path, skip_corrupt=True)
    assert found == [record]
    assert [str(each) for each in damage] == [f"{place}: {reason}"]


def test_two_that_differ_are_both_named_where_nothing_tells_which_is_right(tmp_path):
    people = 7 * PEOPLE
    starts = written(tmp_path, people)
    relabel(tmp_path, starts[9], 5)
    found, damage = contradicted(tmp_path, skip_corrupt=True)
    assert found == [9, 10]
    assert "nothing tells which is right" in damage[0].reason


def flip(folder, at, bit):
    path = folder / "train.rec"
    content = bytearray(path.read_bytes())
    content[at + bit // 8] ^= 1 << bit % 8
    path.write_bytes(bytes(content))


@pytest.mark.parametrize("bit", range(32))
def test_each_flipped_bit_of_a_label_is_an_error_a_report_or_the_same_label(bit, tmp_path):
    starts = written(tmp_path)
    for record in range(1, len(PEOPLE) + 1):
        flip(tmp_path, starts[record] + LABEL, bit)
        with FaceRecords(tmp_path, skip_corrupt=True) as records:
            labels = {each.key: each.identity for each in records.records()}
            keys = np.array(list(labels))
            wrong = records.contradicted(keys, np.array(list(labels.values())))
            kept = {int(key): labels[key] for key in keys[~wrong]}
            assert kept == {key: PEOPLE[key - 1] for key in kept}
            assert (len(kept), len(records.damage)) in ((len(PEOPLE), 0), (len(PEOPLE) - 1, 1))
        flip(tmp_path, starts[record] + LABEL, bit)


@pytest.mark.parametrize(
    ("at", "content", "reason"),
    [
        (0, b"XXXX", "does not begin with a record's magic number"),
        (32, struct.pack("<2f", 4.5, 8), r"has the labels \(4\.5, 8\.0\) and 0 bytes"),
        (32, struct.pack("<2f", 8, 4), "should tell the range"),
        (32, struct.pack("<2f", 5, 8), r"tells, \[5 8\], does not join those of its neighbours"),
    ],
)
def test_damage_of_a_record_of_an_identity_is_named(at, content, reason, tmp_path):
    starts = face_files.insightface(tmp_path, [PICTURE] * 18, PEOPLE.tolist())
    for name in ("train.lst", "property"):
        (tmp_path / name).unlink()
    with (tmp_path / "train.rec").open("r+b") as file:
        file.seek(starts[20] + at)
        file.write(content)
    relabel(tmp_path, starts[12], 0)
    with pytest.raises(FaceSetError, match=rf"record 20 at byte {starts[20]}: .*{reason}"):
        contradicted(tmp_path)
    found, damage = contradicted(tmp_path, skip_corrupt=True)
    assert found == [12]
    assert len(damage) == 2


def test_records_that_record_0_does_not_announce_are_named(tmp_path):
    starts = written(tmp_path)
    head = face_files.labelled(0, [19, 22], b"")  # 22 for 25
    path = tmp_path / "train.rec"
    content = path.read_bytes()
    path.write_bytes(face_files.record(head) + content[starts[1] :])
    with pytest.raises(FaceSetError, match="3 records from 22 to 24: record 0 does not announce"):
        FaceRecords(tmp_path)
    head = face_files.labelled(0, [15, 25], b"")  # 15 for 19
    path.write_bytes(face_files.record(head) + content[starts[1] :])
    with pytest.raises(FaceSetError, match=r"record 15 .* bytes of a picture; 5 more of its kind"):
        contradicted(tmp_path)


def without_ranges(folder, labels):
    contents = [face_files.labelled(key, [label], PICTURE) for key, label in enumerate(labels)]
    folder.mkdir(exist_ok=True)
    (folder / "train.rec").write_bytes(b"".join(map(face_files.record, contents)))


@pytest.mark.parametrize(("row", "label"), [(33, 9), (33, 0), (0, 5), (199, 2), (39, 11)])
def test_a_label_that_leaves_the_order_of_all_others_is_named(row, label, tmp_path):
    labels = np.arange(200) // 10
    labels[row] = label
    without_ranges(tmp_path, labels)
    found, damage = contradicted(tmp_path, skip_corrupt=True)
    assert found == [row]
    assert damage[0].reason == f"its label {label} is out of the order of all others"


def test_both_are_named_where_either_may_be_out_of_order():
    labels = np.arange(400) // 4
    labels[[20, 21]] = labels[[21, 20]]
    assert list(label_checks.out_of_order(labels)) == []
    labels[[23, 24]] = labels[[24, 23]]
    assert list(label_checks.out_of_order(labels)) == [23, 24]


@pytest.mark.parametrize("kind", ["shuffled", "again", "falling", "few"])
def test_sets_in_another_order_are_not_called_damaged(kind):
    labels = {
        "shuffled": np.random.default_rng(0).permutation(2000) // 5,
        "again": np.r_[np.arange(300) // 3, 7, 7, 7, np.arange(303, 600) // 3],
        "falling": np.arange(200)[::-1] // 4,
        "few": np.array([0, 1, 0, 2]),
    }[kind]
    assert label_checks.out_of_order(labels) == {}


def test_labels_beyond_the_number_of_identities():
    labels = np.arange(200) // 10
    assert label_checks.beyond_count(labels, 20) == {}
    labels[7] = 33
    reason = "its label is 33, but record 0 tells of 20 identities"
    assert label_checks.beyond_count(labels, 20) == {7: reason}
    assert label_checks.beyond_count(3 * labels, 20) == {}  # labels are no such numbers


def test_ranges_that_float32_cannot_tell_are_not_used():
    end = label_checks.EXACT + 100
    ranges = np.array([[1, 9], [9, end - 50], [end - 50, end]])
    joined, gaps = label_checks.joined_ranges(ranges, end)
    np.testing.assert_array_equal(joined, [True, False, False])
    assert len(gaps) == 0
