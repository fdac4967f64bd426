"""Faces from a checkpoint to a data set and a report, by the command line, with small networks."""

import numpy as np
import pytest
from faces_run import port_generator, write_clip

from qdgs_jax.cli import app, console
from qdgs_jax.datasets.audit import read_audit
from qdgs_jax.datasets.manifest import read_manifest
from qdgs_jax.datasets.shards import ShardSource, read_rows
from qdgs_jax.domains import load_domain
from qdgs_jax.runs.checkpoint import restore_state
from qdgs_jax.runs.checkpoint_writer import find_checkpoints
from qdgs_jax.runs.folder import RunFolder
from qdgs_jax.runs.prepare import prepare_search

SMALL = {
    '"weights/ffhq-256"': '"generator-8"',
    '"weights/vit-b-32"': '"clip"',
    "cells = 50": "cells = 6",
    "cells = 25": "cells = 6",
    "evaluations = 240513": "evaluations = 58",
    "emitters = 1\n": "emitters = 2\n",
    "start_batches = 32": "start_batches = 2",
    "start_batch_size = 16": "start_batch_size = 4",
    "chunk = 25": "chunk = 6",
    "images = 50000": "images = 12",
    "shard_size = 1000": "shard_size = 10",
    "restarts = 10": "restarts = 1",
    "augmentation_count = 9": "augmentation_count = 3",
    "side = 112": "side = 28",
}


def qdgs(*arguments):
    """Run a command in this process and return its exit code."""
    return console.guarded(lambda: app([str(a) for a in arguments]))


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with a run file of small networks in it."""
    folder = tmp_path_factory.mktemp("faces")
    port_generator(folder)
    write_clip(folder)
    assert qdgs("init", "faces", folder / "my.toml") == 0
    text = (folder / "my.toml").read_text(encoding="utf-8")
    for old, new in SMALL.items():
        assert old in text
        text = text.replace(old, new)
    (folder / "my.toml").write_text(text, encoding="utf-8")
    return folder


def test_the_whole_way_from_a_checkpoint(place, monkeypatch, capsys):
    monkeypatch.chdir(place)
    assert qdgs("search", "my.toml", "--out", "run") == 0
    assert "cma_maega: QD-score" in capsys.readouterr().out
    folder = RunFolder(place / "run")
    row = folder.read_metrics()[-1]
    assert row["evaluations"] == 8 + 2 + 6 * 8
    elites = folder.elites()
    assert elites.latents.shape[1] == 4 * 5
    assert np.isfinite(elites.measures).all()

    task = prepare_search(folder.config(), load_domain(folder.config()))
    _, newest = find_checkpoints(folder.checkpoints)[0]
    memory = restore_state(newest, task.shapes()).problem
    assert 0 < int(memory.written) <= 2 * 6 + 1  # one of each evaluation, at most
    kept = np.linalg.norm(memory.embeds[: int(memory.written)], axis=1)
    np.testing.assert_allclose(kept, 1.0, atol=1e-4)

    capsys.readouterr()
    assert qdgs("generate", "run") == 0
    shown = capsys.readouterr().out
    assert "warning: no image is labelled" in shown  # empty bins are no error
    manifest = read_manifest(folder.data)
    rows = read_rows(folder.data)
    assert 0 < manifest.count == 3 * manifest.source["latents"] <= 3 * 12
    assert f"{manifest.source['subjects']} subjects of" in shown
    assert rows.subjects.tolist() == sorted(rows.subjects.tolist())
    assert rows.augmentations.tolist() == [0, 1, 2] * manifest.source["latents"]
    for column in (rows.subjects, rows.labels, rows.elites.cells):
        np.testing.assert_array_equal(column[::3], column[2::3])
    for subject in np.unique(rows.subjects):
        assert len(np.unique(rows.labels[rows.subjects == subject])) == 1
    assert len(manifest.label_names) == 9
    assert manifest.label_names[0] == "A person with dark skin. / A masculine person."
    shards = ShardSource(folder.data)
    assert np.asarray(shards[0]["image"]).shape == (28, 28, 3)

    assert qdgs("generate", "run", "--plain", "--out", "plain") == 0
    plain = read_rows(place / "plain" / "data")
    assert plain.subjects is None
    assert len(plain) == manifest.source["latents"]
    assert np.asarray(ShardSource(place / "plain" / "data")[0]["image"]).shape == (8, 8, 3)

    capsys.readouterr()
    assert qdgs("audit", "run", "--column", "label") == 0
    assert "there is no random sampling to compare with" in capsys.readouterr().out
    audit = read_audit(place / "run" / "audit")
    assert [attribute.name for attribute in audit.attributes] == [
        "skin",
        "age",
        "gender",
        "skin × gender",
        "label",
    ]
    assert audit.attributes[-1].tallies[0].counts == manifest.label_counts
    for attribute in audit.attributes:
        assert sum(attribute.tallies[0].shares) == pytest.approx(1.0)

    assert qdgs("report", "run") == 0
    page = (place / "run" / "report" / "index.html").read_text(encoding="utf-8")
    assert "A person in their 20s." in page
    assert "Rarest group of skin × gender" in page


def test_a_generator_without_statistics_is_refused_before_a_folder_is_made(
    place, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(place)
    config = (place / "generator-8" / "config.json").read_text()
    try:
        (place / "generator-8" / "config.json").write_text(
            config.replace('"latent_statistics"', '"assumed"')
        )
        assert qdgs("search", "my.toml", "--out", tmp_path / "run") == 2
    finally:
        (place / "generator-8" / "config.json").write_text(config)
    error = capsys.readouterr().err
    assert "holds no statistics of its codes" in error
    assert "`qdgs port stylegan2 CHECKPOINT FOLDER`" in error
    assert not (tmp_path / "run").exists()
