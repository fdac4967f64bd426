"""Real faces as shards: order and identities kept, a stopped import goes on."""

from __future__ import annotations

import face_files
import numpy as np
import pandas as pd
import pytest

from qdgs_jax.datasets import real_faces
from qdgs_jax.datasets.manifest import PLAN, ShardError, read_manifest
from qdgs_jax.datasets.real_faces import import_identities, import_records
from qdgs_jax.datasets.shards import ShardSource, read_rows
from qdgs_jax.ports.faces.damage import FaceSetError

IMAGES = face_files.faces(10)
PICTURES = [face_files.encoded(image) for image in IMAGES]
PEOPLE = [0, 0, 0, 1, 1, 2, 0, 3, 3, 2]


@pytest.fixture
def records(tmp_path):
    face_files.insightface(tmp_path / "ms1m", PICTURES, PEOPLE)
    return tmp_path / "ms1m"


def check(out, kept=range(10)):
    kept = list(kept)
    source, rows = ShardSource(out, verify=True), read_rows(out)
    np.testing.assert_array_equal([source[i]["image"] for i in range(len(source))], IMAGES[kept])
    np.testing.assert_array_equal(rows.subjects, np.array(PEOPLE)[kept])
    np.testing.assert_array_equal(rows.elites.cells, np.array(kept) + 1)
    assert not rows.labels.any()
    assert not (out / PLAN).exists()


def test_records_become_shards_in_their_order(records, tmp_path):
    told = []
    manifest = import_records(
        records, tmp_path / "out", shard_size=4, progress=lambda *done: told.append(done)
    )
    check(tmp_path / "out")
    assert manifest == read_manifest(tmp_path / "out")
    assert [shard.count for shard in manifest.shards] == [4, 4, 2]
    assert manifest.source == {"format": "InsightFace RecordIO", "identities": 4}
    assert manifest.label_names == ("face",)
    assert told[-1] == (10, 10)
    frame = pd.read_parquet(tmp_path / "out")
    assert list(frame.columns) == ["image", "label", "cell", "objective", "subject"]


@pytest.mark.parametrize("last", [0, 1, 2])
def test_an_import_that_was_stopped_goes_on(last, records, tmp_path, monkeypatch):
    import_records(records, tmp_path / "whole", shard_size=4)

    def stop(done, total):
        if done > 4 * last:
            raise KeyboardInterrupt

    monkeypatch.setattr(real_faces, "_TOGETHER", 2)
    with pytest.raises(KeyboardInterrupt):
        import_records(records, tmp_path / "out", shard_size=4, progress=stop)
    left = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "out").glob("shard-*")}
    assert len(left) == last
    first = []
    import_records(
        records, tmp_path / "out", shard_size=4, progress=lambda done, _: first.append(done)
    )
    assert first[0] == 4 * last + 2
    check(tmp_path / "out")
    for path in (tmp_path / "whole").iterdir():
        assert (tmp_path / "out" / path.name).read_bytes() == path.read_bytes()
    for name, changed in left.items():
        assert (tmp_path / "out" / name).stat().st_mtime_ns == changed


def stop(done, total):
    raise KeyboardInterrupt


