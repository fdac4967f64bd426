"""A report formats files: it needs no JAX, which takes seconds to import."""

import dataclasses
import json
import subprocess
import sys

import numpy as np
import pytest
from run_text import RUN

from qdgs_jax.cli.init import packaged_run
from qdgs_jax.elites import Elites
from qdgs_jax.experiments.shapes_repair import Groups
from qdgs_jax.runs.config import baseline_of, parse_run
from qdgs_jax.runs.folder import COLUMNS, RunFolder
from qdgs_jax.train.faces.comparison_result import ARMS, Arm, Comparison
from qdgs_jax.train.faces.fairness import Fairness, GroupResult
from qdgs_jax.train.shapes.repair_result import ARMS as REPAIRS
from qdgs_jax.train.shapes.repair_result import GROUPS, RepairResult

REPORT = """
import sys
from qdgs_jax.cli import main

try:
    main(["report", sys.argv[1]])
except SystemExit as stop:
    assert not stop.code
heavy = {"jax", "flax", "qdax", "matplotlib", "scipy"} & set(sys.modules)
assert not heavy, heavy
"""


def write_run(folder, text):
    config = parse_run(text)
    folder.create(config)
    folder.baseline.create(baseline_of(config))
    for each in (folder, folder.baseline):
        elites = Elites(
            cells=np.arange(3),
            objectives=np.ones(3, np.float32),
            thresholds=np.zeros(3, np.float32),
            measures=np.zeros((3, len(config.measures)), np.float32),
            latents=np.zeros((3, 2), np.float32),
        )
        elites.to_parquet(each.archive_file)
        each.append_metrics(dict.fromkeys(COLUMNS, 1))


def repaired(folder):
    """Accuracies of a repair, as `qdgs train` writes them."""
    shares = dict.fromkeys(GROUPS, 0.25) | {"unclear": 0.0}
    groups = Groups(
        shares={"run": shares, "baseline": shares},
        oracle_accuracy=0.99,
        label_agreement={"run": 0.9, "baseline": 0.9},
    )
    accuracy = {arm: np.full((1, 2, 4), 0.75) for arm in REPAIRS}
    result = RepairResult((0.98,), accuracy, dict.fromkeys(REPAIRS, 10))
    target = folder.path / "repair"
    target.mkdir()
    (target / "groups.json").write_text(json.dumps(dataclasses.asdict(groups)))
    (target / "accuracy.json").write_text(result.to_json())


def recognised(folder):
    """Accuracies of recognition, as `qdgs train` writes them."""
    seed = Fairness(tuple(GroupResult(g, 20, 0.8, 0.1, 0.2) for g in ("dark", "light")), 1.0)
    result = Comparison({name: Arm(4, 2, 8, (seed,), ({"any": 0.9},)) for name in ARMS})
    target = folder.path / "recognition"
    target.mkdir()
    (target / "comparison.json").write_text(result.to_json())


@pytest.mark.parametrize(
    ("text", "accuracies", "title"),
    [
        (RUN, repaired, "Repaired classifiers"),
        (packaged_run("drawn-faces"), recognised, "Fairer recognition"),
    ],
    ids=["shapes", "drawn faces"],
)
def test_a_report_with_accuracies_loads_no_jax(tmp_path, text, accuracies, title):
    folder = RunFolder(tmp_path / "run")
    write_run(folder, text)
    accuracies(folder)
    done = subprocess.run(
        [sys.executable, "-c", REPORT, str(folder.path)], check=False, capture_output=True
    )
    assert done.returncode == 0, done.stderr.decode()
    assert title in (folder.path / "report" / "index.html").read_text(encoding="utf-8")
