"""Run folders: a search that was stopped, in whatever way, goes on as if it never had been."""

import dataclasses
import importlib.resources
import os
import platform
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest
from runs_task import CHUNK, STEPS, task

from qdgs_jax.runs import checkpoint, checkpoint_writer
from qdgs_jax.runs.checkpoint import restore_state
from qdgs_jax.runs.checkpoint_writer import find_checkpoints
from qdgs_jax.runs.config import parse_run
from qdgs_jax.runs.driver import run_search
from qdgs_jax.runs.folder import COLUMNS, RunFolder, RunFolderError
from qdgs_jax.runs.prepare import near_divisor
from qdgs_jax.runs.provenance import read_provenance

KILLS = 10

CONFIG = parse_run(
    importlib.resources.files("qdgs_jax").joinpath("assets/shapes.toml").read_text("utf-8")
)


@pytest.fixture(scope="module")
def search_task():
    """One task for all tests here, so that it is compiled once."""
    return task()


@pytest.fixture(scope="module")
def unbroken(search_task, tmp_path_factory):
    """The folder of a search that never stopped."""
    folder = RunFolder(tmp_path_factory.mktemp("runs") / "unbroken")
    folder.create(CONFIG)
    assert run_search(folder, search_task)
    return folder


@pytest.fixture
def folder(tmp_path):
    """A folder in which a run was begun."""
    begun = RunFolder(tmp_path / "run")
    begun.create(CONFIG)
    return begun


def assert_same_run(folder, other, search_task):
    """Same final state bit for bit, same metrics but for the clock, same archive file."""
    step, path = find_checkpoints(folder.checkpoints)[0]
    wanted_step, wanted_path = find_checkpoints(other.checkpoints)[0]
    assert step == wanted_step == search_task.steps
    shapes = search_task.shapes()
    got = jax.tree.leaves(restore_state(path, shapes))
    wanted = jax.tree.leaves(restore_state(wanted_path, shapes))
    for a, b in zip(got, wanted, strict=True):
        np.testing.assert_array_equal(np.asarray(a), np.asarray(b))
    assert without_clock(folder) == without_clock(other)
    assert folder.archive_file.read_bytes() == other.archive_file.read_bytes()


def without_clock(folder):
    rows = folder.read_metrics()
    return [{name: row[name] for name in COLUMNS if name != "seconds"} for row in rows]


def stop_after(chunks):
    """A `should_stop` that is asked before each chunk and says yes after some."""
    asked = iter([False] * chunks)
    return lambda: next(asked, True)


def test_metrics_have_a_row_per_chunk_and_count_the_whole_budget(unbroken):
    rows = unbroken.read_metrics()
    assert [row["step"] for row in rows] == list(range(0, STEPS + 1, CHUNK))
    # 100 for the start latents, 2 start latents, then 2 emitters with 3 branches and a parent.
    assert [row["evaluations"] for row in rows] == [102 + 8 * row["step"] for row in rows]
    assert rows[-1]["coverage"] > rows[0]["coverage"]
    assert [row["seconds"] for row in rows] == sorted(row["seconds"] for row in rows)


def test_the_two_newest_checkpoints_are_kept(unbroken):
    steps = [step for step, _ in find_checkpoints(unbroken.checkpoints)]
    assert steps[0] == STEPS
    assert len(steps) == len(list(unbroken.checkpoints.iterdir())) == 2


