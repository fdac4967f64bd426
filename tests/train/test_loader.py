"""Reading data sets for the classifiers: averaging down, order, checks."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from qdgs_jax.datasets.manifest import ShardError
from qdgs_jax.datasets.shards import ShardSource
from qdgs_jax.train.loader import area_average, area_weights, load_images


@pytest.mark.parametrize(
    ("size", "target", "weights"),
    [
        pytest.param(4, 2, [[0.5, 0.5, 0, 0], [0, 0, 0.5, 0.5]], id="whole pixels"),
        pytest.param(3, 2, [[2 / 3, 1 / 3, 0], [0, 1 / 3, 2 / 3]], id="shared pixel"),
        pytest.param(2, 2, [[1, 0], [0, 1]], id="nothing to do"),
    ],
)
def test_area_weights(size: int, target: int, weights: list[list[float]]) -> None:
    np.testing.assert_allclose(area_weights(size, target), weights, atol=1e-7)


def test_area_average_is_the_mean_of_blocks() -> None:
    images = np.random.default_rng(0).integers(0, 256, (3, 16, 16, 3), np.uint8)
    expected = images.reshape(3, 4, 4, 4, 4, 3).mean(axis=(2, 4))
    assert abs(area_average(images, 4) - expected).max() <= 0.5 + 1e-4
    np.testing.assert_array_equal(area_average(images[1], 4), area_average(images, 4)[1])


def test_enlarging_is_refused() -> None:
    with pytest.raises(ValueError, match="cannot average 16 pixels to 24"):
        area_average(np.zeros((1, 16, 16, 3), np.uint8), 24)


def test_all_images_arrive_in_order_and_shrunk(balanced_drawings: Path) -> None:
    source = ShardSource(balanced_drawings)
    data = load_images(balanced_drawings, 8, batch_size=50)
    assert data.images.shape == (160, 8, 8, 3)
    assert data.images.dtype == np.uint8
    assert data.label_names == ("triangle", "square")
    for index in (0, 59, 60, 159):
        record = source[index]
        np.testing.assert_array_equal(data.images[index], area_average(record["image"], 8))
        assert data.labels[index] == record["label"]


def test_a_folder_without_a_data_set_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ShardError, match="no data set here"):
        load_images(tmp_path, 8)
