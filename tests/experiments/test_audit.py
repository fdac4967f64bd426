"""Audits of made-up data sets: who is compared, what is counted and shown, what is refused."""

import csv
import json
import re
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from labelled_rows import labelled
from run_text import RUN

from qdgs_jax.cli import app, console
from qdgs_jax.datasets.audit import FOLDER, RESULTS, read_audit
from qdgs_jax.datasets.png import encode_png
from qdgs_jax.datasets.shards import write_shards
from qdgs_jax.domains.zero_shot import Seen
from qdgs_jax.experiments import audit as audits
from qdgs_jax.report.collect import sections_of
from qdgs_jax.runs.config import baseline_of, parse_run, write_run_file
from qdgs_jax.runs.folder import RunFolder
from qdgs_jax.runs.prepare import _changes

AUDIT = """
[audit.skin]
light = "light"
mixed = "mixed"
dark = "dark"
[audit.age]
young = "young"
old = "old"
"""
CROSSED = RUN.replace('"colour"', '"skin"').replace('name = "shape"', 'name = "age"')
CROSSED = CROSSED.replace('label = "shape"', 'label = ["skin", "age"]') + AUDIT


def qdgs(*arguments):
    """Run a command in this process and return its exit code."""
    return console.guarded(lambda: app([str(a) for a in arguments]))


class Eye(NamedTuple):
    """Reads groups and measures from pixels: red is the skin, green the age, blue both measures."""

    groups: dict
    sizes: list

    def look(self, pictures):
        self.sizes.append(pictures.shape[:3])
        pixels = pictures[:, 0, 0].astype(int)
        measures = (pixels[:, 2:] - 100) / 1000.0
        return Seen(pixels[:, : len(self.groups)], np.repeat(measures, 2, axis=1))


class DoubtfulEye(Eye):
    """Is never sure of dark skin."""

    def look(self, pictures):
        seen = super().look(pictures)
        return seen._replace(groups=np.where(seen.groups == 2, -1, seen.groups))

    def check(self, size):
        """Any size will do."""


@pytest.fixture(autouse=True)
def eyes(monkeypatch):
    """What stands in for CLIP and for the oracle; gives the shapes that CLIP saw."""
    sizes = []

    def clip(config, groups):
        return Eye({name: tuple(each) for name, each in groups.items()}, sizes)

    def oracle(name):
        return DoubtfulEye({"skin": ("light", "mixed", "dark"), "age": ("young", "old")}, [])

    monkeypatch.setattr(audits, "load_zero_shot", clip)
    monkeypatch.setattr(audits, "load_faces_oracle", oracle)
    return sizes


def pictures_of(people, size=8):
    """Even pictures of (skin, age, blue)."""
    return np.stack([np.broadcast_to(np.uint8(each), (size, size, 3)) for each in people])


def write_data(folder, people, size=8, **options):
    """A data set of ours; labels are the ages."""
    labels = np.array([age for _, age, _ in people])
    rows = labelled(labels, np.zeros((len(people), 2)))
    names = {"label_names": ("young one", "old one"), "measure_names": ("skin", "age")}
    write_shards(folder, rows, [pictures_of(people, size)], **names, shard_size=40, **options)
    return folder


def write_reference(folder, people, size=8, **columns):
    """A Parquet folder of others, whose last picture is broken."""
    folder.mkdir()
    rows = [{"bytes": encode_png(picture)} for picture in pictures_of(people, size)]
    kind = pa.struct({"bytes": pa.binary()})
    table = {"photo": pa.array([*rows, {"bytes": b"broken"}], kind), **columns}
    pq.write_table(pa.table(table), folder / "x.parquet")
    return folder


RUN_PEOPLE = [(0, 0, 20)] * 30 + [(0, 1, 80)] * 15 + [(1, 0, 120)] * 5 + [(2, 1, 180)] * 10
BASELINE_PEOPLE = [(0, 0, 95)] * 15 + [(2, 0, 105)] * 5


@pytest.fixture
def run(tmp_path):
    """A finished run of made-up people, with its baseline."""
    folder = RunFolder(tmp_path / "run")
    config = parse_run(CROSSED)
    for each, part, people in (
        (folder, config, RUN_PEOPLE),
        (folder.baseline, baseline_of(config), BASELINE_PEOPLE),
    ):
        each.create(part)
        each.archive_file.touch()
        write_data(each.data, people, card=each.path)
    return folder


