"""One classifier from one data set."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from flax import nnx

from qdgs_jax.models.shape_classifier import ShapeClassifier
from qdgs_jax.train.classify import TrainedClassifier, train_classifier
from qdgs_jax.train.loader import load_images


@pytest.fixture(scope="module")
def trained(biased_drawings: Path) -> TrainedClassifier:
    return train_classifier(biased_drawings, image_size=16, epochs=8, seed=1, holdout=0.25)


def test_it_learns_and_is_tested_on_images_held_back(trained: TrainedClassifier) -> None:
    assert (trained.train_count, trained.test_count) == (120, 40)
    assert trained.train_accuracy > 0.95
    assert min(trained.test_accuracy) > 0.9
    assert trained.label_names == ("triangle", "square")


def test_its_parameters_make_the_network_again(
    trained: TrainedClassifier, biased_drawings: Path
) -> None:
    assert trained.config()["model"] == "shape-classifier"
    model = ShapeClassifier(trained.cfg, rngs=nnx.Rngs(0))
    state = nnx.state(model)
    nnx.replace_by_pure_dict(state, trained.params)
    nnx.update(model, state)
    data = load_images(biased_drawings, 16)
    answers = np.asarray(model(data.images / np.float32(255))) > 0
    right = (answers == (data.labels == 1)).mean()
    assert right == pytest.approx(
        (120 * trained.train_accuracy + 40 * np.mean(trained.test_accuracy)) / 160, abs=0.02
    )


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"holdout": 0.0}, "holdout is 0.0"),
        ({"holdout": 0.001}, "160 images cannot be split"),
        ({"image_size": 12}, "image_size is 12"),
        ({"image_size": 64}, "cannot average 32 pixels to 64"),
        ({"epochs": 0}, "must be positive"),
    ],
)
def test_impossible_settings_are_refused(
    biased_drawings: Path, settings: dict[str, float], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        train_classifier(biased_drawings, **settings)  # type: ignore[arg-type]
