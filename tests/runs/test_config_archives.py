"""Run files: the archive that each algorithm brings."""

import math

import numpy as np
import pytest
from run_text import RUN

from qdgs_jax.archive import GridArchive
from qdgs_jax.emitters.registry import ALGORITHMS, build_emitter
from qdgs_jax.runs.config import ConfigError, SearchConfig, baseline_of, parse_run, run_to_toml


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


@pytest.mark.parametrize("name", sorted(ALGORITHMS))
def test_latents_stay_within_bounds_or_the_algorithm_knows_none(name):
    text = RUN.replace('algorithm = "cma_maega"', f'algorithm = "{name}"\nbounds = [-2, 3]')
    if name == "random" or name.startswith("evojax:"):
        with pytest.raises(ConfigError, match=f'bounds: the algorithm "{name}" knows none'):
            parse_run(text, "my.toml")
        with pytest.raises(ValueError, match="knows no bounds"):
            build_emitter(name, SearchConfig(bounds=(-2.0, 3.0)), 4, 2)
        return
    config = parse_run(text)
    assert parse_run(run_to_toml(config)).search.bounds == (-2.0, 3.0)
    assert build_emitter(name, config.search, 4, 2).bounds == (-2.0, 3.0)
    assert baseline_of(config).search.bounds is None


def test_bounds_are_two_numbers_in_order():
    for bounds, words in (("[1.0, -1.0]", "low < high"), ("[1.0]", "two numbers")):
        text = RUN.replace("[search]", f"[search]\nbounds = {bounds}")
        with pytest.raises(ConfigError, match=rf"search.bounds.*{words}"):
            parse_run(text, "my.toml")


def test_cells_of_measures_are_limited_only_where_they_are_the_archives():
    many = RUN.replace("cells = 50", "cells = 50000")
    with pytest.raises(ConfigError, match="measures: their cells multiply to 2500000000"):
        parse_run(many, "my.toml")
    with pytest.raises(ConfigError, match="their cells multiply"):
        parse_run(many.replace("[archive]\nqd_score_offset = 0.0\n", ""), "my.toml")
    around = many.replace("[archive]", "[archive]\ncvt_cells = 900")
    assert parse_run(around).archive.cvt_cells == 900
