"""Folders of weights in several files, and how their errors name the place."""

import json

import numpy as np
import pytest
from checkpoint_formats import safetensors

from qdgs_jax.ports.conversion import recognise
from qdgs_jax.ports.errors import CheckpointError, naming, printable, show
from qdgs_jax.ports.readers.tree import named_tensors
from qdgs_jax.ports.source import open_content

SHARDS = {f"part{i}.safetensors": safetensors({f"w{i}": np.full(2, i)}) for i in range(3)}


@pytest.fixture
def folder(tmp_path):
    """Three files of a tensor each, and their index."""
    for name, data in SHARDS.items():
        (tmp_path / name).write_bytes(data)
    write_index(tmp_path, list(SHARDS))
    return tmp_path


def write_index(folder, names):
    index = {"weight_map": {f"w{i}": name for i, name in enumerate(names)}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


def test_the_tensors_of_all_files_are_found(folder):
    with open_content(folder) as content:
        found = {name: tensor.numpy().tolist() for name, tensor in named_tensors(content.root)}
    assert found == {"w0": [0, 0], "w1": [1, 1], "w2": [2, 2]}


def test_a_folder_that_was_converted_is_told_of(tmp_path):
    (tmp_path / "params").mkdir()
    (tmp_path / "config.json").write_text("{}")
    with (
        pytest.raises(CheckpointError, match="The folder was converted already"),
        open_content(tmp_path),
    ):
        pass


def test_an_error_of_the_reader_names_its_file_alone(folder):
    (folder / "part1.safetensors").write_bytes(SHARDS["part1.safetensors"][:-1])
    with pytest.raises(CheckpointError) as caught, open_content(folder):
        pass
    assert str(caught.value).startswith(f"{folder / 'part1.safetensors'}: The file is truncated")


def test_an_error_about_the_content_names_the_folder_once(folder):
    with pytest.raises(CheckpointError) as caught, open_content(folder) as content:
        recognise("vae", content)
    assert str(caught.value).startswith(f"{folder}: This is not a shapes VAE: there is no ")
    assert str(caught.value).endswith(". The file holds w0, w1, w2.")


@pytest.mark.parametrize(
    "name", ["a\0b", "", ".", "..", "a/b", "../a", "/etc/passwd", "\ud800", "a\nb", 7, None]
)
def test_an_index_names_files_of_its_folder_alone(folder, name):
    write_index(folder, ["part0.safetensors", name])
    message = "which is not in its folder"
    with pytest.raises(CheckpointError, match=message), open_content(folder):
        pass


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "not valid JSON"),
        ("[" * 100_000, "not valid JSON"),
        ("[]", "holds no JSON table"),
        ("{}", "has no weight_map"),
        (" " * (1 << 22) + "{}", "has 4194306 bytes, far more than a config"),
    ],
)
def test_a_broken_index_is_named(folder, text, message):
    index = folder / "model.safetensors.index.json"
    index.write_text(text)
    with pytest.raises(CheckpointError) as caught, open_content(folder):
        pass
    assert str(caught.value).startswith(f"{index}: ")
    assert message in str(caught.value)


def test_files_must_not_repeat_tensors(folder):
    (folder / "part1.safetensors").write_bytes(SHARDS["part0.safetensors"])
    message = r"part1\.safetensors: The shard repeats tensors"
    with pytest.raises(CheckpointError, match=message), open_content(folder):
        pass


def test_what_a_file_says_is_shown_short_and_harmless():
    assert printable("w\x1b[2J\n\ud800é") == "w\\x1b[2J\\n\\ud800é"
    assert show("\x1b") == "'\\x1b'"
    assert all(len(show(value)) < 90 for value in ("a" * 999, 10**999, ["a" * 999]))


def test_the_innermost_file_is_named():
    with pytest.raises(CheckpointError, match=r"^b: broken$"), naming("a"), naming("b"):
        raise CheckpointError("broken")
