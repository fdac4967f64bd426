"""The recognition experiment as a plug-in: what it needs, what it says, what is read back."""

from __future__ import annotations

import csv
import dataclasses
import io
from pathlib import Path

import numpy as np
import pytest
from labelled_rows import labelled

from qdgs_jax.cli.init import packaged_run
from qdgs_jax.datasets.manifest import PEOPLE
from qdgs_jax.datasets.shards import write_shards
from qdgs_jax.experiments import experiments_of, run_experiments
from qdgs_jax.experiments.protocol import ExperimentError, arm_names
from qdgs_jax.experiments.recognition import Recognition, people_folder, seed_tables
from qdgs_jax.report.collect import sections_of
from qdgs_jax.runs.config import baseline_of, parse_run
from qdgs_jax.runs.folder import RunFolder
from qdgs_jax.train.faces import comparison
from qdgs_jax.train.faces.comparison_result import ARMS, Arm, Comparison
from qdgs_jax.train.faces.fairness import Fairness, GroupResult

RUN = packaged_run("drawn-faces")


def make_run(path: Path, text: str = RUN, size: int = 112) -> RunFolder:
    folder = RunFolder(path)
    config = parse_run(text)
    folder.create(config)
    folder.baseline.create(baseline_of(config))
    for each in (folder, folder.baseline):
        each.archive_file.touch()
        write_people(each.path / PEOPLE / "data", size)
    return folder


def write_people(place: Path, size: int = 112, subjects: bool = True) -> None:
    who = np.arange(4) // 2 if subjects else None
    rows = labelled(np.zeros(4, int), np.zeros((4, 4)), subjects=who)
    names = {"label_names": ("?",), "measure_names": ("skin", "gender", "hair", "age")}
    write_shards(place, rows, [np.zeros((4, size, size, 3), np.uint8)], **names)


def made_up(seeds: int = 3) -> Comparison:
    """Accuracies that grow with the arms' places."""

    def group(name: str, value: float) -> GroupResult:
        return GroupResult(name, 20, value, 0.1, 0.2)

    def arm(number: int, size: int) -> Arm:
        found = [
            Fairness(
                tuple(
                    group(name, base + 0.01 * number + 0.001 * seed)
                    for name, base in (("dark", 0.7), ("light", 0.8), ("mixed", 0.75))
                ),
                1.5,
            )
            for seed in range(seeds)
        ]
        sets = tuple({"any": 0.9, "pose": 0.8 + 0.01 * number} for _ in range(seeds))
        return Arm(2 * size, size, 10 * size, tuple(found), sets)

    sizes = (0, 90, 91, 300, 301)
    return Comparison({name: arm(i, sizes[i]) for i, name in enumerate(ARMS)})


