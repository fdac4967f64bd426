"""Lists of pairs and folders of identities: files in their order, damage by line or file."""

from __future__ import annotations

import face_files
import numpy as np
import pytest

from qdgs_jax.ports.faces.damage import FaceSetError
from qdgs_jax.ports.faces.identity_folder import IdentityFolder
from qdgs_jax.ports.faces.pair_lists import (
    ListedPair,
    load_pairs,
    read_pairs_csv,
    read_pairs_txt,
)

IMAGES = face_files.faces(4)
FILES = ("m.01/m.01_0001.jpg", "m.01/m.01_0002.jpg", "m.02/m.02_0001.jpg", "m.02/m.02_0011.jpg")
RFW = "m.01\t1\t2\nm.02\t1\t11\nm.01\t2\tm.02\t1\n"
PAIRS = [(0, 1, True), (2, 3, True), (1, 2, False)]
LISTED = [ListedPair(FILES[a], FILES[b], same, "African") for a, b, same in PAIRS]


@pytest.fixture
def images(tmp_path):
    for file, image in zip(FILES, IMAGES, strict=True):
        (tmp_path / file).parent.mkdir(exist_ok=True)
        (tmp_path / file).write_bytes(face_files.encoded(image))  # PNG, whatever their name says
    return tmp_path


def listed(tmp_path, text):
    path = tmp_path / "pairs.txt"
    path.write_text(text)
    return path


@pytest.mark.parametrize("header", ["", "10\t300\n", "6000\n"])
def test_pairs_txt(header, tmp_path):
    assert read_pairs_txt(listed(tmp_path, header + RFW), group="African") == LISTED


def test_names_may_hold_spaces_between_tabs(tmp_path):
    pair, other = read_pairs_txt(listed(tmp_path, "Ann Lee\t1\t2\nAnn Lee\t1\tBo\t3\n"))
    assert (pair.first, pair.same) == ("Ann Lee/Ann Lee_0001.jpg", True)
    assert (other.second, other.same) == ("Bo/Bo_0003.jpg", False)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('fold,"p1,p2,label\n', "line 1: unexpected end"),
        ("p1,p2,label,label\na,b,1,0\n", r"several columns \['label'\]"),
        ("p1,p2,label,att1,att2\na,b,1,x,x\na,b,1, ,x\n", "line 3: there is no group in att1"),
    ],
)
def test_tables_that_cannot_be_understood(text, message, tmp_path):
    columns = ["att1", "att2"] if "att1" in text else []
    with pytest.raises(FaceSetError, match=message):
        read_pairs_csv(listed(tmp_path, text), group_columns=columns)


def test_numbers_and_names_that_no_file_has(images):
    with pytest.raises(FaceSetError, match=r"line 1: .* is neither"):
        read_pairs_txt(listed(images, "m.01\t" + "9" * 5000 + "\t2\n"))
    with pytest.raises(FaceSetError, match=r"pair 0, file .*no file's can"):
        load_pairs([ListedPair("m.01\0", FILES[0], True)], images)


def test_a_table_with_groups(tmp_path):
    text = "fold,p1,p2,label,att1,att2\n1,a/0.jpg,a/1.jpg,1,asian_females,asian_females\n"
    path = listed(tmp_path, text + "2,a/0.jpg,b/0.jpg,0.0,asian_females,black_males\n")
    first, second = read_pairs_csv(path)
    assert first == ListedPair("a/0.jpg", "a/1.jpg", True, "asian_females")
    assert second == ListedPair("a/0.jpg", "b/0.jpg", False, "asian_females|black_males")
    assert read_pairs_csv(path, group_columns=["att1"])[1].group == "asian_females"
    assert read_pairs_csv(path, group_columns=[])[1].group == ""


def test_pictures_of_a_list(images):
    found = load_pairs(LISTED, images)
    np.testing.assert_array_equal(found.images, IMAGES)
    np.testing.assert_array_equal(found.index.first, [0, 2, 1])
    np.testing.assert_array_equal(found.index.second, [1, 3, 2])
    np.testing.assert_array_equal(found.index.same, [True, True, False])
    assert found.index.groups == ("African",) * 3


