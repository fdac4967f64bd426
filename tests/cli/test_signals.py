"""Signals that stop a command: what it says, what is left, and how it goes on."""

import os
import signal
import subprocess
import sys
import threading

import numpy as np
import pytest
import torch_writer as tw
from toy_runs import play, qdgs, run_program, write_run

from qdgs_jax import load_classifier, ports
from qdgs_jax.cli import console
from qdgs_jax.datasets import generate
from qdgs_jax.datasets.manifest import read_manifest
from qdgs_jax.ports import model_folder

BOTH = pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])


@pytest.fixture
def heeded(monkeypatch):
    """Signals are handled as by the command line."""
    monkeypatch.setattr(console, "_interrupts", console._Interrupts())
    before = {n: signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)}
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    console.note_interrupts()
    yield
    for n, handler in before.items():
        signal.signal(n, handler)


@pytest.fixture
def searched(tmp_path, monkeypatch):
    """A finished run of the toy, whose data set has three shards."""
    monkeypatch.chdir(tmp_path)
    play(monkeypatch)
    shards = {"shard_size = 500": "shard_size = 10"}
    run_file = write_run(tmp_path / "my.toml", "map_elites", **shards)
    assert qdgs("search", run_file, "--out", "run") == 0
    return tmp_path / "run"


def stop(number):
    """Send this process a signal, which Python handles before the wait is over."""
    os.kill(os.getpid(), number)
    threading.Event().wait(60)


def contents(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


CONVERSION = """
import signal, sys, threading
from qdgs_jax.cli import main
from qdgs_jax.ports import model_folder
signal.signal(signal.SIGINT, signal.default_int_handler)  # background jobs start deaf to it
def verify(*args):
    print("now", flush=True)
    threading.Event().wait(60)
model_folder._verify = verify
main(sys.argv[1:])
"""


@BOTH
def test_a_conversion_that_is_stopped_leaves_nothing(number, tmp_path):
    source, place = tmp_path / "latents.pt", tmp_path / "models" / "faces"
    source.write_bytes(tw.zip_bytes(np.arange(15.0).reshape(3, 5)))
    arguments = ["port", "latents", str(source), str(place)]
    with subprocess.Popen(
        [sys.executable, "-c", CONVERSION, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert "now\n" in process.stdout
        process.send_signal(number)
        said = process.stderr.read()
        assert process.wait(60) == 128 + number
    hint = f"stopped: {place} was not written; the same command begins again"
    assert said.split() == hint.split()
    assert contents(tmp_path) == ["latents.pt"]
    assert not place.parent.exists()
    assert qdgs(*arguments) == 0
    assert ports.load_config(place)["kind"] == "latents"


@BOTH
def test_a_data_set_that_is_stopped_goes_on(number, searched, heeded, monkeypatch, capsys):
    told = generate._told

    def stopped(pictures, start, total, progress):
        rows = (row[None] for batch in told(pictures, start, total, progress) for row in batch)
        for done, row in enumerate(rows):
            if done == 15:
                stop(number)
            yield row

    with monkeypatch.context() as patched:
        patched.setattr(generate, "_told", stopped)
        assert qdgs("generate", "run") == 128 + number
    said = capsys.readouterr().err
    assert "stopped: 1 files kept in run/data; the same command goes on from there" in said
    whole = [name for name in contents(searched / "data") if not name.startswith("_")]
    assert whole == ["shard-00000.parquet"]
    assert qdgs("generate", "run") == 0
    assert "going on after 10 of 30 images" in capsys.readouterr().out
    assert read_manifest(searched / "data").count == 30


@BOTH
def test_a_training_that_is_stopped_begins_again(number, searched, heeded, monkeypatch, capsys):
    assert qdgs("generate", "run") == 0
    command = ("train", "run/data", "--epochs", 1, "--out", "classifier")
    with monkeypatch.context() as patched:
        patched.setattr(model_folder, "_verify", lambda *_: stop(number))
        assert qdgs(*command) == 128 + number
    said = capsys.readouterr().err
    assert "stopped: classifier was not written; the same command begins again" in said
    assert sorted(path.name for path in searched.parent.iterdir()) == ["my.toml", "run"]
    assert qdgs(*command) == 0
    assert len(load_classifier("classifier").classes) == 2


INTERRUPTED = """
import os, signal, sys, threading
from qdgs_jax.cli import init, main
signal.signal(signal.SIGINT, signal.default_int_handler)  # background jobs start deaf to it
def packaged_run(name):
    os.kill(os.getpid(), signal.SIGINT)
    threading.Event().wait(60)
init.packaged_run = packaged_run
main(sys.argv[1:])
"""
UNFINISHED = "stopped: `qdgs init` did not finish; the same command begins again"


def test_ctrl_c_says_stopped_wherever_it_comes(tmp_path):
    shown = run_program(INTERRUPTED, "init", "shapes", tmp_path / "my.toml")
    assert (shown.returncode, shown.stderr.decode().strip()) == (130, UNFINISHED)


def test_ctrl_c_that_a_library_takes_for_an_error_is_ctrl_c(tmp_path):
    taken = """
def stopped(name, interrupted=init.packaged_run):
    try:
        interrupted(name)
    except KeyboardInterrupt:
        raise ImportError("the extension could not be initialised") from None
init.packaged_run = stopped
main("""
    code = INTERRUPTED.replace("main(", taken.strip("\n"))
    shown = run_program(code, "init", "shapes", tmp_path / "my.toml")
    assert (shown.returncode, shown.stderr.decode().strip()) == (130, UNFINISHED)


EXTENSION = """
import sys
from importlib.machinery import ExtensionFileLoader
def create_module(self, spec):
    import os, signal
    os.kill(os.getpid(), signal.SIGINT)
    print("set up", flush=True)
create_module.__code__ = create_module.__code__.replace(co_qualname="ExtensionFileLoader.x")
init.packaged_run = lambda name: (create_module(None, None), threading.Event().wait(60))
main("""


def test_ctrl_c_waits_for_an_extension_that_sets_itself_up(tmp_path):
    code = INTERRUPTED.replace("main(", EXTENSION.strip("\n"))
    shown = run_program(code, "init", "shapes", tmp_path / "my.toml")
    assert (shown.returncode, shown.stderr.decode().strip()) == (130, UNFINISHED)
    assert b"set up" in shown.stdout


def test_a_search_that_is_terminated_keeps_a_checkpoint(tmp_path, heeded, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    play(monkeypatch)
    show = console.SearchProgress.show

    def terminated(progress, row):
        show(progress, row)
        if row["step"] == 12:
            os.kill(os.getpid(), signal.SIGTERM)

    run_file = write_run(tmp_path / "my.toml", "random")
    with monkeypatch.context() as patched:
        patched.setattr(console.SearchProgress, "show", terminated)
        assert qdgs("search", run_file, "--out", "run") == 143
    assert "stopped: go on with `qdgs search --resume run`" in capsys.readouterr().err
    assert qdgs("search", "--resume", "run") == 0
