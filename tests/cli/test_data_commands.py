"""`qdgs generate`, `qdgs train` and `qdgs report` on a toy domain."""

import json
import re
import shutil
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
from toy_runs import Spread, ToyDomain, play, qdgs, scores, write_run

import qdgs_jax.domains
from qdgs_jax.archive import GridArchive
from qdgs_jax.datasets.manifest import MANIFEST, read_manifest
from qdgs_jax.datasets.shards import ShardSource, read_rows
from qdgs_jax.datasets.thumbnails import laid_out, read_thumbnails
from qdgs_jax.runs.folder import RunFolder
from qdgs_jax.runs.prepare import archive_of
from qdgs_jax.train import load_classifier
from qdgs_jax.train.shapes import oracle, repair
from qdgs_jax.train.shapes.repair_result import ARMS, GROUPS, RepairResult

DOUBT = "hardly moves over the generator's own images"


class DoubtfulToy(ToyDomain):
    """A toy whose measures hardly move."""

    spreads = (Spread(DOUBT), Spread(DOUBT))


DOUBTFUL = DoubtfulToy(scores, latent_dim=4, num_measures=2)


def doubtful_toy(config):
    return DOUBTFUL


@pytest.fixture(scope="module")
def searched(tmp_path_factory):
    """A finished run with its baseline; the tests here add to it, in their order."""
    folder = tmp_path_factory.mktemp("commands")
    with pytest.MonkeyPatch.context() as patch:
        play(patch, doubtful_toy)
        run_file = write_run(folder / "my.toml", "map_elites")
        assert qdgs("search", run_file, "--out", folder / "run", "--baseline") == 0
    return folder


@pytest.fixture(autouse=True)
def with_the_toy(searched, monkeypatch):
    monkeypatch.chdir(searched)
    monkeypatch.setattr(qdgs_jax.domains, "load_domain", doubtful_toy)


def test_a_report_before_any_data_set_says_how_to_get_one():
    assert qdgs("report", "run") == 0
    page = Path("run/report/index.html").read_text()
    assert page.count("<code>qdgs generate</code>") == 2
    assert page.count("<image") == 2  # heat maps


def test_strict_writes_nothing_where_groups_would_be_short(capsys):
    assert qdgs("generate", "run", "--out", "strict", "--images", 90, "--strict") == 2
    error = capsys.readouterr().err
    assert re.search(r"\d of 4 groups are short \(.*: \d+ of 22", error)
    assert not Path("strict").exists()


def test_options_stand_before_the_run_file(capsys):
    given = ("--out", "small", "--images", 8, "--margin", 0.03, "--strict")
    assert qdgs("generate", "run", *given) == 0
    shown = capsys.readouterr().out
    assert "8 of 8 images; smallest to largest group 1.00" in shown
    assert "short" not in shown
    assert "small/README.md describes them" in shown
    manifest = read_manifest("small", verify=True)
    assert (manifest.count, manifest.source["margin"]) == (8, 0.03)
    assert [group.got for group in manifest.balance.groups] == [2, 2, 2, 2]
    assert np.abs(read_rows("small").elites.measures[:, 1]).min() >= 0.03
    assert not Path("run/data").exists()


def test_generate_says_what_was_asked_and_got_and_what_is_doubtful(capsys):
    assert qdgs("generate", "run") == 0
    shown = capsys.readouterr().out
    folder = RunFolder(Path("run"))
    own, baseline = (read_manifest(each.data) for each in (folder, folder.baseline))
    assert (own.count, baseline.count) == (30, 30)
    assert own.label_names[0] == "a triangle with 3 edges"
    for manifest in (own, baseline):
        assert f"smallest to largest group {manifest.balance.ratio:.2f}" in shown
        assert manifest.balance.got == 30
    assert "warning: the measure 'shape' hardly moves" in shown
    assert "--margin 0.02 leaves them out" in shown
    assert any("--margin 0.02" in note for note in baseline.notes)
    assert json.loads((folder.data / MANIFEST).read_text())["balance"]["asked"] == 30
    assert own.source["evaluations"] == folder.read_metrics()[-1]["evaluations"]
    of_baseline = shown[shown.index("random: images by class and bin") :]
    assert "random samples are what the generator draws by itself" in of_baseline
    assert "search longer" not in of_baseline
    assert "was not chosen as" not in shown
    assert "\x1b" not in shown  # no terminal, no control characters
    card = folder.path.joinpath("README.md").read_text()
    assert "| 0 | a triangle with 3 edges | 15 |" in card
    assert "labels within" in card or DOUBT in card
    assert "the baseline that a search is compared with" in (
        folder.baseline.path.joinpath("README.md").read_text()
    )


