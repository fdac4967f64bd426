"""Cycles per evaluation of packaged runs on TPUs, by their compiler: run by `make test-tpu`."""

import importlib.util
import os
import tomllib
from pathlib import Path

import pytest

from qdgs_jax.cli.compile import configured
from qdgs_jax.targets.chips import Target
from qdgs_jax.targets.estimate import estimate
from qdgs_jax.targets.programs import lower

CEILINGS = tomllib.loads((Path(__file__).parent / "ceilings.toml").read_text())["ceiling"]
INSTALLED = importlib.util.find_spec("libtpu") is not None or "TPU_LIBRARY_PATH" in os.environ

pytestmark = [
    pytest.mark.tpu,
    pytest.mark.skipif(not INSTALLED, reason="libtpu is not installed: `make test-tpu` does it"),
]


@pytest.mark.parametrize("entry", CEILINGS, ids=lambda entry: f"{entry['run']}-{entry['emitters']}")
def test_an_evaluation_takes_no_more_cycles_than_before(entry):
    given = {name: entry.get(name) for name in ("generator", "clip", "batch", "dtype")}
    config = configured(entry["run"], emitters=entry["emitters"], **given)
    target = Target.parse(entry["target"])
    found = estimate(lower(config, "search", target), target)
    print("\n".join(found.lines()))
    assert found.fits
    assert found.unit_cycles <= entry["cycles"]
    # What is far below the ceiling would let much creep back.
    assert found.unit_cycles > 0.7 * entry["cycles"], "set the ceiling lower"