def test_an_import_goes_on_where_its_records_were_moved(records, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        import_records(records, tmp_path / "out", shard_size=4, progress=stop)
    import_records(records.rename(tmp_path / "moved"), tmp_path / "out", shard_size=4)
    check(tmp_path / "out")


def test_an_import_of_images_goes_on_where_they_were_moved_but_not_with_others(tmp_path):
    folder = images_of_identities(tmp_path / "casia")
    with pytest.raises(KeyboardInterrupt):
        import_identities(folder, tmp_path / "out", shard_size=4, progress=stop)
    moved = folder.rename(tmp_path / "moved")
    (moved / "1" / "3.png").rename(moved / "2" / "3.png")  # as many files, another identity
    with pytest.raises(ShardError, match="digest of their names and sizes was"):
        import_identities(moved, tmp_path / "out", shard_size=4)
    (moved / "2" / "3.png").rename(moved / "1" / "3.png")
    import_identities(moved, tmp_path / "out", shard_size=4)
    rows = read_rows(tmp_path / "out")
    np.testing.assert_array_equal(rows.subjects, np.sort(PEOPLE))


def test_another_import_does_not_go_on_with_it(records, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        import_records(records, tmp_path / "out", shard_size=4, progress=stop)
    with pytest.raises(ShardError, match="shard_size was 4 and is 5"):
        import_records(records, tmp_path / "out", shard_size=5)


def test_damaged_records_stop_the_import_or_are_left_out(records, tmp_path, monkeypatch):
    monkeypatch.setattr(real_faces, "_TOGETHER", 2)
    starts = face_files.insightface(records, PICTURES, PEOPLE)
    rec = records / "train.rec"
    content = bytearray(rec.read_bytes())
    content[starts[6] + 70] ^= 8
    rec.write_bytes(bytes(content))
    with pytest.raises(FaceSetError, match=f"record 6 at byte {starts[6]}"):
        import_records(records, tmp_path / "out", shard_size=2)
    assert len(list((tmp_path / "out").glob("shard-*"))) == 2  # those before stay
    early = sorted((tmp_path / "out").glob("shard-*"))
    times = [file.stat().st_mtime_ns for file in early]
    with pytest.raises(ShardError, match="shard_size was 2 and is 3"):  # another data set's
        import_records(records, tmp_path / "out", shard_size=3, skip_corrupt=True)
    import_records(records, tmp_path / "out", shard_size=2, skip_corrupt=True)  # as it advised
    assert [file.stat().st_mtime_ns for file in early] == times
    manifest = import_records(records, tmp_path / "other", shard_size=2, skip_corrupt=True)
    assert read_manifest(tmp_path / "out").shards == manifest.shards
    check(tmp_path / "other", [0, 1, 2, 3, 4, 6, 7, 8, 9])
    assert manifest.count == 9
    assert len(manifest.notes) == 1
    assert f"left out: record 6 at byte {starts[6]}" in manifest.notes[0]


def test_a_label_that_the_set_contradicts_ends_the_import_before_a_shard(tmp_path):
    starts = face_files.insightface(tmp_path / "set", PICTURES, PEOPLE, lists=False)
    rec = tmp_path / "set" / "train.rec"
    content = bytearray(rec.read_bytes())
    content[starts[2] + 15] ^= 0x40  # from 0 to 2
    rec.write_bytes(bytes(content))
    match = f"record 2 at byte {starts[2]}: its label is 2, by its place among the others 0"
    with pytest.raises(FaceSetError, match=match):
        import_records(tmp_path / "set", tmp_path / "out")
    assert not (tmp_path / "out").exists()
    manifest = import_records(tmp_path / "set", tmp_path / "out", skip_corrupt=True)
    check(tmp_path / "out", [0, *range(2, 10)])
    assert match in manifest.notes[0]


def test_a_set_of_which_nothing_is_left_leaves_nothing(records, tmp_path):
    (records / "property").unlink()
    with pytest.raises(ShardError, match=r"no picture .*record 1 at .* 64 x 64 are expected"):
        import_records(records, tmp_path / "out", side=64, skip_corrupt=True)
    assert not (tmp_path / "out").exists()
    import_records(records, tmp_path / "out", skip_corrupt=True)
    check(tmp_path / "out")


def images_of_identities(folder):
    for number, (picture, person) in enumerate(zip(PICTURES, PEOPLE, strict=True)):
        place = folder / str(person)
        place.mkdir(parents=True, exist_ok=True)
        (place / f"{number}.png").write_bytes(picture)
    return folder


def test_a_folder_for_each_identity(tmp_path):
    images_of_identities(tmp_path / "casia")
    order = np.argsort(PEOPLE, kind="stable")
    manifest = import_identities(tmp_path / "casia", tmp_path / "out", shard_size=4)
    source, rows = ShardSource(tmp_path / "out"), read_rows(tmp_path / "out")
    np.testing.assert_array_equal([source[i]["image"] for i in range(10)], IMAGES[order])
    np.testing.assert_array_equal(rows.subjects, np.array(PEOPLE)[order])
    assert manifest.source["identities"] == 4
    (tmp_path / "casia" / "1" / "3.png").write_bytes(PICTURES[3][:-3])
    manifest = import_identities(tmp_path / "casia", tmp_path / "other", skip_corrupt=True)
    assert manifest.count == 9
    assert "file 1/3.png" in manifest.notes[0]


def folder_of(place, people):
    for number, person in enumerate(people):
        (place / f"id{person}").mkdir(parents=True, exist_ok=True)
        (place / f"id{person}" / f"{number}.png").write_bytes(PICTURES[number])
    return place


def stopped(imported, source, out, **options):
    """Stop an import after the first five pictures."""

    def stop(done, total):
        if done >= 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        imported(source, out, shard_size=2, progress=stop, **options)


def test_what_lies_beside_the_images_of_a_folder_is_told(tmp_path):
    casia = folder_of(tmp_path / "casia", PEOPLE)
    (casia / "id1" / "more.webp").write_bytes(b"RIFF")
    (casia / "id1" / "gone.jpg").symlink_to("nowhere.jpg")
    (casia / "id2" / "deeper").mkdir()
    (casia / "id9").mkdir()
    (casia / "top.jpg").write_bytes(PICTURES[0])
    (casia / "README.txt").touch()
    manifest = import_identities(casia, tmp_path / "out")
    assert manifest.count == 10
    assert [note.partition("left out: 1 ")[2] for note in manifest.notes] == [
        "images that lie in no identity's folder, such as top.jpg.",
        "names of images that are no files, such as id1/gone.jpg.",
        "images of other kinds than .jpg, .jpeg, .png, such as id1/more.webp.",
        "folders inside of identities' folders, such as id2/deeper.",
        "folders without an image, such as id9.",
    ]


def test_an_import_of_a_folder_that_has_changed_does_not_go_on(tmp_path, monkeypatch):
    monkeypatch.setattr(real_faces, "_TOGETHER", 1)
    casia = folder_of(tmp_path / "casia", sorted(PEOPLE))
    stopped(import_identities, casia, tmp_path / "out")
    last = casia / "id3" / "9.png"
    last.rename(casia / "id0" / "0b.png")  # as many files, and other people on them
    with pytest.raises(ShardError, match="digest of their names and sizes was"):
        import_identities(casia, tmp_path / "out", shard_size=2)
    (casia / "id0" / "0b.png").rename(last)
    assert import_identities(casia, tmp_path / "out", shard_size=2).count == 10


@pytest.mark.parametrize("changed", [[0, 0, 0, 1, 1, 2, 0, 3, 2, 2], None])
def test_an_import_of_records_that_have_changed_does_not_go_on(
    changed, records, tmp_path, monkeypatch
):
    monkeypatch.setattr(real_faces, "_TOGETHER", 1)
    stopped(import_records, records, tmp_path / "out", skip_corrupt=True)
    if changed:
        face_files.insightface(records, PICTURES, changed)
    else:
        content = (records / "train.rec").read_bytes()
        (records / "train.rec").write_bytes(content.replace(PICTURES[8], bytes(len(PICTURES[8]))))
    with pytest.raises(ShardError, match=r"is not the one that the import .* began with: row 8"):
        import_records(records, tmp_path / "out", shard_size=2, skip_corrupt=True)


@pytest.mark.parametrize("damaged", [1, 6])
def test_leaving_out_the_damage_that_ended_an_import_goes_on(
    damaged, records, tmp_path, monkeypatch
):
    monkeypatch.setattr(real_faces, "_TOGETHER", 2)
    content = (records / "train.rec").read_bytes()
    picture = PICTURES[damaged - 1]
    (records / "train.rec").write_bytes(content.replace(picture, bytes(len(picture))))
    out = tmp_path / "out"
    with pytest.raises(FaceSetError, match=f"record {damaged} .*--skip-corrupt"):
        import_records(records, out, shard_size=2)
    left = {path: path.stat().st_mtime_ns for path in out.glob("shard-*")}
    assert len(left) == damaged // 2 - (damaged == 6)
    manifest = import_records(records, out, shard_size=2, skip_corrupt=True)
    check(out, [number for number in range(10) if number != damaged - 1])
    assert len(manifest.notes) == 1
    assert all(path.stat().st_mtime_ns == changed for path, changed in left.items())


def test_a_shard_of_another_set_is_written_anew(records, tmp_path, monkeypatch):
    monkeypatch.setattr(real_faces, "_TOGETHER", 1)
    others = tmp_path / "others"
    face_files.insightface(others, PICTURES[::-1], PEOPLE[::-1])
    import_records(others, tmp_path / "other", shard_size=2)
    stopped(import_records, records, tmp_path / "out")
    shard = tmp_path / "out" / "shard-00001.parquet"
    shard.write_bytes((tmp_path / "other" / shard.name).read_bytes())
    import_records(records, tmp_path / "out", shard_size=2)
    check(tmp_path / "out")


def test_a_set_that_is_there_is_not_written_over(records, tmp_path):
    import_records(records, tmp_path / "out")
    with pytest.raises(ShardError, match="already holds a data set"):
        import_records(records, tmp_path / "out")