def refuse_to_load(config):
    raise AssertionError("a domain is loaded")


def test_data_sets_that_exist_are_refused_before_anything_is_loaded(capsys, monkeypatch):
    monkeypatch.setattr(qdgs_jax.domains, "load_domain", refuse_to_load)
    assert qdgs("generate", "run") == 2
    error = capsys.readouterr().err
    assert "run/data already holds a data set" in error
    assert "--out FOLDER says where else" in error
    assert qdgs("generate", "run", "--out", "small") == 2
    assert "small/data already holds a data set" in capsys.readouterr().err
    Path("mine").mkdir()
    Path("mine/README.md").write_text("# My thesis\n")
    assert qdgs("generate", "run", "--out", "mine") == 2
    assert "mine/README.md is no data set's card" in capsys.readouterr().err


def test_of_two_data_sets_the_one_that_is_missing_is_written(capsys):
    folder = RunFolder(Path("run"))
    kept = (folder.data / MANIFEST).read_bytes()
    again = (folder.baseline.data / MANIFEST).read_bytes()
    stamp = (folder.data / MANIFEST).stat().st_mtime_ns
    shutil.rmtree(folder.baseline.data)
    assert qdgs("generate", "run") == 0
    shown = capsys.readouterr().out
    assert "run/random/data: 30 images" in shown
    assert "run/data: " not in shown
    assert (folder.data / MANIFEST).stat().st_mtime_ns == stamp
    assert (folder.data / MANIFEST).read_bytes() == kept
    assert (folder.baseline.data / MANIFEST).read_bytes() == again


def test_data_sets_that_were_not_chosen_alike_are_not_compared_in_silence(capsys):
    shutil.copytree("run", "unlike")
    shutil.rmtree("unlike/data")
    assert qdgs("generate", "unlike", "--margin", 0.03) == 0
    told = "unlike/random/data was not chosen as unlike/data was: margin 0.0 instead of 0.03."
    assert told in capsys.readouterr().out
    assert qdgs("report", "unlike") == 0
    assert told in Path("unlike/report/index.html").read_text()


def test_ctrl_c_says_which_data_sets_are_kept(capsys, monkeypatch):
    def interrupted(config):
        raise KeyboardInterrupt

    monkeypatch.setattr(qdgs_jax.domains, "load_domain", interrupted)
    assert qdgs("generate", "run", "--out", "other") == 130
    assert "stopped: nothing was written to other" in capsys.readouterr().err
    shutil.rmtree("run/random/data")
    assert qdgs("generate", "run") == 130
    error = capsys.readouterr().err
    assert "stopped: run/data kept; `qdgs generate run` writes what is missing" in error
    monkeypatch.setattr(qdgs_jax.domains, "load_domain", doubtful_toy)
    assert qdgs("generate", "run") == 0


def test_experiments_of_a_run_show_their_tables(capsys, monkeypatch):
    result = stub_training(monkeypatch)
    assert qdgs("train", "run") == 0
    shown = capsys.readouterr().out
    assert f"{100 * result.mean('run')[0]:.1f}" in shown
    assert re.search(r"red square\W+10\.0\W+10\.0", shown)


@pytest.mark.parametrize(
    ("option", "value"), [("epochs", 5), ("seed", 0), ("image-size", 16), ("out", "x")]
)
def test_options_of_one_data_set_are_refused_for_a_run(option, value, capsys):
    assert qdgs("train", "run", f"--{option}", value) == 2
    assert f"--{option} is for one data set" in capsys.readouterr().err


def test_options_that_a_recipe_holds_are_refused_beside_it(capsys):
    assert qdgs("train", "run", "--config", "recipe.toml", "--epochs", 5) == 2
    assert "--epochs is for one data set" in capsys.readouterr().err


def test_the_report_needs_neither_generator_nor_clip(capsys, monkeypatch):
    monkeypatch.setattr(qdgs_jax.domains, "load_domain", refuse_to_load)
    assert qdgs("report", "run") == 0
    shown = capsys.readouterr().out.splitlines()
    assert shown == ["run: reading what was found", "report: run/report/index.html"]
    page = Path("run/report/index.html").read_text()
    assert page.count("data:image/webp;") == 2  # pictures of the run and of its baseline
    for file in ("archive.parquet", "data/shard-00000.parquet", "random/metrics.csv"):
        assert f'<a href="../{file}">' in page
    assert "red square, as the oracle sees it" in page
    assert "Are the data balanced now?" in page
    assert page.count("<image") == 3  # and the atlas


