"""A data set that was stopped anywhere goes on, and ends as if nothing had happened."""

import copy
import errno
import itertools
import os
import shutil

import filelock
import jax.numpy as jnp
import numpy as np
import pytest
import torch_writer as tw
from toy_runs import play, qdgs, toy_domain, write_run

from qdgs_jax import files, ports
from qdgs_jax.datasets import generate, shards
from qdgs_jax.datasets.generate import generate_dataset
from qdgs_jax.datasets.manifest import MANIFEST, PLAN, ShardError, read_manifest
from qdgs_jax.datasets.shards import read_rows
from qdgs_jax.runs.folder import RunFolder

SUBJECTS = """shard_size = 7

[dataset.subjects]
restarts = 1
augmentation_count = 3
align = "none"
side = 8
"""


class Stopped(BaseException):
    """Stands for a kill, which no handler sees."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A finished run of subjects with its baseline."""
    place = tmp_path_factory.mktemp("resume")
    with pytest.MonkeyPatch.context() as patch:
        play(patch)
        run_file = write_run(place / "my.toml", "map_elites", **{"shard_size = 500\n": SUBJECTS})
        assert qdgs("search", run_file, "--out", place / "run", "--baseline") == 0
    return RunFolder(place / "run")


@pytest.fixture(scope="module")
def undisturbed(folder, tmp_path_factory):
    """Its data set, written at one go, and that of the baseline."""
    places = [tmp_path_factory.mktemp("whole") / name for name in ("run", "random")]
    for each, place in zip((folder, folder.baseline), places, strict=True):
        generate_dataset(each, toy_domain(None), out=place)
    return places


def contents(folder):
    """All files below a folder."""
    paths = [path for path in folder.rglob("*") if path.is_file()]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}


def stopping_after(monkeypatch, pictures):
    """Stop while pictures are drawn, once so many have been; a batch may hold half a shard."""
    whole = generate.decoded

    def decoded(domain, latents, start=0, fit=lambda x: x):
        done = 0
        for batch in whole(domain, latents, start=start, fit=fit):
            for part in np.array_split(batch, range(3, len(batch), 3)):
                if start + done >= pictures and len(latents) > 40:  # no thumbnails
                    raise Stopped
                yield part
                done += len(part)

    monkeypatch.setattr(generate, "decoded", decoded)


@pytest.mark.parametrize("which", [0, 1])
def test_stopped_at_random_moments_it_ends_as_undisturbed(
    which, folder, undisturbed, tmp_path, monkeypatch
):
    run = (folder, folder.baseline)[which]
    moments = np.sort(np.random.default_rng(which).integers(0, 80, 8)).tolist()
    kept = []
    for moment in moments:
        with monkeypatch.context() as patch:
            stopping_after(patch, moment)
            with pytest.raises(Stopped):
                generate_dataset(run, toy_domain(None), out=tmp_path)
        kept.append(len(list((tmp_path / "data").glob("shard-*.parquet"))))
        with pytest.raises(ShardError, match="repeat the command"):
            read_manifest(tmp_path)
    assert kept == sorted(kept) and len(set(kept)) > 3
    lines = []
    generate_dataset(run, toy_domain(None), out=tmp_path, tell=lines.append)
    assert f"going on after {7 * kept[-1]} of 90 images" in lines
    assert contents(tmp_path) == contents(undisturbed[which])
    assert not (tmp_path / "data" / PLAN).exists()


