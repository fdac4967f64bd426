"""The repair experiment as a plug-in: what it needs, what it says, what is read back."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from labelled_rows import labelled
from run_text import RUN

from qdgs_jax.datasets.shards import write_shards
from qdgs_jax.experiments import experiments_of, run_experiments
from qdgs_jax.experiments.protocol import ExperimentError, arm_names
from qdgs_jax.experiments.shapes_repair import ShapesRepair, names_in_order
from qdgs_jax.report.collect import sections_of
from qdgs_jax.runs.config import baseline_of, parse_run
from qdgs_jax.runs.folder import RunFolder
from qdgs_jax.train.shapes import oracle, repair
from qdgs_jax.train.shapes.repair_result import ARMS, GROUPS, RepairResult

TRIANGLE, SQUARE = "a triangle with 3 edges", "a square or diamond with 4 edges"


def make_run(
    path: Path, text: str = RUN, classes: tuple[str, ...] = (TRIANGLE, SQUARE), size: int = 32
) -> RunFolder:
    folder = RunFolder(path)
    config = parse_run(text)
    folder.create(config)
    folder.baseline.create(baseline_of(config))
    for each in (folder, folder.baseline):
        rows = labelled(np.arange(4) % len(classes), np.zeros((4, 2)))
        pictures = [np.zeros((4, size, size, 3), np.uint8)]
        names = {"label_names": classes, "measure_names": ("colour", "shape")}
        write_shards(each.data, rows, pictures, **names)
    return folder


def test_the_run_it_was_made_for_is_let_through(tmp_path: Path) -> None:
    ShapesRepair().check(make_run(tmp_path / "run"))


def test_exchanged_prompts_are_refused_by_name(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run", classes=(SQUARE, TRIANGLE))
    message = r"classes are triangle and square in this order, but .* are 'a square or diamond"
    with pytest.raises(ExperimentError, match=message):
        ShapesRepair().check(folder)


@pytest.mark.parametrize(
    ("positive", "negative"),
    [("a green shape", "a yellow shape"), ("a blue shape", "a red shape")],
)
def test_other_colours_are_refused_by_name(tmp_path: Path, positive: str, negative: str) -> None:
    text = RUN.replace('"a red shape"', f'"{positive}"').replace(
        'negative = "a blue shape"', f'negative = "{negative}"'
    )
    with pytest.raises(ExperimentError, match=f"from red to blue.*'{positive}' to '{negative}'"):
        ShapesRepair().check(make_run(tmp_path / "run", text))


def test_a_file_is_doubted_before_it_is_searched() -> None:
    text = RUN.replace('"a red shape"', '"a green shape"')
    ShapesRepair().check_file(parse_run(RUN), Path("my.toml"))
    with pytest.raises(ExperimentError, match="needs a measure from red to blue"):
        ShapesRepair().check_file(parse_run(text), Path("my.toml"))


def test_images_that_classifiers_cannot_see_are_refused(tmp_path: Path) -> None:
    message = r"run.toml: repair.image_size = 32, but images are 24 pixels wide: give at most 24"
    with pytest.raises(ExperimentError, match=message):
        ShapesRepair().check(make_run(tmp_path / "run", size=24))


def test_other_numbers_of_classes_are_refused(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run", classes=("triangle", "square", "circle"))
    with pytest.raises(ExperimentError, match="'circle'"):
        ShapesRepair().check(folder)


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
    refused("run/data holds no data set: write it with `qdgs generate .*run`")


def test_classes_that_no_data_set_can_have_come_before_a_missing_baseline(tmp_path: Path) -> None:
    """A baseline takes minutes, and would be of no use."""
    folder = RunFolder(tmp_path / "run")
    exchanged = RUN.replace(TRIANGLE, "?").replace(SQUARE, TRIANGLE).replace("?", SQUARE)
    folder.create(parse_run(exchanged))
    with pytest.raises(ExperimentError, match=r"those of .*run\.toml are 'a square or diamond"):
        run_experiments(folder, lambda done, total: None)


@pytest.mark.parametrize(
    ("texts", "fits"),
    [
        (("a regular triangle", "Squares."), True),
        (("a square", "a triangle"), False),
        (("a triangle or a square", "a square"), False),
        (("a rectangle", "a circle"), False),
        (("a triangle",), False),
    ],
)
def test_texts_name_their_own_word_alone(texts: tuple[str, ...], fits: bool) -> None:
    assert names_in_order(texts, ("triangle", "square")) is fits


def test_results_are_kept_in_a_folder_of_its_own_and_read_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = make_run(tmp_path / "run")
    experiment = ShapesRepair()
    assert experiment.results(folder) is None
    accuracy = {arm: np.full((5, 5, 4), 0.5 + 0.1 * i) for i, arm in enumerate(ARMS)}
    made = RepairResult((0.98, 0.95, 0.9, 0.85, 0.8), accuracy, dict.fromkeys(ARMS, 4))
    shares = {**dict.fromkeys(GROUPS, 0.2), "red square": 0.1, "unclear": 0.3}

    class Judged:
        def shares(self) -> dict[str, float]:
            return shares

        def label_agreement(self) -> float:
            return 0.9

    class Oracle:
        accuracy = 0.97

    monkeypatch.setattr(oracle, "train_oracle", lambda seed, image_size: Oracle())
    monkeypatch.setattr(oracle, "judge_dataset", lambda path, oracle: Judged())
    monkeypatch.setattr(repair, "run_repair", lambda *arguments: made)
    run_experiments(folder, lambda done, total: None)
    written = sorted(path.name for path in (folder.path / "repair").iterdir())
    assert written == ["accuracy.json", "data_sets.json", "groups.json"]
    result = experiment.results(folder)
    assert result is not None
    np.testing.assert_array_equal(result.accuracy.accuracy["run"], accuracy["run"])
    names = arm_names(folder)
    assert names == {"run": "cma_maega", "baseline": "random"}
    first, second = experiment.tables(result, names)
    assert first.header == ["bias", "no repair", "random", "cma_maega", "gain"]
    assert first.rows[0] == ["0.98", "50.0 ± 0.0", "60.0 ± 0.0", "70.0 ± 0.0", "+20.0"]
    assert ["red square", "10.0", "10.0"] in second.rows
    section = experiment.section(result, names)
    assert [card.value.strip("%").strip() for card in section.cards] == ["70.0", "10.0"]
    assert "red square, as the oracle sees it" in section.cards[1].beside
    assert sections_of(folder, folder.config(), names) == (section,)
    moved = RunFolder(shutil.move(folder.path, tmp_path / "moved"))
    manifest = moved.baseline.data / "_manifest.json"
    manifest.write_text(manifest.read_text().replace('"notes": []', '"notes": ["anew"]'))
    (stale,) = sections_of(moved, moved.config(), names)
    assert stale.words.startswith(section.words)
    assert "The data set of random was written anew after this. `qdgs train" in stale.words
    assert stale.cards == ()  # figures of other data do not stand at the head of the page
    (moved.path / "repair" / "data_sets.json").write_text("[")
    with pytest.raises(ValueError, match=r"data_sets\.json is damaged"):
        sections_of(moved, moved.config(), names)


def test_a_run_without_the_table_has_no_experiment(tmp_path: Path) -> None:
    text = RUN[: RUN.index("[repair]")]
    config = parse_run(text)
    assert experiments_of(config) == []
    folder = RunFolder(tmp_path / "run")
    folder.create(config)
    with pytest.raises(ExperimentError, match="has no table of an experiment"):
        run_experiments(folder, lambda done, total: None)


def test_damaged_results_are_refused(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run")
    (folder.path / "repair").mkdir(parents=True)
    accuracy = {arm: np.zeros((1, 1, 4)) for arm in ARMS}
    result = RepairResult((0.9,), accuracy, dict.fromkeys(ARMS, 4))
    (folder.path / "repair" / "accuracy.json").write_text(result.to_json())
    (folder.path / "repair" / "groups.json").write_text('{"shares": {}}')
    with pytest.raises(ValueError, match="not what the oracle saw"):
        ShapesRepair().results(folder)