def test_a_search_killed_at_any_moment_equals_one_never_stopped(folder, tmp_path, search_task):
    """A stopped process leaves what a killed one leaves: so one process is killed many times."""
    steps = 4 * STEPS  # at 0.02 s a chunk, longer than all pauses together
    longer = dataclasses.replace(search_task, steps=steps, checkpoint_seconds=3600.0)
    unbroken = RunFolder(tmp_path / "unbroken")
    unbroken.create(CONFIG)
    assert run_search(unbroken, longer)

    killed = []
    chance = random.Random(0)
    program = Path(__file__).with_name("runs_task.py")
    child = subprocess.Popen(
        [sys.executable, program, folder.path, str(steps)], stderr=subprocess.PIPE, text=True
    )
    deadline = time.monotonic() + 500
    while len(folder.read_metrics()) < 2 and time.monotonic() < deadline and child.poll() is None:
        time.sleep(0.003)
    for number in range(KILLS):
        time.sleep(chance.uniform(0.0, 0.12))
        os.kill(child.pid, signal.SIGSTOP if number < KILLS - 1 else signal.SIGKILL)
        if number < KILLS - 1:
            wait_until_stopped(child.pid)
            killed.append(RunFolder(tmp_path / f"killed-{number}"))
            shutil.copytree(folder.path, killed[-1].path)
            os.kill(child.pid, signal.SIGCONT)
    _, errors = child.communicate()
    assert child.returncode == -signal.SIGKILL, errors

    for each in (*killed, folder):
        assert not each.finished
        assert run_search(each, longer)
        assert_same_run(each, unbroken, longer)
        assert not list(each.path.rglob("*.tmp"))


def wait_until_stopped(number):
    """Wait until all threads of a process stand still."""
    threads = Path(f"/proc/{number}/task")
    while any(
        (thread / "stat").read_text().rpartition(")")[2].split()[0] != "T"
        for thread in threads.iterdir()
    ):
        time.sleep(0.001)


def test_what_a_kill_can_leave_behind_is_cleared_away(folder, unbroken, search_task):
    assert not run_search(folder, search_task, should_stop=stop_after(4))
    rows = folder.read_metrics()
    assert (len(rows), folder.finished) == (5, False)
    # Killed after the metrics of the next chunk, in the middle of the line after, while saving.
    folder.append_metrics({**rows[-1], "step": rows[-1]["step"] + CHUNK, "best": -1.0})
    with folder.metrics_file.open("a") as file:
        file.write("18,2")
    (folder.checkpoints / ".step-000000015.abc.tmp").mkdir()
    (folder.path / ".metrics.csv.abc.tmp").touch()
    (folder.path / ".notes.of-mine.tmp").touch()
    assert run_search(folder, search_task)
    assert_same_run(folder, unbroken, search_task)
    assert len(list(folder.checkpoints.iterdir())) == 2
    assert [entry.name for entry in folder.path.glob(".*.tmp")] == [".notes.of-mine.tmp"]


def test_a_search_killed_before_its_first_checkpoint_begins_anew(folder, search_task):
    folder.append_metrics(dict.fromkeys(COLUMNS, 0))
    short = dataclasses.replace(search_task, steps=CHUNK)
    assert run_search(folder, short)
    assert [row["step"] for row in folder.read_metrics()] == [0, CHUNK]


def test_a_finished_search_does_nothing_more(unbroken, search_task):
    told = []
    assert run_search(unbroken, search_task, on_chunk=told.append)
    assert told == []


def test_a_folder_that_holds_something_is_refused(folder, unbroken, tmp_path):
    with pytest.raises(RunFolderError, match=r"already holds a run: continue it with `qdgs search"):
        folder.create(CONFIG)
    with pytest.raises(RunFolderError, match=r"already holds a run: extend it with"):
        unbroken.create(CONFIG)
    begun = RunFolder(tmp_path / "begun")
    shutil.copytree(unbroken.path, begun.path)
    begun.baseline.create(CONFIG)
    with pytest.raises(RunFolderError, match=r"already holds a run: continue it with `qdgs search"):
        begun.create(CONFIG)
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "thesis.tex").touch()
    with pytest.raises(RunFolderError, match="is not empty"):
        RunFolder(tmp_path / "taken").create(CONFIG)
    with pytest.raises(RunFolderError, match="is a file"):
        RunFolder(tmp_path / "taken" / "thesis.tex").create(CONFIG)
    with pytest.raises(RunFolderError, match="is not finished: continue it"):
        folder.check_finished()
    (tmp_path / "empty").mkdir()
    for place, words in (
        ("empty", "holds no run: begin one"),
        ("nowhere", "nowhere does not exist"),
        ("taken/thesis.tex", "is a file: give the run folder"),
    ):
        with pytest.raises(RunFolderError, match=words):
            RunFolder(tmp_path / place).check_finished()


