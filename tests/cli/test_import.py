"""`qdgs import`: sets of real faces on the command line."""

import face_files
import numpy as np
import pytest
from toy_runs import qdgs

from qdgs_jax.datasets.face_pairs import read_pairs
from qdgs_jax.datasets.manifest import read_manifest
from qdgs_jax.datasets.shards import read_rows

IMAGES = face_files.faces(6)
PICTURES = [face_files.encoded(image) for image in IMAGES]


@pytest.fixture(autouse=True)
def in_a_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_records(in_a_folder, capsys):
    starts = face_files.insightface(in_a_folder / "ms1m", PICTURES, [0, 1, 1, 2, 2, 2])
    assert qdgs("import", "insightface", "ms1m", "out", "--shard-size", 4) == 0
    said = capsys.readouterr().out
    assert said.startswith("ms1m: reading the records\n")
    assert "out: 6 images of 3 identities" in said
    np.testing.assert_array_equal(read_rows("out").subjects, [0, 1, 1, 2, 2, 2])
    assert qdgs("import", "insightface", "ms1m", "out") == 2
    rec = in_a_folder / "ms1m" / "train.rec"
    rec.write_bytes(rec.read_bytes()[: starts[2]] + b"X" + rec.read_bytes()[starts[2] + 1 :])
    assert qdgs("import", "insightface", "ms1m", "other") == 2
    assert f"record 2 at byte {starts[2]}" in capsys.readouterr().err
    assert qdgs("import", "insightface", "ms1m", "third", "--skip-corrupt") == 0
    assert f"warning: left out: record 2 at byte {starts[2]}" in capsys.readouterr().out


def test_a_folder_of_images(in_a_folder, capsys):
    for number, picture in enumerate(PICTURES):
        (in_a_folder / "casia" / str(number % 2)).mkdir(parents=True, exist_ok=True)
        (in_a_folder / "casia" / str(number % 2) / f"{number}.png").write_bytes(picture)
    assert qdgs("import", "folder", "casia", "out") == 0
    assert "out: 6 images of 2 identities" in capsys.readouterr().out
    assert read_manifest("out").count == 6


def test_a_verification_set(in_a_folder, capsys):
    content = face_files.pairs_bin(PICTURES, [True, False, True])
    (in_a_folder / "lfw.bin").write_bytes(content)
    assert qdgs("import", "verification", "lfw.bin", "lfw") == 0
    assert "lfw: 3 pairs of 6 pictures, 2 of one person" in capsys.readouterr().out
    np.testing.assert_array_equal(read_pairs("lfw").images, IMAGES)
    assert qdgs("import", "verification", "lfw.bin", "lfw") == 2


@pytest.mark.parametrize("option", ["images", "group", "group-columns"])
def test_options_of_lists_are_refused_for_other_sets(option, in_a_folder, capsys):
    (in_a_folder / "lfw.bin").write_bytes(face_files.pairs_bin(PICTURES, [True, False, True]))
    assert qdgs("import", "verification", "lfw.bin", "lfw", f"--{option}", ".") == 2
    assert f"--{option} is for" in capsys.readouterr().err
    assert not (in_a_folder / "lfw").exists()


@pytest.mark.parametrize("options", [(), ("--side", 32)])
def test_the_size_of_pictures_is_that_of_most_or_is_given(options, in_a_folder, capsys):
    files = [face_files.encoded(face_files.faces(1, size=32)[0]), *PICTURES]
    for number, file in enumerate(files):
        (in_a_folder / "casia" / str(number % 3)).mkdir(parents=True, exist_ok=True)
        (in_a_folder / "casia" / str(number % 3) / f"{number}.png").write_bytes(file)
    face_files.insightface(in_a_folder / "ms1m", files, [0, 0, 0, 1, 1, 1, 1], lists=False)
    (in_a_folder / "lfw.bin").write_bytes(face_files.pairs_bin([files[0], *files], [True] * 4))
    kept, size = (1, 32) if options else (6, 16)
    for kind, source in (("folder", "casia"), ("insightface", "ms1m"), ("verification", "lfw.bin")):
        command = ("import", kind, source, f"{kind}-out", *options)
        assert qdgs(*command) == 2
        assert f"pixels, {size} x {size} are expected" in capsys.readouterr().err.replace("\n", " ")
        assert qdgs(*command, "--skip-corrupt") == 0
        capsys.readouterr()
        manifest = read_manifest(f"{kind}-out")
        assert (manifest.count, manifest.image_size) == (kept, (size, size))


def test_the_side_of_a_bcolz_folder_is_not_asked_for(in_a_folder, capsys):
    face_files.memfile(in_a_folder / "lfw", IMAGES, [True, False, True])
    assert qdgs("import", "verification", "lfw", "out", "--side", 16) == 2
    assert "--side is for files" in capsys.readouterr().err
    assert qdgs("import", "verification", "lfw", "out", "--side", 0) == 2


def test_lists_of_pairs(in_a_folder, capsys):
    for number, picture in enumerate(PICTURES):
        (in_a_folder / f"{number}.jpg").write_bytes(picture)
    rows = "0.jpg,1.jpg,1,dark,dark\n2.jpg,3.jpg,0,light,light\n4.jpg,9.jpg,0,light,light\n"
    (in_a_folder / "bfw.csv").write_text("p1,p2,label,att1,att2\n" + rows)
    command = ("import", "verification", "bfw.csv", "bfw")
    assert qdgs(*command) == 2
    assert "--images" in capsys.readouterr().err
    assert qdgs(*command, "--images", ".") == 2
    assert "pair 2, file 9.jpg: it cannot be read" in capsys.readouterr().err
    assert qdgs(*command, "--images", ".", "--skip-corrupt") == 0
    said = capsys.readouterr().out
    assert "bfw: 2 pairs of 4 pictures, 1 of one person, of the groups dark, light" in said
    assert "warning: left out: pair 2, file 9.jpg" in said
    assert read_pairs("bfw").index.groups == ("dark", "light")
    (in_a_folder / "pairs.txt").write_text("a\t1\t2\n")
    (in_a_folder / "a").mkdir()
    for number in (1, 2):
        (in_a_folder / "a" / f"a_000{number}.jpg").write_bytes(PICTURES[number])
    options = ("--images", ".", "--group", "African")
    assert qdgs("import", "verification", "pairs.txt", "rfw", *options) == 0
    assert read_pairs("rfw").index.groups == ("African",)
