"""Where model folders are written: any path, a full disk, an interrupt; what is left behind."""

import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest
from filelock import FileLock
from synthetic import DATA

from qdgs_jax import ports
from qdgs_jax.ports import model_folder, orbax_groups, plain_path
from qdgs_jax.ports.new_folder import new_folder

PARAMS = {"a": {"kernel": np.arange(6, dtype=np.float32)}, "b": np.float32(2)}
ODD = (
    "with [brackets]",
    "[a-z]",
    "open[",
    "close]",
    "star*",
    "what?",
    "back\\slash",
    "gs:",
    "s3:",
    "new\nline",
    "na\u00efve \u6f22",
    "{braces}",
    "x" * 250,
)


def check(folder):
    config, params = ports.load_model(folder)
    assert config == {"kind": "vae"}
    np.testing.assert_array_equal(params["a"]["kernel"], np.arange(6))
    assert params["b"] == 2


@pytest.mark.parametrize("name", ODD)
def test_a_folder_of_any_name_is_written_and_read(name, tmp_path, monkeypatch):
    ports.save_model(tmp_path / name, {"kind": "vae"}, PARAMS)
    check(tmp_path / name)
    ports.save_model(tmp_path / name / "inside" / "model", {"kind": "vae"}, PARAMS)
    monkeypatch.chdir(tmp_path / name)
    check(Path("inside") / "model")
    ports.save_model("here", {"kind": "vae"}, PARAMS)
    check("here")
    assert [path.name for path in tmp_path.iterdir()] == [name]
    assert sorted(p.name for p in Path().iterdir()) == ["config.json", "here", "inside", "params"]


def test_a_path_like_an_address_is_a_path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    ports.convert("vae", DATA / "ports/vae_tiny.pt", "gs://bucket/model")
    assert (tmp_path / "gs:" / "bucket" / "model" / "config.json").is_file()
    assert ports.load_config("gs://bucket/model")["kind"] == "vae"


def test_links_lie_elsewhere_if_the_temporary_folder_is_odd_too(tmp_path, monkeypatch):
    odd = tmp_path / "[tmp]"
    odd.mkdir()
    monkeypatch.setenv("TMPDIR", str(odd))
    monkeypatch.setattr(tempfile, "tempdir", None)
    before = set(Path("/tmp").glob("qdgs-link-*"))
    ports.save_model(odd / "model", {"kind": "vae"}, PARAMS)
    check(odd / "model")
    assert [path.name for path in odd.iterdir()] == ["model"]
    assert set(Path("/tmp").glob("qdgs-link-*")) <= before


def test_links_of_killed_processes_are_swept(tmp_path, monkeypatch):
    odd = tmp_path / "[odd]"
    (odd / "kept").mkdir(parents=True)
    plain = tmp_path / "plain"
    for name in ("left", "used"):
        (plain / f"qdgs-link-{name}").mkdir(parents=True)
        (plain / f"qdgs-link-{name}" / "folder").symlink_to(odd)
        (plain / f"qdgs-link-{name}" / "qdgs.lock").touch()
    monkeypatch.setenv("TMPDIR", str(plain))
    with (
        FileLock(plain / "qdgs-link-used" / "qdgs.lock"),
        plain_path.plain_path(odd) as link,
    ):
        assert (link / "kept").is_dir()
        assert len(list(plain.iterdir())) == 2
    assert [path.name for path in plain.iterdir()] == ["qdgs-link-used"]
    assert (odd / "kept").is_dir()


def test_where_no_link_can_be_made_the_way_out_is_named(tmp_path, monkeypatch):
    odd = tmp_path / "[odd]"
    odd.mkdir()
    monkeypatch.setattr(plain_path, "is_plain", lambda path: False)
    with (
        pytest.raises(OSError, match="set TMPDIR to a writable folder"),
        plain_path.plain_path(odd),
    ):
        pass


def test_a_large_model_is_kept_in_groups_and_comes_back_whole(tmp_path, monkeypatch):
    monkeypatch.setattr(orbax_groups, "GROUP_BYTES", 100)
    params = {f"p{i}": np.full((i,), i, np.float32) for i in range(1, 40)}
    assert ports.save_model(tmp_path / "m", {}, params) == sum(range(1, 40))
    assert len(list((tmp_path / "m" / "params").iterdir())) > 9
    monkeypatch.undo()
    loaded = ports.load_model(tmp_path / "m")[1]
    assert all((loaded[name] == leaf).all() for name, leaf in params.items())
    assert list(loaded) == list(params)