def test_a_run_is_counted_beside_its_baseline_and_references(run, tmp_path, capsys, eyes):
    reference = write_reference(tmp_path / "ffhq", [(0, 1, 100)] * 4, size=16)
    others = ("--against", reference, "--against", run.baseline.path)  # which stands there anyway
    assert qdgs("audit", run.path, *others, "--paper") == 0
    shown = capsys.readouterr().out
    assert shown.startswith(f"{run.path}: reading the data\n")
    assert set(eyes) == {(audits.BATCH, 8, 8)}  # one shape, all averaged down to the run's size

    audit = read_audit(run.path / FOLDER)
    assert [each.name for each in audit.data_sets] == ["cma_maega", "random", "ffhq"]
    assert [each.role for each in audit.data_sets] == ["run", "baseline", "none"]
    assert [each.images for each in audit.data_sets] == [60, 20, 4]
    assert audit.data_sets[2].failed == (4,)
    assert "warning: ffhq: 1 of 5 images cannot be decoded or have another size, at 4." in shown
    skin, age, both = audit.attributes
    assert [tally.counts for tally in skin.tallies] == [(45, 5, 10), (15, 0, 5), (4, 0, 0)]
    assert [tally.counts for tally in age.tallies] == [(35, 25), (20, 0), (0, 4)]
    assert (both.name, both.groups[1]) == ("skin × age", "light × old")
    assert both.tallies[0].counts == (30, 15, 5, 0, 0, 10)
    assert "cma_maega: rarest group of skin × age by CLIP's nearest text is mixed × old" in shown
    lines = [re.findall(r"[\w.:–]+", line) for line in shown.splitlines()]
    assert ["cma_maega", "60", "75.0", "8.3", "16.7", "58.3", "41.7"] in lines
    assert ["paper:", "QDGS", "–", "56.8", "–", "25.2", "–", "45.7"] in lines
    cells, classes, bins = audit.spread[0]
    assert (cells.covered, classes.covered, bins.covered) == (4, 2, 4)
    assert classes.where  # two of four classes are empty
    assert audit.source["groups"]["skin"]["dark"] == "dark"
    assert audit.source["clip"] == "embedded:shapes-clip"
    with (run.path / FOLDER / "shares.csv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["group"] == "dark"]
    assert [(row["data_set"], round(float(row["share"]), 4)) for row in rows] == [
        ("cma_maega", 0.1667),
        ("random", 0.25),
        ("ffhq", 0.0),
        ("paper: random", 0.098),
        ("paper: QDGS", 0.252),
    ]


def test_the_data_folder_stands_for_its_run_and_the_oracle_may_find_people_unclear(run, capsys):
    assert qdgs("audit", run.data, "--judge", "judge", "--cross", "age, skin") == 0
    audit = read_audit(run.path / FOLDER)
    clip, oracle = audit.attributes[:3], audit.attributes[3:]
    assert [each.by for each in clip] == ["CLIP"] * 3
    assert not any(each.can_be_unclear for each in clip)
    skin, _, both = oracle
    assert (skin.tallies[0].counts, skin.tallies[0].unclear) == ((45, 5, 0), 10)
    assert (both.name, both.groups[:2]) == ("age × skin", ("young × light", "young × mixed"))
    assert both.tallies[0].unclear == 10
    assert "by an oracle" in capsys.readouterr().out


def test_classes_of_a_column_are_named_and_references_may_lack_them(run, tmp_path, capsys):
    (run.path / "run.toml").write_text(CROSSED.replace(AUDIT, ""))
    ours = write_data(tmp_path / "ours", [(0, 1, 0)] * 3)
    others = write_reference(tmp_path / "others", [(0, 0, 0)] * 2, label=["old one", "child", "x"])
    lacking = write_reference(tmp_path / "lacking", [(0, 0, 0)])
    given = [f"--against={each}" for each in (ours, others, lacking)]
    assert qdgs("audit", run.path, *given, "--column", "label") == 0
    (label,) = read_audit(run.path / FOLDER).attributes
    assert label.groups == ("young one", "old one", "child")
    counts = [None if tally is None else tally.counts for tally in label.tallies]
    assert counts == [(35, 25, 0), (20, 0, 0), (0, 3, 0), (0, 1, 1), None]
    assert "lacking" in capsys.readouterr().out


def test_the_report_shows_an_audit_and_says_when_its_data_are_others(run, tmp_path, monkeypatch):
    monkeypatch.chdir(run.path.parent)
    assert qdgs("audit", run.path.name) == 0

    sections = sections_of(run, run.config(), {})
    (section,) = [each for each in sections if each.title == "Audit"]
    assert "anew" not in section.words
    assert section.cards[0].what == "Rarest group of skin × age, by CLIP's nearest text"
    assert section.cards[0].value == "0.0 %"
    assert [bars.title.partition(",")[0] for bars in section.bars] == ["skin", "age", "skin × age"]
    manifest = run.data / "_manifest.json"
    manifest.write_text(manifest.read_text() + "\n")
    assert "cma_maega was written anew" in sections_of(run, run.config(), {})[-1].words
    moved = RunFolder(run.path.rename(tmp_path / "moved"))  # and seen from another folder
    monkeypatch.chdir(tmp_path.parent)
    assert "cma_maega was written anew" in sections_of(moved, moved.config(), {})[-1].words


def test_a_data_set_of_no_run_needs_one_and_is_kept_where_asked(run, tmp_path, capsys):
    alone = write_data(tmp_path / "alone", [(1, 1, 0)] * 2)
    assert qdgs("audit", alone) == 2
    assert "belongs to no run" in capsys.readouterr().err
    assert qdgs("audit", alone, "--run", run.path) == 0
    assert "nothing was written: --out FOLDER keeps" in capsys.readouterr().out
    assert not (run.path / FOLDER).exists()
    write_run_file(parse_run(CROSSED), tmp_path / "my.toml")
    assert qdgs("audit", alone, "--run", tmp_path / "my.toml", "--out", tmp_path / "kept") == 0
    audit = read_audit(tmp_path / "kept")
    assert [each.name for each in audit.data_sets] == ["alone"]
    assert json.loads((tmp_path / "kept" / RESULTS).read_text())["format"] == "qdgs-audit"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--against", "{run}/data"], "is {run} itself: give another data set"),
        (["--against", "{run}/nowhere"], "{run}/nowhere does not exist"),
        (["--against", "{run}/checkpoints"], "checkpoints is no data set"),
        (["--against", "{small}"], "have 4 x 4 pixels, those of {run}/data 8 x 8"),
        (["--column", "weight"], "has no column 'weight': it has image, label, cell"),
        (["--column", "measures"], "holds fixed_size_list"),
        (["--cross", "skin"], "--cross skin: give two attributes or more"),
        (["--cross", "skin,hair"], "Here are CLIP: skin, age"),
        (["--cross", "skin,skin"], "each once"),
        (["--run", "{small}"], "{small} holds no run"),
    ],
)
def test_what_cannot_be_audited_is_refused_before_anything_is_loaded(
    run, tmp_path, options, message, capsys, monkeypatch
):
    monkeypatch.setattr(audits, "load_zero_shot", None)
    run.checkpoints.mkdir()
    names = {"run": run.path, "small": write_data(tmp_path / "small", [(0, 0, 0)], size=4)}
    assert qdgs("audit", run.path, *(each.format(**names) for each in options)) == 2
    assert message.format(**names) in capsys.readouterr().err
    assert not (run.path / FOLDER).exists()


