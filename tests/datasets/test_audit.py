"""Counting: shares, products and spread of made-up data sets, and the files of an audit."""

import csv
import dataclasses
import json

import numpy as np
import pytest
from run_text import RUN

from qdgs_jax.datasets.audit import (
    PAPER,
    RESULTS,
    SHARES,
    SPREAD,
    UNCLEAR,
    Attribute,
    Audit,
    DataSet,
    Tally,
    cross_codes,
    cross_names,
    read_audit,
    spread_over,
    tally,
    write_audit,
)
from qdgs_jax.runs.config import parse_run


def an_audit():
    """Two data sets, two attributes and their product."""
    skin = Attribute("CLIP", "skin", ("light", "dark"), (Tally((3, 1)), Tally((9, 1))))
    age = Attribute(
        "oracle", "age", ("young", "old"), (Tally((1, 2), 1), None), can_be_unclear=True
    )
    both = Attribute("CLIP", "skin × age", ("a", "b", "c"), (Tally((2, 1, 1)), None), True)
    spread = spread_over(np.array([[-0.09, -0.09], [0.09, 0.09]]), parse_run(RUN))
    return Audit(
        data_sets=(
            DataSet("cma_maega", "run", "/runs/my/data", 4, (), (64, 64), "ab"),
            DataSet("ffhq", "none", "/data/ffhq", 10, (3, 7), (1024, 1024)),
        ),
        attributes=(skin, age, both),
        spread=(spread, spread),
        source={"clip": "embedded:shapes-clip"},
        given=PAPER,
    )


def test_unclear_images_count_among_all():
    counted = tally(np.array([0, 2, 2, UNCLEAR]), 4)
    assert counted == Tally((1, 0, 2, 0), 1)
    assert counted.shares == (0.25, 0.0, 0.5, 0.0)
    assert counted.unclear_share == 0.25
    assert counted.rarest == 1  # the first of two empty groups


def test_a_product_is_unclear_where_one_part_is():
    skin, age = np.array([0, 1, 2, UNCLEAR, 0]), np.array([1, 0, 1, 0, UNCLEAR])
    names = cross_names([("light", "mixed", "dark"), ("young", "old")])
    codes = cross_codes([skin, age], (3, 2))
    assert [names[code] for code in codes[:3]] == ["light × old", "mixed × young", "dark × old"]
    assert codes[3:].tolist() == [UNCLEAR, UNCLEAR]


def test_spread_over_cells_classes_and_bins():
    config = parse_run(RUN)  # 50 x 50 cells over [-0.1, 0.1], the sign of shape, 4 x 4 bins
    one = np.full((4, 2), -0.09)
    cells, classes, bins = spread_over(one, config)
    assert (cells.over, cells.places, cells.covered, str(cells.entropy)) == (
        "cells",
        2500,
        1,
        "0.0",
    )
    assert (classes.places, classes.covered, classes.smallest) == (2, 1, 0)
    assert classes.where == "a square or diamond with 4 edges"
    assert (bins.places, bins.covered) == (16, 1)
    assert bins.where == "colour -0.1 to -0.05, shape -0.05 to 0"  # the first empty one
    middles = np.array([-0.075, -0.025, 0.025, 0.075])
    even = np.stack(np.meshgrid(middles, middles), axis=-1).reshape(-1, 2)
    cells, classes, bins = spread_over(even, config)
    assert cells.covered == 16
    assert cells.entropy == pytest.approx(1.0)  # as even as 16 images can be
    assert (bins.covered, bins.smallest, bins.entropy) == (16, 1, pytest.approx(1.0))
    uneven = np.concatenate([even, even[:1].repeat(16, axis=0)])
    counts = np.array([17] + [1] * 15) / 32
    expected = -np.sum(counts * np.log(counts)) / np.log(16)
    assert spread_over(uneven, config)[2].entropy == pytest.approx(expected)


def test_values_beyond_a_range_and_at_a_cut_belong_where_the_search_puts_them():
    config = parse_run(RUN.replace("bins = [4, 4]", "bins = [1, 1]"))
    cells, classes = spread_over(np.array([[-5.0, 0.0], [-0.0999, 0.001]]), config)
    assert cells.covered == 1
    assert (classes.covered, classes.smallest) == (1, 0)
    assert classes.where == "a triangle with 3 edges"  # 0 belongs to the upper class


def test_what_is_written_is_read_back(tmp_path):
    audit = an_audit()
    (tmp_path / "audit").mkdir()
    (tmp_path / "audit" / f".{SHARES}.x.tmp").write_text("left by a killed process")
    write_audit(tmp_path / "audit", audit)
    assert sorted(each.name for each in (tmp_path / "audit").iterdir()) == sorted(
        [SHARES, SPREAD, RESULTS]
    )
    read = read_audit(tmp_path / "audit")
    assert dataclasses.asdict(read) == dataclasses.asdict(audit)
    assert read.attributes[0].tallies[0].shares == (0.75, 0.25)

    with (tmp_path / "audit" / SHARES).open(newline="") as file:
        rows = list(csv.DictReader(file))
    own = {(row["data_set"], row["by"], row["attribute"], row["group"]): row for row in rows}
    assert own["cma_maega", "CLIP", "skin", "dark"]["images"] == "1"
    assert float(own["cma_maega", "oracle", "age", "unclear"]["share"]) == 0.25
    assert ("ffhq", "oracle", "age", "old") not in own
    assert ("cma_maega", "CLIP", "skin", "unclear") not in own
    assert float(own["paper: QDGS", "published", "skin", "dark"]["share"]) == 0.252
    with (tmp_path / "audit" / SPREAD).open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["over"] for row in rows] == ["cells", "classes", "bins"] * 2
    assert (rows[0]["covered"], rows[0]["places"]) == ("2", "2500")


@pytest.mark.parametrize(
    "change",
    [
        lambda text: text[:-20],
        lambda text: text.replace('"version": 1', '"version": 2'),
        lambda text: text.replace('"tallies"', '"counts"'),
        lambda text: json.dumps([]),
    ],
)
def test_a_damaged_audit_says_how_to_get_another(tmp_path, change):
    assert read_audit(tmp_path) is None
    (tmp_path / RESULTS).write_text(change(an_audit().to_json()))
    with pytest.raises(ValueError, match=r"audit\.json is damaged .*`qdgs audit` writes it again"):
        read_audit(tmp_path)


def test_the_papers_shares_are_shares():
    for given in PAPER:
        for groups in given.shares.values():
            assert 0 < sum(groups.values()) <= 1 + 1e-9