def test_the_packaged_run_of_drawn_faces_has_it_and_is_let_through(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run")
    assert [each.name for each in experiments_of(folder.config())] == ["recognition"]
    Recognition().check(folder)


def test_people_may_be_the_data_set_itself(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run")
    assert people_folder(folder, folder) == folder.path / PEOPLE
    (folder.path / PEOPLE).rename(folder.path / "away")
    write_people(folder.data)
    assert people_folder(folder, folder) == folder.data


def test_a_data_set_without_subjects_is_refused_by_name(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "a run")
    (folder.baseline.path / PEOPLE).rename(folder.path / "away")
    write_people(folder.baseline.data, subjects=False)
    message = (
        r"random has no people: no data set with subjects lies in .*random/people or .*random/data;"
        r" write one with `qdgs generate '.*a run/random' --out '.*random/people'`"
    )
    with pytest.raises(ExperimentError, match=message):
        Recognition().check(folder)


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run")
    folder.create(parse_run(RUN))

    def refused(message: str) -> None:
        with pytest.raises(ExperimentError, match=message):
            run_experiments(folder, lambda done, total: None)

    refused("has no baseline to compare with: add it with `qdgs search --resume .*run --baseline`")
    folder.baseline.create(baseline_of(folder.config()))
    refused("the search in .*run is not finished: continue it with `qdgs search --resume .*run`")
    folder.archive_file.touch()
    refused("run has no people")
    table = RUN.index("[dataset.subjects]"), RUN.index("# `qdgs audit`")
    folder.run_file.write_text(RUN[: table[0]] + RUN[table[1] :])
    refused(r"run.toml has no table \[dataset.subjects\]")
    folder.run_file.write_text(RUN[: RUN.index("[recognition]")])
    with pytest.raises(ExperimentError, match=r"has no table \[recognition\]: add one"):
        Recognition().check(folder)


def test_pairs_and_pixels_that_are_not_there_are_refused(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run", size=16)
    message = r"run.toml: recognition.side = \d+, but people are 16 pixels wide: give at most 16"
    with pytest.raises(ExperimentError, match=message):
        Recognition().check(folder)
    config = parse_run(RUN)
    table = config.recognition
    assert table is not None
    possible = table.test_people * table.test_pictures * (table.test_pictures - 1) // 2
    text = RUN.replace(f"pairs = {table.pairs}", f"pairs = {2 * possible + 2}")
    message = rf"recognition.pairs = {2 * possible + 2}, half .* have {possible} pairs of their"
    with pytest.raises(ExperimentError, match=message):
        Recognition().check(make_run(tmp_path / "other", text))


def test_results_are_kept_as_text_and_csv_and_read_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = make_run(tmp_path / "run")
    result, told = made_up(), []
    monkeypatch.setattr(comparison, "load_people", lambda place, side: place)

    def compare(table, people, seed, progress):
        assert people == {"run": folder.path / PEOPLE, "baseline": folder.baseline.path / PEOPLE}
        progress(0.5)
        return result

    monkeypatch.setattr(comparison, "compare", compare)
    experiment = Recognition()
    assert experiment.results(folder) is None
    run_experiments(folder, lambda done, total: told.append((done, total)))
    assert told == [(50, 100)]
    assert experiment.results(folder) == result
    place = folder.path / "recognition"
    rows = list(csv.DictReader(io.StringIO((place / "skin.csv").read_text())))
    assert [row["pretraining"] for row in rows] == list(ARMS)
    assert float(rows[4]["Dark"]) == pytest.approx(74.1)
    assert {path.suffix for path in place.iterdir()} == {".csv", ".txt", ".json"}
    (place / "comparison.json").write_text("{")
    with pytest.raises(ValueError, match=r"comparison.json is damaged"):
        experiment.results(folder)


def test_tables_have_the_papers_layout(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run")
    skin, gains, sets, rates = Recognition().tables(made_up(), arm_names(folder))
    assert list(skin.header) == ["Pretraining", "Dark", "Light", "DI", "AVG"]
    assert [row[0] for row in skin.rows] == list(ARMS)
    assert skin.rows[0][1] == "70.10 ± 0.06"
    assert list(gains.rows[-1]) == ["QD50", "4.00 ± 0.00", "4.00 ± 0.00", *gains.rows[-1][3:]]
    assert list(sets.header) == ["Pretraining", "any", "pose", "AVG"]
    assert "FNMR dark" in rates.header
    alone = made_up(seeds=1)
    bare = {name: dataclasses.replace(arm, sets=({},)) for name, arm in alone.arms.items()}
    assert list(seed_tables(Comparison(bare))) == ["skin", "gains", "groups"]


def test_the_report_shows_accuracies_over_what_was_pretrained_on(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run")
    (folder.path / "recognition").mkdir()
    (folder.path / "recognition" / "comparison.json").write_text(made_up().to_json())
    (section,) = sections_of(folder, folder.config(), arm_names(folder))
    assert "QD is cma_maega" in section.words
    assert "50 stands for 602 latents (301 people)" in section.words
    dark = section.lines[0]
    assert list(dark.at) == [0, 181, 602]
    random, search = dark.series
    assert (random.role, search.role) == ("baseline", "run")
    np.testing.assert_allclose(random.values, [0.701, 0.711, 0.731])
    np.testing.assert_allclose(search.values, [0.701, 0.721, 0.741])
    assert section.cards[0].value.startswith("74.1")
