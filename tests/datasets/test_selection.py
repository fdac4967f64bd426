"""Selection of elites: labels, bins and balance, against counts worked by hand."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from labelled_rows import labelled, sign_of

from qdgs_jax.datasets.selection import Labelled, balance, bins_of, select_elites
from qdgs_jax.elites import Elites

RANGES = ((-0.1, 0.1), (-0.1, 0.1))


def elites(count: int, seed: int = 0) -> Elites:
    rng = np.random.default_rng(seed)
    return Elites(
        cells=rng.permutation(10 * count)[:count],
        latents=rng.normal(size=(count, 3)).astype(np.float32),
        objectives=rng.normal(size=count).astype(np.float32),
        thresholds=np.zeros(count, np.float32),
        measures=rng.normal(scale=0.04, size=(count, 2)).astype(np.float32),
    )


def select(
    data: Elites, count: int, label_measure: int = 1, margin: float = 0.0, **changes: object
) -> Labelled:
    settings = {"bins": (4, 4), "ranges": RANGES, **changes}
    rule = sign_of(label_measure, margin)
    return select_elites(data, rule, count=count, **settings)  # type: ignore[arg-type]


def test_the_side_of_the_label_measure_is_the_label() -> None:
    measures = np.array([[0.1, -0.05], [-0.1, 0.0], [0.0, 0.05]])
    assert sign_of(1).labels(measures).tolist() == [0, 1, 1]
    assert sign_of(0).labels(measures).tolist() == [1, 0, 1]
    assert sign_of(1).labels(measures - 0.02).tolist() == [0, 0, 1]


def test_a_margin_leaves_out_what_is_near_the_boundary() -> None:
    data = elites(200)
    label = data.measures[:, 1]
    rows = select(data, 200, margin=0.03)
    assert len(rows) == np.sum(np.abs(label) >= 0.03) < 200
    assert np.abs(rows.elites.measures[:, 1]).min() >= 0.03
    assert len(select(data, 200)) == 200


@pytest.mark.parametrize(
    ("measures", "index"),
    [
        pytest.param((-0.1, -0.1), 0, id="low corner"),
        pytest.param((-0.04, -0.1), 2, id="second bin of the first measure"),
        pytest.param((-0.1, 0.06), 1, id="second bin of the second measure"),
        pytest.param((0.1, 0.1), 7, id="the upper end belongs to the last bin"),
        pytest.param((7.0, -9.0), 6, id="beyond a range is its edge"),
    ],
)
def test_a_row_falls_into_its_bin(measures: tuple[float, float], index: int) -> None:
    assert bins_of(np.array([measures]), (4, 2), RANGES).tolist() == [index]


def test_full_bins_share_equally_and_poor_ones_give_all() -> None:
    bins = np.repeat([0, 1, 2], [50, 2, 50])
    chosen = balance(bins, np.zeros(102), np.arange(102), 20)
    assert np.bincount(bins[chosen]).tolist() == [9, 2, 9]


def test_inside_a_bin_the_best_come_first_and_ties_go_to_the_lower_cell() -> None:
    bins = np.zeros(5, np.int64)
    objectives = np.array([1.0, 5.0, 3.0, 5.0, 2.0])
    cells = np.array([4, 9, 2, 7, 0])
    assert balance(bins, objectives, cells, 3).tolist() == [3, 1, 2]


def test_the_last_round_goes_to_the_better_rows() -> None:
    bins = np.array([0, 1, 2])
    assert balance(bins, np.array([1.0, 3.0, 2.0]), np.arange(3), 2).tolist() == [1, 2]


@settings(deadline=None, max_examples=60)
@given(
    sizes=st.lists(st.integers(0, 12), min_size=1, max_size=6),
    count=st.integers(1, 40),
    seed=st.integers(0, 9),
)
def test_no_bin_gives_two_more_than_another_that_has_some_left(
    sizes: list[int], count: int, seed: int
) -> None:
    bins = np.repeat(np.arange(len(sizes)), sizes)
    objectives = np.random.default_rng(seed).integers(0, 3, len(bins)).astype(float)
    chosen = balance(bins, objectives, np.arange(len(bins)), count)
    assert len(set(chosen.tolist())) == len(chosen) == min(count, sum(sizes))
    given_by = np.bincount(bins[chosen], minlength=len(sizes))
    unfinished = [n for n, size in zip(given_by, sizes, strict=True) if n < size]
    assert not unfinished or max(given_by) - min(unfinished) <= 1


def test_selection_ignores_the_order_of_the_elites() -> None:
    data = elites(200)
    shuffle = np.random.default_rng(5).permutation(200)
    first = select(data, 60)
    second = select(data.take(shuffle), 60)
    for name, column in first.columns().items():
        np.testing.assert_array_equal(column, second.columns()[name])


def test_a_row_keeps_its_latent_objective_and_measures_together() -> None:
    data = elites(100)
    rows = select(data, 40)
    where = [int(np.flatnonzero(data.cells == cell)[0]) for cell in rows.elites.cells]
    for name in ("latents", "objectives", "measures"):
        np.testing.assert_array_equal(rows.columns()[name], getattr(data, name)[where])
    np.testing.assert_array_equal(rows.labels, data.measures[where, 1] >= 0)


def test_a_small_archive_gives_all_its_elites() -> None:
    assert len(select(elites(7), 100)) == 7


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"count": 0}, "count is 0"),
        ({"bins": (4,)}, "1 bins and 2 ranges for 2 measures"),
        ({"bins": (4, 0)}, r"bins \(4, 0\)"),
        ({"ranges": ((0.1, -0.1), (0, 1))}, "low < high"),
        ({"label_measure": 2}, r"label measures are \(2,\) but there are 2 measures"),
        ({"margin": -0.1}, "margin is -0.1"),
        ({"margin": 3.0}, "margin is 3.0 but no label measure is farther than"),
    ],
)
def test_settings_that_do_not_fit_are_refused(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        select(elites(5), **{"count": 3, **changes})  # type: ignore[arg-type]


def test_an_empty_archive_is_refused() -> None:
    with pytest.raises(ValueError, match="no elites"):
        select(elites(1).take(np.arange(0)), 5)


def test_a_bin_that_a_boundary_crosses_counts_once_for_each_class() -> None:
    rng = np.random.default_rng(3)
    count = 400
    measures = np.stack([np.zeros(count), rng.uniform(-0.1, 0.1, count)], axis=1)
    data = dataclasses.replace(elites(count), measures=measures)
    rows = select(data, 40, bins=(1, 3))
    middle = np.abs(rows.elites.measures[:, 1]) < 0.1 / 3
    assert np.bincount(2 * rows.labels + middle).tolist() == [10, 10, 10, 10]


def test_rows_of_unequal_length_or_not_finite_are_refused() -> None:
    zeros = np.zeros(3)
    with pytest.raises(ValueError, match="cells has 2 rows but labels has 3"):
        Labelled(labelled(np.zeros(2), np.zeros((2, 2))).elites, np.zeros(3, int))
    with pytest.raises(ValueError, match="objectives of row 1 is not finite"):
        labelled(zeros, np.zeros((3, 2)), objectives=np.array([0.0, np.nan, 0.0]))