def test_a_model_that_cannot_be_read_back_leaves_nothing(tmp_path, monkeypatch):
    real = orbax_groups.write_groups

    def damaging(folder, leaves, made):
        groups = real(folder, leaves, made)
        largest = max((folder / "params").rglob("*"), key=lambda path: path.stat().st_size)
        largest.write_bytes(b"")
        return groups

    monkeypatch.setattr(orbax_groups, "write_groups", damaging)
    with pytest.raises(ports.CheckpointError, match=f"^{tmp_path}/a/model is incomplete"):
        ports.convert("vae", DATA / "ports/vae_tiny.pt", tmp_path / "a" / "model")
    assert list(tmp_path.iterdir()) == []
    monkeypatch.undo()
    ports.convert("vae", DATA / "ports/vae_tiny.pt", tmp_path / "a" / "model")


def test_an_interrupt_while_verifying_leaves_nothing(tmp_path, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(model_folder, "_verify", interrupted)
    with pytest.raises(KeyboardInterrupt):
        ports.save_model(tmp_path / "a" / "b" / "model", {}, PARAMS)
    assert list(tmp_path.iterdir()) == []


KILLED = """
import sys, time
from pathlib import Path
from qdgs_jax.ports.new_folder import new_folder
with new_folder(Path(sys.argv[1]).absolute()) as inside:
    (inside / "half").touch()
    print("ready", flush=True)
    time.sleep(60)
"""


def test_what_a_killed_process_left_is_swept_and_what_a_live_one_makes_is_not(tmp_path):
    def start(name):
        command = [sys.executable, "-c", KILLED, str(tmp_path / name)]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert process.stdout.readline() == "ready\n"
        return process

    dead, alive = start("dead"), start("alive")
    try:
        dead.send_signal(signal.SIGKILL)
        dead.wait()
        (tmp_path / ".other.x.tmp").mkdir()  # not ours
        assert sorted(p.name.split(".")[1] for p in tmp_path.iterdir()) == [
            "alive",
            "dead",
            "other",
        ]
        ports.save_model(tmp_path / "model", {}, PARAMS)
        left = sorted(p.name.strip(".").split(".")[0] for p in tmp_path.iterdir())
        assert left == ["alive", "model", "other"]
        assert list(tmp_path.glob(".alive.*.tmp/folder/half"))
    finally:
        for process in (dead, alive):
            process.kill()
            process.wait()
            process.stdout.close()


def test_a_place_that_cannot_be_written_is_named_as_the_user_named_it(tmp_path, monkeypatch):
    def read_only(*_, **__):
        raise OSError(30, "Read-only file system", "/somewhere/.hidden.tmp")

    monkeypatch.setattr(tempfile, "mkdtemp", read_only)
    with pytest.raises(OSError) as caught:
        ports.save_model(tmp_path / "a" / "model", {}, PARAMS)
    assert str(caught.value) == f"{tmp_path}/a/model cannot be written: Read-only file system."
    assert list(tmp_path.iterdir()) == []
    monkeypatch.undo()
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match=r"file/model cannot be written: Not a directory\."):
        ports.save_model(tmp_path / "file" / "model", {}, PARAMS)


def test_a_disk_without_room_is_found_before_anything_is_written(tmp_path, monkeypatch):
    usage = os.statvfs(tmp_path)
    room = usage.f_bavail * usage.f_frsize
    leaf = np.broadcast_to(np.float32(0), (room // 4 + (1 << 30),))
    monkeypatch.setattr(orbax_groups, "write_groups", None)
    with pytest.raises(OSError, match=r"/a/m cannot be written: it takes [\d,]+ MB, and its disk"):
        ports.save_model(tmp_path / "a" / "m", {}, {"w": leaf})
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_was_filled_meanwhile_is_not_overwritten(tmp_path):
    with (
        pytest.raises(ports.CheckpointError, match="already holds other files"),
        new_folder(tmp_path / "model") as inside,
    ):
        (inside / "ours").touch()
        (tmp_path / "model").mkdir()
        (tmp_path / "model" / "theirs").touch()
    assert [path.name for path in (tmp_path / "model").iterdir()] == ["theirs"]
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


FULL = """
import resource, signal, sys, time, numpy as np
from qdgs_jax import ports
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))
numbers = {str(i): np.random.default_rng(i).standard_normal((512, 1024)) for i in range(3)}
try:
    ports.save_model(sys.argv[1], {}, numbers)
except OSError as error:
    print(error, file=sys.stderr)
"""


def test_a_disk_that_fills_up_is_one_line_and_leaves_no_parents(tmp_path):
    command = [sys.executable, "-c", FULL, str(tmp_path / "a" / "b" / "model")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    *_, line = done.stderr.strip().splitlines()
    assert line.startswith(f"{tmp_path}/a/b/model cannot be written: File too large")
    assert "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []
