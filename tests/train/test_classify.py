"""One classifier from one data set."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from flax import nnx
from labelled_rows import labelled

from qdgs_jax.datasets.shards import write_shards
from qdgs_jax.models.shape_classifier import ShapeClassifier
from qdgs_jax.ports.errors import CheckpointError
from qdgs_jax.ports.model_folder import save_model
from qdgs_jax.train import load_classifier, train_classifier
from qdgs_jax.train.classify import TrainedClassifier
from qdgs_jax.train.loader import load_images


@pytest.fixture(scope="module")
def trained(biased_drawings: Path) -> TrainedClassifier:
    return train_classifier(biased_drawings, image_size=16, epochs=8, seed=1, holdout=0.25)


def test_it_learns_and_is_tested_on_images_held_back(trained: TrainedClassifier) -> None:
    assert (trained.train_count, trained.test_count) == (120, 40)
    of_each = np.add(trained.train_counts, trained.test_counts)
    assert of_each.tolist() == [80, 80]
    assert min(trained.test_counts) > 10
    assert trained.train_accuracy > 0.95
    assert min(trained.test_accuracy) > 0.9
    assert trained.label_names == ("triangle", "square")


def test_its_parameters_make_the_network_again(
    trained: TrainedClassifier, biased_drawings: Path
) -> None:
    assert trained.config()["kind"] == "shape_classifier"
    model = nnx.eval_shape(lambda: ShapeClassifier(trained.cfg, rngs=nnx.Rngs(0)))
    state = nnx.state(model)
    nnx.replace_by_pure_dict(state, trained.params)
    nnx.update(model, state)
    data = load_images(biased_drawings, 16)
    answers = nnx.jit(lambda model, x: model(x))(model, data.images / np.float32(255)) > 0
    right = (np.asarray(answers) == (data.labels == 1)).mean()
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


def test_it_is_written_and_read_back_and_answers_the_same(
    trained: TrainedClassifier, biased_drawings: Path, tmp_path: Path
) -> None:
    trained.save(tmp_path / "classifier")
    read = load_classifier(tmp_path / "classifier")
    assert read.classes == ("triangle", "square")
    assert load_classifier(tmp_path).classes == read.classes  # the only one inside
    trained.save(tmp_path / "random" / "classifier")
    with pytest.raises(CheckpointError, match=r"holds 2 classifiers: give one of .*random"):
        load_classifier(tmp_path)
    data = load_images(biased_drawings, 32)
    right = read.predict(data.images) == data.labels
    expected = 120 * trained.train_accuracy + 40 * np.mean(trained.test_accuracy)
    assert right.sum() == pytest.approx(expected, abs=1.5)


@pytest.mark.parametrize("names", [None, ["triangle"], "ab"])
def test_a_folder_that_does_not_name_its_classes_is_refused(
    names: object, trained: TrainedClassifier, tmp_path: Path
) -> None:
    save_model(tmp_path / "net", {**trained.config(), "label_names": names}, trained.params)
    with pytest.raises(CheckpointError, match=r"label_names of .*config\.json .*tells 2 classes"):
        load_classifier(tmp_path / "net")


def test_a_folder_without_a_classifier_says_what_makes_one(
    biased_drawings: Path, tmp_path: Path
) -> None:
    for folder in (biased_drawings, biased_drawings.parent):
        with pytest.raises(CheckpointError, match=f"no classifier: `qdgs train {biased_drawings}`"):
            load_classifier(folder)
    with pytest.raises(CheckpointError, match="`qdgs train DATA` trains one"):
        load_classifier(tmp_path)


def test_any_number_of_classes_and_any_size(tmp_path: Path) -> None:
    """Three classes that differ in their colour, on small pictures that are not square."""
    labels = np.arange(90) % 3
    pictures = np.zeros((90, 20, 24, 3), np.uint8)
    pictures[np.arange(90), :, :, labels] = 255
    names = ("red", "green", "blue")
    rows = labelled(labels, np.zeros((90, 1)))
    write_shards(tmp_path / "set", rows, [pictures], label_names=names, measure_names=("hue",))
    trained = train_classifier(tmp_path / "set", epochs=30)
    assert (trained.cfg.image_size, trained.cfg.num_classes) == (16, 3)
    assert trained.test_accuracy == (1.0, 1.0, 1.0)
    trained.save(tmp_path / "classifier")
    read = load_classifier(tmp_path / "classifier")
    assert read.classes == names
    for images in (pictures, pictures / 255.0, pictures.astype(np.float32) / np.float32(255)):
        np.testing.assert_array_equal(read.predict(images), labels)
    assert read.predict(pictures[:0]).shape == (0,)
    for wrong, message in (
        (pictures[0], r"images has shape \(20, 24, 3\)"),
        (pictures[:, :12], "12 x 24 pixels and the classifier sees 16 x 16"),
        (pictures.astype(int), "images are int64"),
        (pictures * 1.0, "reach from 0 to 255"),
    ):
        with pytest.raises(ValueError, match=message):
            read.predict(wrong)


def test_pictures_too_small_to_learn_from_are_refused(tmp_path: Path) -> None:
    rows = labelled(np.arange(4) % 2, np.zeros((4, 1)))
    pictures = [np.zeros((4, 6, 9, 3), np.uint8)]
    names = ("one", "two")
    write_shards(tmp_path / "set", rows, pictures, label_names=names, measure_names=("hue",))
    with pytest.raises(ValueError, match="have 6 x 9 pixels: a classifier needs 8 x 8"):
        train_classifier(tmp_path / "set")


def test_a_single_class_is_refused(tmp_path: Path) -> None:
    rows = labelled(np.zeros(4), np.zeros((4, 1)))
    pictures = [np.zeros((4, 8, 8, 3), np.uint8)]
    write_shards(tmp_path / "set", rows, pictures, label_names=("one",), measure_names=("hue",))
    with pytest.raises(ValueError, match=r"only class 'one': .*qdgs train DATA --config"):
        train_classifier(tmp_path / "set")
