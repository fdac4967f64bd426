"""Run folders: a search that was stopped, in whatever way, goes on as if it never had been."""

import dataclasses
import importlib.resources
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest
from runs_task import CHUNK, STEPS, task

from qdgs_jax.runs.checkpoint import restore_state
from qdgs_jax.runs.config import parse_run
from qdgs_jax.runs.driver import run_search
from qdgs_jax.runs.folder import COLUMNS, RunFolder, RunFolderError

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
    step, path = folder.newest_checkpoint()
    wanted_step, wanted_path = other.newest_checkpoint()
    assert step == wanted_step == STEPS
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


def test_only_the_newest_checkpoint_is_kept(unbroken):
    assert [entry.name for entry in unbroken.checkpoints.iterdir()] == [f"step-{STEPS:09d}"]


def test_a_search_killed_and_continued_equals_one_never_stopped(folder, unbroken, search_task):
    program = Path(__file__).with_name("runs_task.py")
    child = subprocess.Popen(
        [sys.executable, program, folder.path], stderr=subprocess.PIPE, text=True
    )
    deadline = time.monotonic() + 500
    while len(folder.read_metrics()) < 7 and time.monotonic() < deadline and child.poll() is None:
        time.sleep(0.003)
    os.kill(child.pid, signal.SIGKILL)
    _, errors = child.communicate()
    assert child.returncode == -signal.SIGKILL, errors
    assert not folder.finished
    assert 6 * CHUNK - CHUNK <= folder.newest_checkpoint()[0] < STEPS
    assert run_search(folder, search_task)
    assert_same_run(folder, unbroken, search_task)


def test_what_a_kill_can_leave_behind_is_cleared_away(folder, unbroken, search_task):
    assert not run_search(folder, search_task, should_stop=stop_after(4))
    rows = folder.read_metrics()
    assert (len(rows), folder.finished) == (5, False)
    # Killed after the metrics of the next chunk, in the middle of the line after, while saving.
    folder.append_metrics({**rows[-1], "step": rows[-1]["step"] + CHUNK, "best": -1.0})
    with folder.metrics_file.open("a") as file:
        file.write("18,2")
    (folder.checkpoints / ".step-000000015.abc.tmp").mkdir()
    assert run_search(folder, search_task)
    assert_same_run(folder, unbroken, search_task)
    assert len(list(folder.checkpoints.iterdir())) == 1


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
    with pytest.raises(RunFolderError, match=r"already holds a run: give another --out"):
        unbroken.create(CONFIG)
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "thesis.tex").touch()
    with pytest.raises(RunFolderError, match="is not empty"):
        RunFolder(tmp_path / "taken").create(CONFIG)
    with pytest.raises(RunFolderError, match="is a file"):
        RunFolder(tmp_path / "taken" / "thesis.tex").create(CONFIG)
    with pytest.raises(RunFolderError, match="is not finished: continue it"):
        folder.check_finished()
    with pytest.raises(RunFolderError, match="holds no run"):
        RunFolder(tmp_path / "nowhere").check_finished()


def test_two_searches_in_one_folder_are_refused(folder, search_task):
    with folder.lock(), pytest.raises(RunFolderError, match="another process is searching"):
        run_search(folder, search_task)


def test_a_checkpoint_of_another_search_is_refused(folder, search_task):
    run_search(folder, search_task, should_stop=stop_after(1))
    other = task(algorithm="random")
    with pytest.raises(ValueError, match="belongs to another search"):
        run_search(folder, other)
