"""Verification against the published protocol's numbers, and by hand."""

from __future__ import annotations

import numpy as np
import pytest
import synthetic

from qdgs_jax.ports.faces.pairs import PairIndex
from qdgs_jax.train.faces.verification import (
    THRESHOLDS,
    fuse_flips,
    pair_distances,
    roc_curve,
    verify_folds,
)

REFERENCE = synthetic.load_reference("recognition", "verification")


@pytest.mark.parametrize("name", ["easy", "hard", "chance", "all_same", "all_different", "ties"])
def test_folds_are_exactly_the_published_ones(name):
    index = PairIndex.in_rows(REFERENCE[f"{name}.issame"])
    distances = pair_distances(REFERENCE[f"{name}.embedding"], index)
    found = verify_folds(distances, index.same)
    np.testing.assert_array_equal(found.accuracies, REFERENCE[f"{name}.fold_accuracy"])
    np.testing.assert_array_equal(found.thresholds, REFERENCE[f"{name}.fold_threshold"])
    if f"{name}.tpr" in REFERENCE:
        np.testing.assert_array_equal(found.tpr, REFERENCE[f"{name}.tpr"])
        np.testing.assert_array_equal(found.fpr, REFERENCE[f"{name}.fpr"])
    assert found.accuracy == REFERENCE[f"{name}.fold_accuracy"].mean()


def test_mirror_images_are_fused_by_their_norms():
    fused, norms = fuse_flips(REFERENCE["flip.embedding"], REFERENCE["flip.norm"])
    np.testing.assert_allclose(fused, REFERENCE["flip.fused"], rtol=0, atol=1e-6)
    np.testing.assert_allclose(norms, REFERENCE["flip.fused_norm"], rtol=1e-6)


def test_rates_by_hand():
    distances = np.array([0.1, 0.2, 0.2, 0.5, 0.7, 0.9])
    same = np.array([True, True, False, True, False, False])
    roc = roc_curve(distances, same)
    np.testing.assert_array_equal(roc.thresholds, [-np.inf, 0.1, 0.2, 0.5, 0.7, 0.9])
    np.testing.assert_allclose(roc.tar, np.array([0, 1, 2, 3, 3, 3]) / 3)
    np.testing.assert_allclose(roc.far, np.array([0, 0, 1, 1, 2, 3]) / 3)
    # A rate that no pair can show stands for none; exactly a third is not exceeded by a third.
    np.testing.assert_allclose(roc.tar_at([1e-4, 1 / 3, 0.5, 1.0]), [1 / 3, 1, 1, 1])


@pytest.mark.parametrize("seed", range(5))
def test_the_curve_agrees_with_counting(seed):
    rng = np.random.default_rng(seed)
    same = rng.random(200) < 0.5
    distances = np.round(rng.random(200) + ~same * 0.3, 2)
    roc = roc_curve(distances, same)
    for far in (0.0, 0.01, 0.1, 0.37):
        accepted = [d for d in distances if (distances[~same] <= d).mean() <= far]
        wanted = max([(distances[same] <= d).mean() for d in accepted], default=0.0)
        assert roc.tar_at([far])[0] == pytest.approx(wanted)


def test_rates_without_pairs_to_take_them_of_are_nan():
    found = roc_curve(np.array([0.1, 0.2]), np.array([True, True]))
    assert np.isnan(found.far).all()
    assert found.tar[-1] == 1.0
    assert np.isnan(found.tar_at()).all()


def test_what_is_no_set_of_pairs_is_refused():
    one = PairIndex.in_rows([True])
    with pytest.raises(ValueError, match=r"\(3,\)"):
        pair_distances(np.ones(3), one)
    with pytest.raises(ValueError, match="names picture 1, there are 1"):
        pair_distances(np.ones((1, 2)), one)
    with pytest.raises(ValueError, match="picture 1 is not finite"):
        pair_distances(np.array([[1.0], [np.nan]]), one)
    with pytest.raises(ValueError, match="9 pairs in 10 folds"):
        verify_folds(np.ones(9), np.ones(9, bool))
    with pytest.raises(ValueError, match="same is int64"):
        verify_folds(np.ones(10), np.ones(10, int))
    with pytest.raises(ValueError, match="pair 2 is inf"):
        roc_curve(np.array([1, 1, np.inf]), np.ones(3, bool))
    with pytest.raises(ValueError, match=r"rate is 1\.5"):
        roc_curve(np.ones(2), np.array([True, False])).tar_at([1.5])
    with pytest.raises(ValueError, match=r"\(12, 16\)"):
        fuse_flips(np.ones((12, 16)), np.ones((12, 1)))
    assert len(THRESHOLDS) == 400
