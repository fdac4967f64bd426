"""The repair experiment of a run folder: from its data sets to results on disk.

The experiment itself stands in `qdgs_jax.train`; here its inputs and outputs get their places.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from qdgs_jax.files import write_atomically
from qdgs_jax.runs.folder import RunFolder

if TYPE_CHECKING:
    from qdgs_jax.train.shapes.repair import RepairResult

Progress = Callable[[int, int], None]  # hundredths done, hundredths in all


@dataclasses.dataclass(frozen=True)
class Groups:
    """What the oracle sees in the data sets.

    Attributes:
        shares: for each arm ("qdgs", "rand"), the share of its images in each group.
        oracle_accuracy: share of the oracle's right answers on drawings it has not seen.
        label_agreement: for each arm, the share of images whose label the oracle confirms.
    """

    shares: Mapping[str, Mapping[str, float]]
    oracle_accuracy: float
    label_agreement: Mapping[str, float]


def run_experiment(folder: RunFolder, progress: Progress = lambda done, total: None) -> None:
    """Repair biased classifiers with a run's data sets and write what came of it.

    Raises:
        ValueError: a data set is missing, or its classes are not two.
    """
    from qdgs_jax.train.shapes.oracle import judge_dataset, train_oracle
    from qdgs_jax.train.shapes.repair import run_repair

    config = folder.config()
    data = {"qdgs": folder.data, "rand": folder.baseline.data}
    _check_data(folder)
    oracle = train_oracle(config.seed, image_size=config.repair.image_size)
    judged = {arm: judge_dataset(path, oracle) for arm, path in data.items()}
    groups = Groups(
        shares={arm: judgement.shares() for arm, judgement in judged.items()},
        oracle_accuracy=oracle.accuracy,
        label_agreement={arm: judgement.label_agreement() for arm, judgement in judged.items()},
    )
    result = run_repair(
        data["qdgs"],
        data["rand"],
        config.repair,
        config.seed,
        lambda what, share: progress(round(100 * share), 100),
    )
    folder.results.mkdir(exist_ok=True)
    _write(folder.groups_file, json.dumps(dataclasses.asdict(groups), indent=2) + "\n")
    _write(folder.repair_file, result.to_json())


def load_repair(folder: RunFolder) -> RepairResult | None:
    """Read the accuracies; None if the experiment was not made."""
    from qdgs_jax.train.shapes.repair import RepairResult

    if not folder.repair_file.is_file():
        return None
    return RepairResult.from_json(folder.repair_file.read_text(encoding="utf-8"))


def load_groups(folder: RunFolder) -> Groups | None:
    """Read what the oracle saw; None if the experiment was not made."""
    if not folder.groups_file.is_file():
        return None
    return Groups(**json.loads(folder.groups_file.read_text(encoding="utf-8")))


def _check_data(folder: RunFolder) -> None:
    if not folder.baseline.exists:
        raise ValueError(
            f"{folder.path} has no baseline to compare with: search with --baseline, or give the "
            f"folder of one data set, such as {folder.data}, to learn that alone."
        )


def _write(path: Path, text: str) -> None:
    write_atomically(path, text.encode())