def test_two_searches_in_one_folder_are_refused(folder, search_task):
    with folder.lock(), pytest.raises(RunFolderError, match="another process is searching"):
        run_search(folder, search_task)


def test_a_checkpoint_of_another_search_is_refused(folder, search_task):
    run_search(folder, search_task, should_stop=stop_after(1))
    other = task(algorithm="random")
    with pytest.raises(ValueError, match="belongs to another search"):
        run_search(folder, other)


@pytest.mark.parametrize(
    "name", ["a[b]c", "[", "]*?", "back\\slash", "gs:", "s3:", "über mut", "{a,b}", "-"]
)
def test_any_path_will_do(name, tmp_path, search_task):
    folder = RunFolder(tmp_path / name / "run")
    folder.create(CONFIG)
    assert not run_search(folder, search_task, should_stop=stop_after(2))
    assert find_checkpoints(folder.checkpoints)[0][0] == 2 * CHUNK
    assert run_search(folder, dataclasses.replace(search_task, steps=3 * CHUNK))
    assert folder.last_step == 3 * CHUNK
    assert [entry.name for entry in tmp_path.iterdir()] == [name]


def test_the_current_folder_may_have_any_name(tmp_path, monkeypatch, search_task):
    (tmp_path / "x[1]").mkdir()
    monkeypatch.chdir(tmp_path / "x[1]")
    folder = RunFolder(Path("run"))
    folder.create(CONFIG)
    run_search(folder, search_task, should_stop=stop_after(1))
    assert run_search(folder, dataclasses.replace(search_task, steps=2 * CHUNK))


def damage(path):
    """Change a byte in the middle of the largest array of a checkpoint."""
    file = max((path / "arrays").iterdir(), key=lambda entry: entry.stat().st_size)
    content = bytearray(file.read_bytes())
    content[-8] ^= 1
    file.write_bytes(content)


def test_a_damaged_checkpoint_falls_back_to_the_one_before(folder, unbroken, search_task):
    run_search(folder, search_task, should_stop=stop_after(4))
    (newest, path), (older, _) = find_checkpoints(folder.checkpoints)
    damage(path)
    told = []
    assert run_search(folder, search_task, tell=told.append)
    assert f"step-{newest:09d} is" in told[0]
    assert "damaged" in told[0]
    assert f"Going on from step {older}" in told[0]
    assert_same_run(folder, unbroken, search_task)


def test_damaged_checkpoints_alone_are_no_reason_to_begin_anew(folder, search_task):
    run_search(folder, search_task, should_stop=stop_after(2))
    rows = folder.read_metrics()
    for _, path in find_checkpoints(folder.checkpoints):
        damage(path)
    with pytest.raises(ValueError, match="damaged"):
        run_search(folder, search_task)
    assert folder.read_metrics() == rows


def test_a_disk_that_loses_what_is_written_is_noticed(folder, search_task, monkeypatch):
    run_search(folder, search_task, should_stop=stop_after(2))
    kept = find_checkpoints(folder.checkpoints)
    write = checkpoint.write_array

    def lose(path, pieces, shape, dtype):
        checksum = write(path, pieces, shape, dtype)
        path.write_bytes(path.read_bytes()[:-1] + b"?")
        return checksum

    monkeypatch.setattr(checkpoint, "write_array", lose)
    with pytest.raises(OSError, match="does not keep what is written"):
        run_search(folder, search_task)
    assert find_checkpoints(folder.checkpoints) == kept
    assert len(list(folder.checkpoints.iterdir())) == len(kept)


