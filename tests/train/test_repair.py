"""The repair experiment in small: a balanced data set repairs, a biased one does not."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
from labelled_rows import labelled

from qdgs_jax.datasets.manifest import ShardError
from qdgs_jax.datasets.shards import write_shards
from qdgs_jax.train.shapes.repair import ARMS, GROUPS, RepairResult, run_repair

pytestmark = pytest.mark.usefixtures("optimised")


@dataclasses.dataclass(frozen=True)
class Small:
    image_size: int = 16
    biases: tuple[float, ...] = (1.0, 0.9)
    seeds: int = 2
    train_images: int = 100
    train_epochs: int = 8
    repair_epochs: int = 20
    test_images: int = 200


@pytest.fixture(scope="module")
def told() -> list[tuple[str, float]]:
    return []


@pytest.fixture(scope="module")
def result(
    balanced_drawings: Path, biased_drawings: Path, told: list[tuple[str, float]]
) -> RepairResult:
    def progress(what: str, share: float) -> None:
        told.append((what, share))

    return run_repair(balanced_drawings, biased_drawings, Small(), 0, progress, group=2)


def test_colour_is_learnt_where_it_is_the_shape(result: RepairResult) -> None:
    assert result.accuracy["none"].shape == (2, 2, 4)
    groups = dict(zip(GROUPS, result.accuracy["none"][0].mean(axis=0), strict=True))
    assert min(groups["red triangle"], groups["blue square"]) > 0.9
    assert max(groups["blue triangle"], groups["red square"]) < 0.1


def test_balanced_images_repair_and_biased_ones_do_not(result: RepairResult) -> None:
    assert result.images == {"none": 0, "baseline": 160, "run": 160}
    assert result.gain("run")[0] > 0.1
    assert abs(result.gain("baseline")[0]) < 0.05


def test_progress_names_every_stage_and_only_grows(
    result: RepairResult, told: list[tuple[str, float]]
) -> None:
    stages = list(dict.fromkeys(what for what, _ in told))
    assert stages == [
        "train on biased drawings",
        "repair with the data set of the baseline",
        "repair with the data set of the run",
        "test",
    ]
    shares = [share for _, share in told]
    assert shares == sorted(shares)
    assert 0.0 < shares[0] < shares[-1] == 1.0
    assert len(set(shares)) == len(shares)


def test_the_result_survives_json(result: RepairResult) -> None:
    read = RepairResult.from_json(result.to_json())
    assert (read.biases, read.images) == (result.biases, result.images)
    for arm in ARMS:
        np.testing.assert_array_equal(read.accuracy[arm], result.accuracy[arm])


def worked_result(seeds: int) -> RepairResult:
    """Balanced accuracy of the first seed: 0.50, 0.70, 0.95; of the second 0.04 more."""
    levels = {"none": 0.50, "baseline": 0.70, "run": 0.95}
    shape = (1, seeds, 4)
    spread = np.array([0.0, 0.04])[:seeds, None] + np.array([0.01, -0.01, 0.01, -0.01])
    accuracy = {arm: level + np.broadcast_to(spread, shape) for arm, level in levels.items()}
    return RepairResult((0.98,), accuracy, {"none": 0, "baseline": 1000, "run": 1000})


def test_means_and_standard_errors_are_over_the_seeds() -> None:
    result = worked_result(2)
    np.testing.assert_allclose(result.balanced("none"), [[0.50, 0.54]])
    np.testing.assert_allclose(result.mean("baseline"), [0.72])
    np.testing.assert_allclose(result.standard_error("run"), [0.02])  # 0.0283 / sqrt(2)
    np.testing.assert_allclose(result.gain("run"), [0.45])
    row = ["0.98", "52.0 ± 2.0", "72.0 ± 2.0", "97.0 ± 2.0", "+45.0"]
    assert result.table_rows() == [row]


def test_one_seed_has_no_standard_error() -> None:
    result = worked_result(1)
    assert np.isnan(result.standard_error("run")).all()
    assert result.table_rows() == [["0.98", "50.0", "70.0", "95.0", "+45.0"]]


@pytest.mark.parametrize("text", ["{}", "[]", "nonsense", '{"biases": [0.9], "accuracy": {}}'])
def test_other_json_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"not the result|Expecting value"):
        RepairResult.from_json(text)


def test_accuracies_of_another_shape_are_refused() -> None:
    table = json.loads(worked_result(2).to_json())
    table["biases"].append(0.95)
    with pytest.raises(ValueError, match=r"accuracy of none has shape \(1, 2, 4\)"):
        RepairResult.from_json(json.dumps(table))


def test_a_missing_data_set_is_named_before_any_training(
    balanced_drawings: Path, tmp_path: Path
) -> None:
    with pytest.raises(ShardError, match=str(tmp_path)):
        run_repair(balanced_drawings, tmp_path, Small(), 0)


def test_a_data_set_of_other_classes_is_refused(balanced_drawings: Path, tmp_path: Path) -> None:
    rows = labelled(np.zeros(2, int), np.zeros((2, 1)))
    pictures = [np.zeros((2, 32, 32, 3), np.uint8)]
    names = ("red", "green", "blue")
    write_shards(tmp_path / "set", rows, pictures, label_names=names, measure_names=("hue",))
    with pytest.raises(ValueError, match="has 3 classes"):
        run_repair(tmp_path / "set", balanced_drawings, Small(), 0)
