"""A run's latents belong to the weights that it was searched with."""

import json
import shutil
from types import SimpleNamespace

import pytest
from run_text import RUN

from qdgs_jax import load_run
from qdgs_jax.domains.weights import fingerprints
from qdgs_jax.runs import checkpoint, checkpoint_writer
from qdgs_jax.runs.config import parse_run, run_to_toml
from qdgs_jax.runs.folder import RunFolder
from qdgs_jax.runs.prepare import take_up_run
from qdgs_jax.runs.provenance import begin_stint, check_weights, read_provenance


def write_model(folder, crc=1, **settings):
    """A model folder as far as fingerprints look at it."""
    folder.mkdir(exist_ok=True)
    parameters = {"decoder.kernel": {"shape": [2], "dtype": "float32", "crc32": crc}}
    content = {"config": {"kind": "vae", **settings}, "parameters": parameters}
    (folder / "config.json").write_text(json.dumps(content))


@pytest.fixture
def run(tmp_path):
    """A run that was begun with a generator in `vae` beside it."""
    write_model(tmp_path / "vae")
    folder = RunFolder(tmp_path / "run")
    folder.create(parse_run(RUN.replace("embedded:shapes-vae", str(tmp_path / "vae"))))
    begin_stint(folder.path, 0, fingerprints(folder.config().domain))
    return folder


def test_the_same_weights_are_let_through_wherever_they_lie(run, tmp_path):
    assert set(read_provenance(run.path).last.weights) == {"generator", "clip"}
    check_weights(run.path, run.config().domain)
    write_model(tmp_path / "vae", assumed={"pixels": "those of OpenAI"})  # only told
    assert len(take_up_run(run)) == 1
    write_model(tmp_path / "elsewhere")
    moved = SimpleNamespace(
        **{**dict(run.config().domain), "generator": str(tmp_path / "elsewhere")}
    )
    check_weights(run.path, moved)


@pytest.mark.parametrize("other", [{"crc": 2}, {"latent_dim": 7}])
def test_other_weights_in_their_place_are_refused_by_name(other, run, tmp_path):
    write_model(tmp_path / "vae", **other)
    message = r"domain\.generator = '.*vae' holds other weights than those that .*run was searched"
    with pytest.raises(ValueError, match=message):
        take_up_run(run)
    run.archive_file.touch()
    with pytest.raises(ValueError, match=message):
        load_run(run.path).domain  # noqa: B018 (loads)


def test_another_tokenizer_is_another_clip(tmp_path):
    write_model(tmp_path / "clip")
    domain = SimpleNamespace(kind="external", generator="module:make", clip=str(tmp_path / "clip"))
    before = fingerprints(domain)
    assert set(before) == {"clip"}
    (tmp_path / "clip" / "tokenizer.json").write_text("{}")
    assert fingerprints(domain)["clip"] != before["clip"]


def test_a_run_that_kept_no_weights_is_let_through(run):
    path = run.path / "provenance.json"
    content = json.loads(path.read_text())
    del content["stints"][0]["weights"]  # as 0.2.0 wrote it
    path.write_text(json.dumps(content))
    check_weights(run.path, run.config().domain)


def test_a_run_that_was_moved_with_its_weights_is_gone_on_with(run, tmp_path, monkeypatch):
    config = run.config()
    monkeypatch.setattr(checkpoint_writer, "find_checkpoints", lambda folder: [(1, folder)])
    monkeypatch.setattr(checkpoint, "read_about", lambda path: {"run": run_to_toml(config)})
    assert config.domain.generator == str(tmp_path / "vae")
    (tmp_path / "new").mkdir()
    for name in ("vae", run.path.name):
        shutil.move(tmp_path / name, tmp_path / "new" / name)
    moved = RunFolder(tmp_path / "new" / run.path.name)
    assert moved.config().domain.generator == str(tmp_path / "new" / "vae")
    assert len(take_up_run(moved)) == 1
    write_model(tmp_path / "new" / "vae", crc=2)
    with pytest.raises(ValueError, match="holds other weights"):
        take_up_run(moved)