@pytest.mark.parametrize("name", ["README.md", MANIFEST, "shard-00004.parquet", "labels.npy"])
def test_stopped_while_a_file_is_written(name, folder, undisturbed, tmp_path, monkeypatch):
    """As a kill leaves it: half of a file under a hidden name."""

    def leave_half(path, content):
        if path.name == name:
            path.with_name(f".{name}.x1.tmp").write_bytes(content[: len(content) // 2])
            raise Stopped
        files.write_atomically(path, content)

    def save(file, column, **options):
        if file.name.endswith(name):
            raise Stopped
        np.lib.format.write_array(file, column)

    with monkeypatch.context() as patch:
        patch.setattr(shards, "write_atomically", leave_half)
        patch.setattr("qdgs_jax.datasets.card.write_atomically", leave_half)
        patch.setattr("qdgs_jax.datasets.plan.np.save", save)
        with pytest.raises(Stopped):
            generate_dataset(folder, toy_domain(None), out=tmp_path)
    generate_dataset(folder, toy_domain(None), out=tmp_path)
    left = contents(tmp_path)
    left.pop(".README.md.x1.tmp", None)
    assert left == contents(undisturbed[0])


def test_a_full_disk_keeps_what_is_complete(folder, undisturbed, tmp_path, monkeypatch):
    real, written = files.write_atomically, itertools.count()

    def fill_up(path, content):
        if path.suffix == ".parquet" and next(written) == 5:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(path, content)

    with monkeypatch.context() as patch:
        patch.setattr(shards, "write_atomically", fill_up)
        with pytest.raises(OSError, match=r"No space left.*the 5 shards before it are kept") as e:
            generate_dataset(folder, toy_domain(None), out=tmp_path)
    assert e.value.errno == errno.ENOSPC
    assert len(list((tmp_path / "data").glob("shard-*"))) == 5
    generate_dataset(folder, toy_domain(None), out=tmp_path)
    assert contents(tmp_path) == contents(undisturbed[0])


def test_a_disk_too_full_for_the_plan(folder, tmp_path, monkeypatch):
    def full(*_, **__):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("qdgs_jax.datasets.plan.np.save", full)
    with pytest.raises(OSError, match=r"No space left.*while writing the plan"):
        generate_dataset(folder, toy_domain(None), out=tmp_path)
    assert not contents(tmp_path)


def begin(folder, place, monkeypatch, pictures=20, **options):
    with monkeypatch.context() as patch:
        stopping_after(patch, pictures)
        with pytest.raises(Stopped):
            generate_dataset(folder, toy_domain(None), out=place, **options)


def test_another_data_set_is_not_mixed_in(folder, tmp_path, monkeypatch):
    begin(folder, tmp_path, monkeypatch)
    before = contents(tmp_path)
    with pytest.raises(ShardError, match=r"dataset\.images was 30 and is 20") as caught:
        generate_dataset(folder, toy_domain(None), out=tmp_path, changes={"images": 20})
    assert "Repeat the command that began it" in str(caught.value)
    with pytest.raises(ShardError, match=r"archive\.elites was '\w+' and is "):
        generate_dataset(folder.baseline, toy_domain(None), out=tmp_path)
    assert contents(tmp_path) == before


def test_one_process_at_a_time(folder, tmp_path, monkeypatch):
    begin(folder, tmp_path, monkeypatch)
    with (
        filelock.FileLock(tmp_path / "data" / PLAN / "lock", is_singleton=False),
        pytest.raises(ShardError, match="another process is writing"),
    ):
        generate_dataset(folder, toy_domain(None), out=tmp_path)


def test_damage_is_told_or_mended(folder, undisturbed, tmp_path, monkeypatch):
    begin(folder, tmp_path, monkeypatch, 50)
    (tmp_path / "data" / "shard-00003.parquet").write_bytes(b"half")
    generate_dataset(folder, toy_domain(None), out=tmp_path)
    assert contents(tmp_path) == contents(undisturbed[0])
    shutil.rmtree(tmp_path / "data")
    begin(folder, tmp_path, monkeypatch)
    (tmp_path / "data" / PLAN / "plan.json").write_text("{")
    with pytest.raises(ShardError, match="plan cannot be read"):
        generate_dataset(folder, toy_domain(None), out=tmp_path)


def test_the_command_line_says_what_is_kept_and_goes_on(folder, tmp_path, monkeypatch, capsys):
    play(monkeypatch)
    command = ("generate", folder.path, "--out", tmp_path / "set", "--images", 12)

    def interrupted(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(generate, "_told", interrupted)
        assert qdgs(*command) == 130
    assert "0 files kept in" in capsys.readouterr().err
    assert qdgs(*command) == 0
    assert "36 images of map_elites" in capsys.readouterr().out


def test_the_shards_of_subjects(undisturbed):
    for place in undisturbed:
        manifest, rows = read_manifest(place, verify=True), read_rows(place)
        assert manifest.columns[-2:] == ("subject", "augmentation")
        assert manifest.image_size == (8, 8)
        assert (manifest.count, manifest.source["latents"]) == (90, 30)
        assert manifest.balance.asked == 90
        assert rows.augmentations.tolist() == [0, 1, 2] * 30
        assert rows.subjects[0] == 0 and set(np.diff(rows.subjects)) == {0, 1}
        counts = [count // 3 for count in manifest.label_counts]
        people = sum(-(-count // 2) for count in counts)  # in each class half as many, at least
        assert rows.subjects[-1] + 1 == manifest.source["subjects"] == people
        assert f"| people | {people} |" in (place / "README.md").read_text()


def test_augmentations_from_a_folder_stand_in_the_run_file(folder, tmp_path):
    for width, name in ((4, "right"), (5, "wrong")):
        rows = np.random.default_rng(0).normal(size=(2, width))
        (tmp_path / f"{name}.pt").write_bytes(tw.zip_bytes(rows))
        ports.convert("latents", tmp_path / f"{name}.pt", tmp_path / name)
    text = (folder.path / "run.toml").read_text()
    run = RunFolder(tmp_path / "run")
    shutil.copytree(folder.path, run.path)

    def name(value):
        run.run_file.write_text(
            text.replace("augmentation_count = 3", f'augmentations = "{value}"')
        )

    name("../right")
    generate_dataset(run, toy_domain(None))
    assert read_rows(run.path).augmentations.tolist() == [0, 1] * 30
    name("../wrong")
    with pytest.raises(ValueError, match=r"wrong holds augmentations of 5 numbers.* have 4"):
        generate_dataset(run, toy_domain(None), out=tmp_path / "other")
    name("../none")
    with pytest.raises(ValueError, match=r'dataset.subjects.augmentations = "../none": no folder'):
        run.config()


def test_samples_come_part_by_part_where_all_would_not_fit(folder, tmp_path, monkeypatch):
    domain = copy.copy(toy_domain(None))
    counts = []
    sample = domain.sample

    def counted(params, key, count):
        counts.append(count)
        return jnp.asarray(sample(params, key, count))

    monkeypatch.setattr(domain, "sample", counted, raising=False)
    monkeypatch.setattr(generate, "SAMPLED_AT_ONCE", 4 * 50)
    generate_dataset(folder.baseline, domain, out=tmp_path, changes={"images": 45})
    assert counts == [50]  # of up to 225
    rows = read_rows(tmp_path)
    assert len(np.unique(rows.elites.measures[:, 0])) == 45
