"""Groups side by side, and the paper's tables."""

from __future__ import annotations

import csv
import io
import math

import numpy as np
import pytest

from qdgs_jax.train.faces.fairness import (
    benchmark_row,
    common_threshold,
    fairness_row,
    mean_and_error,
    skin_row,
    verify_groups,
)
from qdgs_jax.train.faces.tables import GAIN_TITLE, SKIN_TITLE, gain_table, seed_table

# Light pairs part at 1.0; of 20 dark pairs two impostors lie at 0.3 and a genuine one at 1.5.
SAME = np.tile(np.arange(20) % 2 == 0, 2)
DISTANCES = np.where(SAME, 0.5, 1.45)
DISTANCES[[1, 11]], DISTANCES[4] = 0.3, 1.5
GROUPS = ["dark"] * 20 + ["light"] * 20


def test_groups_by_hand():
    found = verify_groups(DISTANCES, SAME, GROUPS)
    assert [group.name for group in found.groups] == ["dark", "light"]
    dark, light = found["dark"], found["light"]
    assert (dark.pairs, light.pairs) == (20, 20)
    assert (light.accuracy, light.fmr, light.fnmr) == (1.0, 0.0, 0.0)
    assert (dark.fmr, dark.fnmr) == (0.2, 0.1)
    assert dark.accuracy == pytest.approx(0.85)
    assert found.threshold == pytest.approx(0.51)  # the first that is right for all but three
    assert found.disparate_impact() == pytest.approx(85.0)
    assert found.worst is dark
    assert found.deviation == pytest.approx(0.075)
    assert found.odds_gaps == pytest.approx((0.2, 0.1))
    assert skin_row(found) == pytest.approx({"Dark": 85, "Light": 100, "DI": 85, "AVG": 92.5})
    with pytest.raises(KeyError, match=r"'mixed'.*\['dark', 'light'\]"):
        found["mixed"]


def test_a_threshold_by_its_false_match_rate():
    assert common_threshold(DISTANCES, SAME, fmr=0.0) == 0.0
    above = common_threshold(DISTANCES, SAME, fmr=0.1)
    assert 0.5 < above < 0.5001
    found = verify_groups(DISTANCES, SAME, GROUPS, threshold=above)
    assert (found["dark"].fmr, found["light"].fmr) == (0.2, 0.0)
    assert common_threshold(DISTANCES, SAME, fmr=1.0) > 1.5
    single = DISTANCES.astype(np.float32)  # as embeddings give them
    above = common_threshold(single, SAME, fmr=0.1)
    found = verify_groups(single, SAME, GROUPS, threshold=above)
    assert (found["dark"].fmr, found["light"].fmr) == (0.2, 0.0)
    assert (found["dark"].fnmr, found["light"].fnmr) == (0.1, 0.0)


def test_groups_that_cannot_be_verified_are_refused():
    with pytest.raises(ValueError, match="3 groups for 40 pairs"):
        verify_groups(DISTANCES, SAME, ["dark"] * 3)
    with pytest.raises(ValueError, match="group mixed has 1 pairs"):
        verify_groups(DISTANCES, SAME, [*GROUPS[:-1], "mixed"])
    with pytest.raises(ValueError, match="no impostor pairs"):
        common_threshold(DISTANCES[SAME], SAME[SAME], fmr=0.1)
    with pytest.raises(ValueError, match="fmr is 2"):
        common_threshold(DISTANCES, SAME, fmr=2.0)


def test_tables_in_the_papers_layout():
    none = [
        benchmark_row({"LFW": 0.99, "CFP-FP": 0.95}),
        benchmark_row({"LFW": 0.97, "CFP-FP": 0.95}),
    ]
    table = seed_table(SKIN_TITLE, {"none": none, "QD15": none[:1]}, {"none": {"LFW": 97.5}})
    assert table.header == ("Pretraining", "LFW", "CFP-FP", "AVG")
    assert table.to_text().splitlines() == [
        SKIN_TITLE,
        "Pretraining                   LFW        CFP-FP           AVG",
        "none         98.00 ± 1.00 [97.50]  95.00 ± 0.00  96.50 ± 0.50",
        "QD15                        99.00         95.00         97.00",
    ]
    rows = list(csv.DictReader(io.StringIO(table.to_csv())))
    assert float(rows[0]["LFW"]) == pytest.approx(98.0)
    assert float(rows[0]["AVG_se"]) == pytest.approx(0.5)
    assert rows[1]["LFW_se"] == ""
    with pytest.raises(ValueError, match="seed 0 of 'b'"):
        seed_table("t", {"a": [{"x": 1.0}], "b": [{"y": 1.0}]})
    with pytest.raises(ValueError, match="no arms or seeds"):
        seed_table("t", {"a": []})


def test_standard_errors():
    assert mean_and_error([1.0, 2.0, 3.0]) == pytest.approx((2.0, 1 / math.sqrt(3)))
    mean, error = mean_and_error([5.0])
    assert mean == 5.0
    assert math.isnan(error)
    with pytest.raises(ValueError, match="no seeds"):
        mean_and_error([])


def test_errors_of_groups_stand_in_one_row():
    row = fairness_row(verify_groups(DISTANCES, SAME, GROUPS))
    assert list(row) == ["SD", "Worst", "FMR dark", "FMR light", "FNMR dark", "FNMR light"]
    assert list(row.values()) == pytest.approx([7.5, 85, 20, 0, 10, 0])


def test_gains_are_taken_seed_by_seed():
    """Seeds differ by ten points, gains by none: so does their standard error."""
    arms = {
        "none": [{"Dark": 70.0, "AVG": 80.0}, {"Dark": 80.0, "AVG": 90.0}],
        "QD15": [{"Dark": 71.5, "AVG": 80.0}, {"Dark": 81.5, "AVG": 92.0}],
    }
    table = gain_table(GAIN_TITLE, arms, "none")
    assert table.texts() == [("QD15", "1.50 ± 0.00", "1.00 ± 1.00")]
    with pytest.raises(ValueError, match="no arm 'Rand15': give one of none, QD15"):
        gain_table(GAIN_TITLE, arms, "Rand15")
    with pytest.raises(ValueError, match="'QD15' has 1 seeds and 'none' 2"):
        gain_table(GAIN_TITLE, {**arms, "QD15": arms["QD15"][:1]}, "none")