def stub_training(monkeypatch):
    """Put quick stand-ins for the experiment's training; returns the accuracies they will give."""
    rng = np.random.default_rng(0)
    biases = (0.98, 0.95, 0.9, 0.85, 0.8)
    accuracy = {arm: rng.random((5, 5, 4)) for arm in ARMS}
    result = RepairResult(biases, accuracy, dict.fromkeys(ARMS, 30))

    def run_repair(run_dir, baseline_dir, settings, seed, progress):
        run = RunFolder(Path("run"))
        assert (run_dir, baseline_dir) == (run.data, run.baseline.data)
        assert (settings.seeds, seed) == (5, 0)
        progress("train", 1.0)
        return result

    class Oracle:
        accuracy = 1.0

    class Judged:
        def shares(self):
            return dict(zip((*GROUPS, "unclear"), (0.5, 0.2, 0.1, 0.2, 0.0), strict=True))

        def label_agreement(self):
            return 1.0

    monkeypatch.setattr(repair, "run_repair", run_repair)
    monkeypatch.setattr(oracle, "train_oracle", lambda seed, image_size: Oracle())
    monkeypatch.setattr(oracle, "judge_dataset", lambda data, oracle: Judged())
    return result


def test_train_on_one_data_set_writes_a_classifier_that_loads_again(capsys):
    assert qdgs("train", "run/data", "--epochs", 2, "--out", "classifier") == 0
    shown = capsys.readouterr().out
    assert "-> classifier" in shown
    assert "of these recognised" in shown
    read = load_classifier("classifier")
    assert read.classes == tuple(read_manifest("run/data").label_names)
    picture = ShardSource("run/data")[0]["image"]
    assert read.model.cfg.image_size == 16
    assert read.predict(picture[None]).tolist() in ([0], [1])
    assert qdgs("train", "run/data", "--epochs", 2, "--out", "classifier") == 2
    assert "classifier" in capsys.readouterr().err


def test_commands_that_need_a_finished_run_say_so(capsys):
    for command in ("generate", "report", "train"):
        assert qdgs(command, "nowhere") == 2
        assert "nowhere does not exist" in capsys.readouterr().err


def test_an_extension_has_thumbnails_and_data_of_its_own(tmp_path, capsys):
    run_file = write_run(tmp_path / "my.toml", "map_elites")
    run = RunFolder(tmp_path / "extended")
    assert qdgs("search", run_file, "--out", run.path) == 0
    assert qdgs("generate", run.path) == 0
    before = read_thumbnails(run.thumbnails_file)
    assert qdgs("search", "--resume", run.path, "--evaluations", 1800) == 0
    assert not run.thumbnails_file.exists()
    assert "remove them and generate again" in capsys.readouterr().out
    shutil.rmtree(run.data)
    assert qdgs("generate", run.path) == 0
    after = read_thumbnails(run.thumbnails_file)
    assert set(after) == set(run.elites().cells.tolist())
    assert len(after) > len(before)


def test_a_run_on_a_cvt_archive_goes_the_whole_way(tmp_path, capsys):
    cells = {"qd_score_offset = 0.0": "qd_score_offset = 0.0\ncvt_cells = 30"}
    run_file = write_run(tmp_path / "my.toml", "map_elites", **cells)
    run = RunFolder(tmp_path / "cvt")
    assert qdgs("search", run_file, "--out", run.path, "--baseline") == 0
    assert run.baseline.config().archive.cvt_cells == 30
    found = run.elites()
    assert run.read_metrics()[-1]["coverage"] == pytest.approx(len(found) / 30)
    archive = archive_of(run.config())(jnp.zeros(4))
    np.testing.assert_array_equal(archive.cell_of(jnp.asarray(found.measures)), found.cells)
    assert qdgs("search", "--resume", run.path, "--evaluations", 1800) == 0
    found = run.elites()
    assert qdgs("generate", run.path) == 0
    rows = read_rows(run.baseline.data).elites
    np.testing.assert_array_equal(archive.cell_of(jnp.asarray(rows.measures)), rows.cells)
    shown = laid_out(found, run.config())
    on_grid = GridArchive.create(jnp.zeros(4), dims=(10, 10), ranges=run.config().ranges)
    np.testing.assert_array_equal(on_grid.cell_of(jnp.asarray(shown.measures)), shown.cells)
    assert set(read_thumbnails(run.thumbnails_file)) == set(shown.cells.tolist())
    assert qdgs("report", run.path) == 0
    page = (run.path / "report" / "index.html").read_text("utf-8")
    assert f"the archive has {len(found)} elites in 30 cells over 2 measures." in page
    named = {int(cell) for cell in re.findall(r"map_elites, cell (\d+)", page)}
    assert named <= set(found.cells.tolist())  # the archive's own numbers
    assert "for each of the 30 cells" in page