@pytest.mark.parametrize("damage", ["missing", "cut", "outside"])
def test_a_picture_that_cannot_be_read_takes_its_pair_along(damage, images):
    pairs = list(LISTED)
    if damage == "outside":
        pairs[1] = ListedPair("../etc/passwd", FILES[3], True, "African")
        reason = r"pair 1, file \.\./etc/passwd: it lies outside"
    else:
        content = (images / FILES[3]).read_bytes()
        (images / FILES[3]).unlink()
        reason = f"pair 1, file {FILES[3]}: it cannot be read"
        if damage == "cut":
            (images / FILES[3]).write_bytes(content[:-9])
            reason = f"pair 1, file {FILES[3]}: the PNG picture is cut off"
    with pytest.raises(FaceSetError, match=reason):
        load_pairs(pairs, images)
    found = load_pairs(pairs, images, skip_corrupt=True)
    np.testing.assert_array_equal(found.images, IMAGES[:3])
    ends = np.stack([found.index.first, found.index.second], axis=1)
    np.testing.assert_array_equal(ends, [[0, 1], [1, 2]])
    assert (found.index.groups, len(found.damage)) == (("African",) * 2, 1)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "lists no pairs"),
        ("10\t300\n", "lists no pairs"),
        (RFW + "m.01\t1\n", r"pairs\.txt, line 4: 'm\.01\\t1' is neither"),
        (RFW + "m.01\tx\t2\n", "line 4"),
        (RFW + "m.01\t1\tm.02\tx\n", "line 4"),
    ],
)
def test_damaged_lists_are_named_by_line(text, message, tmp_path):
    with pytest.raises(FaceSetError, match=message):
        read_pairs_txt(listed(tmp_path, text))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"no columns \['p1', 'p2', 'label', 'att1', 'att2'\]"),
        ("p1,p2,label,att1\n", r"no columns \['att2'\]"),
        ("p1,p2,label,att1,att2\na,b,1,x,x\na,b,1,x\n", "line 3: 4 fields, the header has 5"),
        ("p1,p2,label,att1,att2\na,b,yes,x,x\n", "line 2: the label is 'yes'"),
        ('p1,p2,label,att1,att2\n"a"b,b,1,x,x\n', "line 2"),
        ("p1,p2,label,att1,att2\n", "lists no pairs"),
    ],
)
def test_damaged_tables_are_named_by_line(text, message, tmp_path):
    with pytest.raises(FaceSetError, match=message):
        read_pairs_csv(listed(tmp_path, text))


@pytest.fixture
def people(tmp_path):
    for name, count in (("10", 1), ("9", 2), ("empty", 0), ("anna", 1)):
        (tmp_path / name).mkdir()
        for number in range(count):
            image = face_files.faces(1, seed=len(name) + 10 * number)[0]
            (tmp_path / name / f"{10 - number}.png").write_bytes(face_files.encoded(image))
    (tmp_path / "9" / "notes.txt").write_text("no image")
    return tmp_path


def test_a_folder_for_each_identity(people):
    found = IdentityFolder(people)
    assert found.names == ("9", "10", "anna")
    files = [str(file.relative_to(people)) for file in found.files]
    assert files == ["9/9.png", "9/10.png", "10/10.png", "anna/10.png"]
    np.testing.assert_array_equal(found.identities, [0, 0, 1, 2])
    numbers, pictures = zip(*found.pictures(start=1), strict=True)
    assert numbers == (1, 2, 3)
    np.testing.assert_array_equal(pictures[0], face_files.faces(1, seed=1)[0])


def test_damaged_images_of_identities_are_named(people):
    (people / "9" / "10.png").write_bytes(face_files.encoded(face_files.faces(1, size=32)[0]))
    with pytest.raises(FaceSetError, match=r"file 9/10\.png: the picture has 32 x 32 pixels"):
        list(IdentityFolder(people).pictures())
    found = IdentityFolder(people, skip_corrupt=True)
    assert [number for number, _ in found.pictures()] == [0, 2, 3]
    assert [number for number, _ in found.pictures(start=1)] == [2, 3]  # as an import goes on
    other = IdentityFolder(people, side=32, skip_corrupt=True)
    assert [number for number, _ in other.pictures()] == [1]
    assert found.damage[0].place == "file 9/10.png"
    with pytest.raises(FaceSetError, match="no images in folders"):
        IdentityFolder(people / "empty")
    with pytest.raises(FaceSetError, match="cannot be read"):
        IdentityFolder(people / "nowhere")
