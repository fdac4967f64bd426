"""Shards that were changed are noticed, and those that were not are not read again."""

from __future__ import annotations

import os
import shutil

import face_files
import numpy as np
import pytest

from qdgs_jax.datasets import unchanged
from qdgs_jax.datasets.manifest import ShardError, read_manifest
from qdgs_jax.datasets.real_faces import write_identities
from qdgs_jax.datasets.unchanged import check_unchanged

FILES = [f"shard-0000{number}.parquet" for number in range(3)]


@pytest.fixture
def data(tmp_path):
    write_identities(tmp_path / "data", face_files.faces(6), np.arange(6) // 2, shard_size=2)
    return tmp_path / "data"


@pytest.fixture
def read(monkeypatch):
    """Names of the shards that are read."""
    found: list[str] = []
    digest = unchanged._digest

    def noted(file):
        found.append(file.name)
        return digest(file)

    monkeypatch.setattr(unchanged, "_digest", noted)
    return found


def check(data, **options):
    told: list[str] = []
    note = data.with_name("note.json")
    options = {"begun": note.is_file(), **options}
    check_unchanged(data, read_manifest(data), note, told=told.append, **options)
    return told


def change(file, *, later):
    """Another byte in the middle, as many bytes, and the time of before or a later one."""
    times = file.stat()
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    os.utime(file, ns=(times.st_atime_ns, times.st_mtime_ns + later))


def test_shards_are_noted_and_then_compared_by_size_and_time(data, read):
    assert check(data) == check(data) == []
    assert read == []
    os.utime(data / FILES[1], ns=(0, 0))
    assert "1 of 3 shards, " in check(data)[0]
    assert read == [FILES[1]]
    assert check(data) == []  # as it is noted now
    copied = shutil.copytree(data, data.with_name("copied"), copy_function=shutil.copyfile)
    check(copied)
    assert read == [FILES[1], *FILES]


@pytest.mark.parametrize("how", ["time", "size", "note"])
def test_a_shard_that_was_changed_is_named(how, data, read):
    check(data)
    change(data / FILES[2], later=how == "time")
    if how == "size":
        with (data / FILES[2]).open("ab") as file:
            file.write(b"more")
    if how == "note":
        data.with_name("note.json").write_text("{")
    for _ in range(2):  # it is not taken for granted afterwards
        with pytest.raises(ShardError, match=rf"{FILES[2]} was changed.*Copy the data set again"):
            check(data, begun=True)
    if how == "size":
        os.truncate(data / FILES[2], (data / FILES[2]).stat().st_size - 4)
    change(data / FILES[2], later=7)  # as it was
    check(data, begun=True)


def test_without_a_note_shards_are_read_where_something_began_with_them(data, read):
    check(data, begun=True)
    assert read == FILES
    assert check(data) == []


def test_a_shard_that_is_gone_is_named(data):
    manifest = read_manifest(data)
    (data / FILES[0]).unlink()
    with pytest.raises(ShardError, match=f"{FILES[0]} cannot be read: No such file"):
        check_unchanged(data, manifest, data.with_name("note.json"), begun=False)
