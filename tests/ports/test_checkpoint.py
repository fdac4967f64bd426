"""A model folder is written whole or not at all, and a damaged one does not load."""

import json
import shutil
import subprocess
import sys

import ml_dtypes
import numpy as np
import pytest

from qdgs_jax.ports.errors import CheckpointError
from qdgs_jax.ports.model_folder import load_config, load_model, save_model, verify_model
from qdgs_jax.ports.params import Pending

CONFIG = {"kind": "vae", "sizes": [1, 2]}


@pytest.fixture(scope="module")
def params():
    rng = np.random.default_rng(0)
    return {
        "blocks": {"0": {"kernel": rng.standard_normal((3, 4)).astype(np.float32)}},
        "half": rng.standard_normal(5).astype(ml_dtypes.bfloat16),
        "scale": np.float32(2),
    }


@pytest.fixture(scope="module")
def saved(params, tmp_path_factory):
    folder = tmp_path_factory.mktemp("models") / "model"
    save_model(folder, CONFIG, params)
    return folder


@pytest.fixture
def copy(saved, tmp_path):
    return shutil.copytree(saved, tmp_path / "copy")


def test_what_was_saved_is_loaded(saved, params):
    config, loaded = load_model(saved)
    assert config == load_config(saved) == CONFIG
    np.testing.assert_array_equal(loaded["blocks"]["0"]["kernel"], params["blocks"]["0"]["kernel"])
    np.testing.assert_array_equal(loaded["half"], params["half"])
    assert loaded["half"].dtype == ml_dtypes.bfloat16
    assert (loaded["scale"], loaded["scale"].shape) == (2, ())
    assert verify_model(saved) == 18


def test_nothing_else_lies_beside_it(saved):
    assert [path.name for path in saved.parent.iterdir()] == ["model"]
    assert sorted(path.name for path in saved.iterdir()) == ["config.json", "params"]


def test_a_folder_that_holds_something_is_not_overwritten(saved, params, tmp_path):
    with pytest.raises(CheckpointError, match="already holds a model: give another folder"):
        save_model(saved, CONFIG, params)
    (tmp_path / "notes.txt").touch()
    with pytest.raises(CheckpointError, match="already holds other files"):
        save_model(tmp_path, CONFIG, params)
    with pytest.raises(CheckpointError, match="is a file"):
        save_model(tmp_path / "notes.txt", CONFIG, params)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_an_empty_folder_and_missing_parents_will_do(params, tmp_path):
    (tmp_path / "empty").mkdir()
    save_model(tmp_path / "empty", CONFIG, params)
    save_model(tmp_path / "a" / "b", CONFIG, params)
    assert load_config(tmp_path / "empty") == load_config(tmp_path / "a" / "b") == CONFIG


def test_a_failure_while_writing_leaves_nothing(params, tmp_path):
    with pytest.raises(TypeError):
        save_model(tmp_path / "model", {"not JSON": object()}, params)
    assert list(tmp_path.iterdir()) == []


def test_a_parameter_that_cannot_be_made_leaves_nothing(tmp_path):
    def make():
        raise CheckpointError("its bytes are damaged")

    leaf = Pending((3,), np.dtype(np.float32), make)
    with pytest.raises(CheckpointError, match="its bytes are damaged"):
        save_model(tmp_path / "model", CONFIG, {"a": np.ones(3, np.float32), "b": leaf})
    assert list(tmp_path.iterdir()) == []


def test_parameters_are_made_one_after_another(tmp_path):
    made = []

    def pending(number):
        def make():
            made.append(number)
            return np.full(3, number, np.float32)

        return Pending((3,), np.dtype(np.float32), make)

    said = []
    params = {str(number): pending(number) for number in range(4)}
    save_model(tmp_path / "model", CONFIG, params, progress=lambda *count: said.append(count))
    assert made == [0, 1, 2, 3]
    assert said == [(1, 4), (2, 4), (3, 4), (4, 4)]
    assert [leaf[0] for leaf in load_model(tmp_path / "model")[1].values()] == [0, 1, 2, 3]


def test_a_full_disk_is_an_error_that_leaves_nothing(tmp_path):
    script = (
        "import resource, signal, numpy as np\n"
        "from qdgs_jax.ports.model_folder import save_model\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))\n"
        "try:\n"
        f"    save_model({str(tmp_path / 'model')!r}, {{}}, {{'a': np.ones((1024, 1024))}})\n"
        "except OSError as error:\n"
        "    print(error)\n"
    )
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=99)
    assert "cannot be written: File too large" in run.stdout
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_no_model_is_named(tmp_path, copy):
    with pytest.raises(CheckpointError, match=r"config\.json cannot be read"):
        load_model(tmp_path / "nowhere")
    for text, message in (
        ("{", "not valid JSON"),
        ("[]", "not that of a model"),
        ('{"format": "qdgs-model", "version": 9}', "format version 9"),
        ('{"format": "qdgs-model", "version": 1}', "lacks"),
    ):
        (copy / "config.json").write_text(text)
        with pytest.raises(CheckpointError, match=message):
            load_model(copy)


def test_changed_numbers_are_noticed(copy):
    header = json.loads((copy / "config.json").read_text())
    header["parameters"]["half"]["crc32"] ^= 1
    (copy / "config.json").write_text(json.dumps(header))
    with pytest.raises(CheckpointError, match="damaged: half is not what was saved"):
        load_model(copy)


def test_missing_and_cut_files_are_noticed(copy):
    files = sorted(p for p in (copy / "params").rglob("*") if p.is_file())
    largest = max(files, key=lambda path: path.stat().st_size)
    data = largest.read_bytes()
    largest.write_bytes(data[: len(data) // 2])
    with pytest.raises(CheckpointError, match="incomplete or damaged"):
        load_model(copy)
    shutil.rmtree(copy / "params")
    with pytest.raises(CheckpointError, match="incomplete or damaged"):
        load_model(copy)
