"""One classifier from one data set: what `qdgs train` does."""

from __future__ import annotations

import dataclasses
import os
from typing import Any

import jax
import numpy as np
from flax import nnx

from qdgs_jax.models.shape_classifier import ShapeClassifierConfig
from qdgs_jax.train.loader import load_images
from qdgs_jax.train.loop import FitSettings, fit, init_models, predict


@dataclasses.dataclass(frozen=True)
class TrainedClassifier:
    """A classifier and how it does.

    Attributes:
        cfg: its sizes.
        params: its parameters as a nested dict of arrays, as checkpoints hold them.
        label_names: names of the two classes, logit <= 0 and logit > 0.
        train_count: number of images it learnt from.
        train_accuracy: share of right answers on them.
        test_count: number of images held back.
        test_accuracy: share of right answers on those, for each class; NaN for a class without any.
    """

    cfg: ShapeClassifierConfig
    params: dict[str, Any]
    label_names: tuple[str, str]
    train_count: int
    train_accuracy: float
    test_count: int
    test_accuracy: tuple[float, float]

    def config(self) -> dict[str, Any]:
        """What a checkpoint's `config.json` needs to build the network again."""
        return {
            "model": "shape-classifier",
            **dataclasses.asdict(self.cfg),
            "label_names": list(self.label_names),
        }


def train_classifier(
    dataset_dir: str | os.PathLike[str],
    *,
    image_size: int = 32,
    epochs: int = 30,
    seed: int = 0,
    holdout: float = 0.2,
) -> TrainedClassifier:
    """Train a classifier on a data set of two classes; a part of it is held back to test on.

    Args:
        dataset_dir: a folder written by `qdgs generate`.
        image_size: width and height of the images that the classifier sees, a multiple of 8.
        epochs: passes over the data.
        seed: of the split, the weights and the order.
        holdout: share of the images that is held back, in (0, 1).

    Raises:
        ShardError: the folder holds no complete data set.
        ValueError: there are other than two classes, too few images, or settings out of range.
    """
    if not 0.0 < holdout < 1.0:
        raise ValueError(f"holdout is {holdout}: give a share between 0 and 1, e.g. 0.2.")
    cfg = ShapeClassifierConfig(image_size=image_size)
    settings = FitSettings(epochs=epochs)
    data = load_images(dataset_dir, image_size)
    if len(data.label_names) != 2:
        raise ValueError(
            f"{dataset_dir} has {len(data.label_names)} classes {data.label_names}: this "
            "classifier tells two apart."
        )
    count = len(data.labels)
    test_count = round(holdout * count)
    if not 0 < test_count < count:
        raise ValueError(
            f"{count} images cannot be split into {count - test_count} to learn from and "
            f"{test_count} to test on: generate more images or change holdout ({holdout})."
        )
    order = np.random.default_rng(seed).permutation(count)
    test, learn = order[:test_count], order[test_count:]
    init_key, order_key = jax.random.split(jax.random.key(seed))
    params = init_models(cfg, init_key[None])
    params = fit(cfg, settings, params, data.images[learn], data.labels[learn], order_key[None])
    answers = np.asarray(predict(cfg, params, data.images))[0] > 0
    right = answers == (data.labels == 1)
    per_class = [right[test][data.labels[test] == c] for c in (0, 1)]
    pure = nnx.to_pure_dict(params)
    return TrainedClassifier(
        cfg=cfg,
        params=jax.tree.map(lambda value: np.asarray(value)[0], pure),
        label_names=(data.label_names[0], data.label_names[1]),
        train_count=len(learn),
        train_accuracy=float(right[learn].mean()),
        test_count=test_count,
        test_accuracy=tuple(  # type: ignore[arg-type]
            float(part.mean()) if len(part) else float("nan") for part in per_class
        ),
    )
