"""Run files: the archive that each algorithm brings."""

import math

import numpy as np
import pytest
from run_text import RUN

from qdgs_jax.archive import GridArchive
from qdgs_jax.emitters.registry import ALGORITHMS
from qdgs_jax.runs.config import ConfigError, baseline_of, parse_run, run_to_toml


@pytest.mark.parametrize("name", sorted(ALGORITHMS))
def test_an_algorithm_brings_the_archive_it_is_meant_for(name):
    config = parse_run(RUN.replace('"cma_maega"', f'"{name}"'))
    anneals = name in {"cma_mae", "cma_maega"}
    wanted = (0.02, 0.0) if anneals else (1.0, -math.inf)
    assert (config.grid["learning_rate"], config.grid["threshold_min"]) == wanted
    archive = GridArchive.create(np.zeros(1, np.float32), **config.grid)
    assert (archive.learning_rate, archive.threshold_min) == wanted

    meant = f"learning_rate = {wanted[0]}\nthreshold_min = {wanted[1]}"
    same = parse_run(run_to_toml(config).replace("[archive]", f"[archive]\n{meant}"))
    assert same.grid == config.grid
    other = "[archive]\nlearning_rate = 0.5"
    if anneals:
        changed = parse_run(run_to_toml(config).replace("[archive]", other))
        assert changed.grid["learning_rate"] == 0.5
    else:
        with pytest.raises(ConfigError) as caught:
            parse_run(run_to_toml(config).replace("[archive]", other), "my.toml")
        assert str(caught.value).startswith(
            f'my.toml: archive.learning_rate = 0.5 contradicts search.algorithm = "{name}", which '
            "works on an archive with learning_rate = 1.0 and threshold_min = -inf: "
        )


def test_the_baseline_of_an_annealed_run_is_valid():
    config = parse_run(RUN.replace("[archive]", "[archive]\nlearning_rate = 0.1"))
    baseline = parse_run(run_to_toml(baseline_of(config)))
    assert baseline.search.algorithm == "random"
    assert baseline.grid["learning_rate"] == 1.0
    assert baseline.archive.qd_score_offset == config.archive.qd_score_offset
