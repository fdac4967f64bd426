"""Plans of searches: counted, not guessed, and nothing is written."""

import dataclasses

import jax
import jax.numpy as jnp
import pytest
from run_text import RUN
from toy_runs import qdgs

import qdgs_jax.domains
from qdgs_jax.problem import FunctionProblem
from qdgs_jax.runs import plan as plans
from qdgs_jax.runs.config import parse_run
from qdgs_jax.runs.plan import plan_search

LATENTS, HIDDEN = 64, 512
SMALL = {"evaluations = 20000": "evaluations = 1400", "cells = 50": "cells = 10"}


class Products(FunctionProblem):
    """Two products with matrices, so that operations can be counted by hand."""

    params = (jnp.full((LATENTS, HIDDEN), 0.01), jnp.full((HIDDEN, 3), 0.01))

    def sample(self, params, key, count):
        return jax.random.normal(key, (count, LATENTS))


def score(params, latents):
    outputs = (latents @ params[0]) @ params[1]
    return outputs[:, 0], outputs[:, 1:]


class ProductsDomain(Products):
    def pictures(self, params, latents):
        return jnp.zeros((len(latents), 32, 32, 3), jnp.uint8)

    def start_latents(self, params, key):
        raise AssertionError("a plan does not look for start latents")


def toy_domain(config=None):
    return ProductsDomain(score, LATENTS, 2, has_params=True)


def run(**changes):
    text = RUN
    for old, new in {**SMALL, **changes}.items():
        assert old in text
        text = text.replace(old, new)
    return text


def plan_of(**figures):
    whole = dict.fromkeys((field.name for field in dataclasses.fields(plans.Plan)), 0)
    return plans.Plan(**{**whole, "algorithm": "x", "device": "y", **figures})


@pytest.fixture(scope="module")
def plan():
    return plan_search(parse_run(run()), toy_domain(), 0.0)


def test_operations_are_those_of_the_layers(plan):
    config = parse_run(run(**{'algorithm = "cma_maega"': 'algorithm = "random"'}))
    sampling = plan_search(config, toy_domain(), 0.0)
    evaluation = 2 * LATENTS * HIDDEN + 2 * HIDDEN * 3
    assert sampling.step_flop == pytest.approx(32 * evaluation, rel=0.1)
    assert sampling.flop == pytest.approx(sampling.steps * sampling.step_flop)
    # One pass forward and three back for each of 8 parents, and 24 branches.
    assert plan.step_flop == pytest.approx((8 * 4 + 24) * evaluation, rel=0.1)
    start = plan.flop - plan.steps * plan.step_flop
    assert start == pytest.approx(512 * evaluation, rel=0.1)


def test_a_plan_tells_the_budget_and_the_room_it_takes(plan):
    config = parse_run(run())
    assert (plan.steps, plan.evaluations) == (27, 520 + 27 * 32)
    assert plan.tried == 1
    assert plan.occupied == 100
    rows = 100 * 4 * LATENTS
    assert rows < plan.elites < 1.2 * rows
    assert rows < plan.archive < 1.3 * rows
    assert plan.checkpoint > plan.archive
    weights = 4 * (LATENTS * HIDDEN + 3 * HIDDEN)
    assert plan.memory is None or plan.memory > weights + plan.checkpoint
    half = config.archive.model_copy(update={"dtype": "bfloat16"})
    small = plan_search(config.model_copy(update={"archive": half}), toy_domain(), 0.0)
    assert small.archive == pytest.approx(plan.archive - rows / 2, rel=0.01)
    later = dataclasses.replace(plan, step_seconds=2.0)
    assert later.seconds == pytest.approx(2.0 * plan.flop / plan.step_flop)


def test_the_command_prints_a_plan_and_writes_nothing(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(qdgs_jax.domains, "load_domain", toy_domain)
    (tmp_path / "my.toml").write_text(run())
    assert qdgs("search", "my.toml", "--plan", "--baseline", "--evaluations", 600) == 0
    shown = capsys.readouterr().out
    assert "cma_maega: 2 steps, 584 evaluations" in shown
    assert "random: 18 steps, 584 evaluations" in shown
    assert shown.count("584 of the 600 evaluations will be run") == 2
    for word in ("GFLOP a step", "on the device", "archive.parquet", " s a step", "KB"):
        assert word in shown
    assert [path.name for path in tmp_path.iterdir()] == ["my.toml"]
    assert qdgs("search", "my.toml", "--plan", "--out", "run") == 2
    assert "--plan writes nothing" in capsys.readouterr().err
    assert qdgs("search", "my.toml", "--plan", "--evaluations", 100) == 2
    assert "give at least 552" in capsys.readouterr().err


def test_seeds_are_planned_once_and_summed_up(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(qdgs_jax.domains, "load_domain", toy_domain)
    an_hour = plan_of(step_seconds=60.0, step_flop=1.0, flop=60.0, checkpoint=10**6)
    monkeypatch.setattr(plans, "plan_search", lambda config, domain: an_hour)
    (tmp_path / "my.toml").write_text(run())
    given = ("search", "my.toml", "--plan", "--evaluations", 600)
    assert qdgs(*given, "--seed", "3,4,5", "--baseline") == 0
    shown = capsys.readouterr().out
    assert shown.count("time: 60.0 min") == 2
    assert "3 seeds: 3 times these 2, 6.0 h and up to 18.0 MB on the disk in all" in shown
    assert qdgs(*given, "--seed", "3,4") == 0
    assert "2 seeds: 2 times this, 2.0 h and up to 6.0 MB" in capsys.readouterr().out
    assert qdgs(*given, "--seed", "7") == 0
    assert "seeds" not in capsys.readouterr().out
    assert qdgs(*given, "--seed", "1,1") == 2
    assert "--seed gives 1 twice" in capsys.readouterr().err
    assert qdgs("search", "my.toml", "--plan", "--resume") == 2
    assert "leave out --out and --resume, and give a run file" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["my.toml"]


def test_sizes_and_times_have_units_that_suit_them():
    sizes = [plans._size(count) for count in (0, 34_000, 5.5e6, 2.26e9)]
    assert sizes == ["0.0 KB", "34.0 KB", "5.5 MB", "2.3 GB"]
    times = [plans._duration(seconds) for seconds in (0.25, 90.0, 600.0, 9000.0)]
    assert times == ["0.2 s", "90.0 s", "10.0 min", "2.5 h"]
