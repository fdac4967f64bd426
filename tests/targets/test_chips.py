"""Targets by their names, and what is said where one is unknown or its compiler is missing."""

import importlib.util

import pytest

from qdgs_jax.targets.chips import CHIPS, Target, TargetError


@pytest.mark.parametrize(
    ("text", "target"),
    [
        ("tpu:v5e:2x2", Target("tpu", "v5e", "2x2")),
        ("TPU:v5p", Target("tpu", "v5p", "2x2x1")),
        ("tpu:v6e:4x8", Target("tpu", "v6e", "4x8")),
        ("cuda:h100", Target("cuda", "h100", "1")),
        ("cuda:h200:8", Target("cuda", "h200", "8")),
    ],
)
def test_targets_by_name(text, target):
    found = Target.parse(text)
    assert found == target
    assert Target.parse(str(found)) == found
    assert found.backend == {"tpu": "tpu", "cuda": "gpu"}[found.platform]
    assert found.chip is CHIPS[found.platform][found.model]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("tpu:v7", "no target 'tpu:v7': known are tpu:v5e"),
        ("v5e", "no target 'v5e'"),
        ("rocm:mi300", "no target"),
        ("tpu:v5e:many", "'many' is no topology; give one such as 2x2"),
        ("tpu:v5e:4", "is no topology"),
        ("cuda:h100:0", "'0' is no number of cards"),
    ],
)
def test_unknown_targets(text, said):
    with pytest.raises(TargetError, match=said):
        Target.parse(text)


@pytest.mark.parametrize(
    ("text", "extra"), [("tpu:v5e", "tpu-compiler"), ("cuda:h100", "cuda-compiler")]
)
def test_a_missing_compiler_is_told_with_its_extra(text, extra, monkeypatch):
    monkeypatch.delenv("TPU_LIBRARY_PATH", raising=False)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(TargetError, match=rf"pip install 'qdgs-jax\[{extra}\]'"):
        Target.parse(text).devices()


def test_figures_of_chips_are_plausible():
    for chips in CHIPS.values():
        for chip in chips.values():
            # Between 150 and 600 operations per byte, as of any accelerator that is sold.
            assert 150 < chip.peak / chip.bandwidth < 600
            assert chip.memory >= 16 * 2**30