def test_a_finished_search_can_be_extended(folder, unbroken, search_task):
    assert run_search(folder, dataclasses.replace(search_task, steps=STEPS // 2))
    assert folder.finished
    told = []
    assert run_search(folder, search_task, on_chunk=told.append)
    assert [row["step"] for row in told] == list(range(STEPS // 2 + CHUNK, STEPS + 1, CHUNK))
    assert_same_run(folder, unbroken, search_task)


def test_an_extension_tells_of_what_was_made_of_the_smaller_archive(folder, search_task):
    run_search(folder, dataclasses.replace(search_task, steps=CHUNK))
    folder.thumbnails_file.write_bytes(b"pictures of former elites")
    folder.data.mkdir()
    told = []
    run_search(folder, dataclasses.replace(search_task, steps=2 * CHUNK), tell=told.append)
    assert not folder.thumbnails_file.exists()
    assert any(str(folder.data) in text and "smaller budget" in text for text in told)


def test_an_extension_that_was_stopped_is_not_finished(folder, search_task):
    run_search(folder, dataclasses.replace(search_task, steps=CHUNK))
    assert not run_search(folder, search_task, should_stop=stop_after(1))
    assert not folder.finished
    with pytest.raises(RunFolderError, match="6 steps far already"):
        run_search(folder, dataclasses.replace(search_task, steps=CHUNK))


def test_without_a_checkpoint_a_finished_search_stays_as_it_is(folder, search_task):
    run_search(folder, dataclasses.replace(search_task, steps=CHUNK))
    shutil.rmtree(folder.checkpoints)
    with pytest.raises(RunFolderError, match="no checkpoint left"):
        run_search(folder, search_task)
    assert folder.finished


def test_checkpoints_come_by_time(folder, search_task, monkeypatch):
    writer_of, saved = checkpoint_writer.take_snapshot, []
    monkeypatch.setattr(
        checkpoint_writer,
        "take_snapshot",
        lambda state, pool: saved.append(int(state.step)) or writer_of(state, pool),
    )
    hourly = dataclasses.replace(search_task, checkpoint_seconds=3600.0)
    run_search(folder, hourly, should_stop=stop_after(5))
    assert saved == [5 * CHUNK]  # when it was stopped
    run_search(folder, hourly)
    assert saved == [5 * CHUNK, STEPS]  # and at the end


def test_provenance_tells_of_every_session(folder, search_task):
    run_search(folder, dataclasses.replace(search_task, seed=7), should_stop=stop_after(2))
    run_search(folder, dataclasses.replace(search_task, seed=7))
    kept = read_provenance(folder.path)
    assert len(kept.stints) == 2
    assert kept.seed == 7
    assert kept.versions["jax"] == jax.__version__
    assert kept.versions["python"] == platform.python_version()
    assert kept.device == jax.devices()[0].device_kind
    assert kept.started <= kept.finished
    assert kept.wall_seconds == pytest.approx(sum(s.wall_seconds for s in kept.stints))
    assert list(kept.command) == sys.argv
    (folder.path / "provenance.json").write_text("{}")
    with pytest.raises(ValueError, match=r"provenance\.json is damaged"):
        read_provenance(folder.path)
    assert read_provenance(folder.path / "elsewhere") is None


def test_the_time_of_a_search_that_was_killed_counts_until_its_checkpoint(folder, search_task):
    """A row of metrics is told after the checkpoint of the row before was begun."""

    def killed(row):
        if row["step"] >= 3 * CHUNK:
            raise RuntimeError("killed")

    with pytest.raises(RuntimeError, match="killed"):
        run_search(folder, search_task, killed)
    (first,) = read_provenance(folder.path).stints
    assert first.finished is None
    assert first.wall_seconds > 0
    run_search(folder, search_task)
    kept = read_provenance(folder.path)
    assert len(kept.stints) == 2
    assert kept.wall_seconds == pytest.approx(first.wall_seconds + kept.last.wall_seconds)
    assert kept.finished


@pytest.mark.parametrize(
    ("steps", "chunk", "wanted"),
    [(60, 25, 30), (60, 3, 3), (36, 5, 6), (61, 25, 25), (2, 5, 5), (10, 5, 5), (1, 1, 1)],
)
def test_a_chunk_is_a_divisor_near_what_is_asked(steps, chunk, wanted):
    assert near_divisor(steps, chunk) == wanted