def test_unfinished_runs_and_runs_without_groups_or_data_are_refused(run, capsys):
    (run.path / "run.toml").write_text(CROSSED.replace(AUDIT, ""))
    assert qdgs("audit", run.path) == 2
    assert "run.toml has no table [audit]. Add one, such as [audit.skin]" in capsys.readouterr().err
    assert qdgs("audit", run.path, "--column", "label", "--paper") == 2
    assert "--paper has the shares of skin" in capsys.readouterr().err
    (run.data / "_manifest.json").unlink()
    assert qdgs("audit", run.path, "--column", "label") == 2
    assert f"holds no data set: write it with `qdgs generate {run.path}`" in capsys.readouterr().err
    run.archive_file.unlink()
    assert qdgs("audit", run.path) == 2
    assert "is not finished: continue it with `qdgs search --resume" in capsys.readouterr().err


def test_groups_may_change_after_a_search():
    assert _changes(parse_run(CROSSED.replace(AUDIT, "")), parse_run(CROSSED)) == []
    assert _changes(parse_run(RUN), parse_run(CROSSED)) != []


def test_without_a_baseline_its_command_is_told(run, capsys):
    (run.baseline.data / "_manifest.json").unlink()
    assert qdgs("audit", run.path) == 0
    assert "random sampling has no data set to compare with: `qdgs gen" in capsys.readouterr().out
    run.baseline.archive_file.unlink()
    assert qdgs("audit", run.path) == 0
    assert "--baseline`, then `qdgs generate" in capsys.readouterr().out


def test_faces_that_are_cropped_for_recognition_are_not_compared_in_silence(run, tmp_path, capsys):
    people = {"source": {"align": "arcface"}}
    cropped = write_data(tmp_path / "people", RUN_PEOPLE, **people)
    also = write_data(tmp_path / "others", RUN_PEOPLE, **people)
    given = ("audit", cropped, "--run", run.path / "run.toml", "--out", tmp_path / "found")

    def told(*options):
        assert qdgs(*given, *options) == 0
        return [line for line in capsys.readouterr().out.splitlines() if "were aligned" in line]

    assert told() == []
    assert told("--against", also) == []
    (line,) = told("--against", run.path)
    assert line.startswith("the faces of people were aligned for recognition and are cropped")
    assert "otherwise than other data sets" in line
    (line,) = told("--against", also, "--judge", "judge")
    assert line.startswith("the faces of people and others were aligned")
    assert "than faces in FFHQ's alignment, as the judge knows" in line
