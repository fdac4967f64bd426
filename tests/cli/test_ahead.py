"""What `qdgs generate` would refuse after a search is refused by the commands before it."""

import numpy as np
import pytest
from toy_runs import play, qdgs, write_run

from qdgs_jax import ports
from qdgs_jax.runs.folder import RunFolder

PEOPLE = '\n[dataset.subjects]\naugmentations = "wide"\nalign = "none"\n'
REFUSED = "wide holds augmentations of 10 numbers, and the generator's latents have 4"


@pytest.fixture(autouse=True)
def in_a_folder_with_augmentations(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    play(monkeypatch)
    config = {"kind": "latents", "count": 2, "latent_dim": 10}
    ports.save_model(tmp_path / "wide", config, {"rows": np.zeros((2, 10), np.float32)})


def write_wide(path):
    text = write_run(path, "random").read_text()
    path.write_text(text.partition("[repair]")[0] + PEOPLE)
    return path


@pytest.mark.parametrize(
    "options", [(), ("--plan",), ("--plan", "--seed", "1,2"), ("--seed", "1,2"), ("--baseline",)]
)
def test_a_search_that_nothing_can_be_generated_from_does_not_begin(options, tmp_path, capsys):
    assert qdgs("search", write_wide(tmp_path / "my.toml"), *options) == 2
    assert REFUSED in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()


def test_a_search_that_was_begun_is_gone_on_with_all_the_same(tmp_path, capsys):
    run_file = write_run(tmp_path / "my.toml", "random")
    assert qdgs("search", run_file, "--out", "run") == 0
    folder = RunFolder(tmp_path / "run")
    folder.run_file.write_text(
        folder.run_file.read_text() + PEOPLE.replace('"wide"', '"../wide"'), encoding="utf-8"
    )
    assert qdgs("search", "--resume", "run", "--evaluations", 1800) == 0
    assert "warning: " in (shown := capsys.readouterr().out)
    assert REFUSED in " ".join(shown.split())
    assert folder.finished


def test_what_is_doubtful_is_told_and_searched(tmp_path, capsys):
    few = {"images = 30": "images = 500"}
    assert qdgs("search", write_run(tmp_path / "my.toml", "random", **few), "--out", "run") == 0
    shown = capsys.readouterr().out
    assert "warning: dataset.images = 500 is more than the 100 cells of the archive" in shown
    assert shown.index("warning: dataset.images") < shown.index("looking for start latents")


def test_seeds_of_one_run_file_are_warned_of_once(tmp_path, capsys):
    few = {"images = 30": "images = 500"}
    run_file = write_run(tmp_path / "my.toml", "random", **few)
    assert qdgs("search", run_file, "--seed", "1,2", "--out", "runs") == 0
    assert capsys.readouterr().out.count("warning: dataset.images = 500") == 1


def test_a_margin_that_leaves_no_room_is_refused_where_it_is_given(tmp_path, capsys):
    cuts = {'label = "shape"': 'label = "shape"\nlabel_bins = [[-0.03, 0.03]]'}
    run_file = write_run(tmp_path / "my.toml", "random", **cuts)
    assert qdgs("search", run_file, "--out", "run") == 0
    capsys.readouterr()
    assert qdgs("generate", "run", "--margin", 0.04) == 2
    error = capsys.readouterr().err
    assert "error: margin = 0.04 leaves no room for images between the cuts -0.03 and" in error
    assert not (tmp_path / "run" / "data").exists()
