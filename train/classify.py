"""One classifier from one data set: what `qdgs train DATA` does, and how it is used again."""

from __future__ import annotations

import dataclasses
import os
import shlex
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax import nnx

from qdgs_jax import keys
from qdgs_jax.datasets.manifest import MANIFEST, read_manifest
from qdgs_jax.models.shape_classifier import ShapeClassifier, ShapeClassifierConfig
from qdgs_jax.ports.errors import CheckpointError
from qdgs_jax.ports.loading import load
from qdgs_jax.ports.model_folder import load_config, save_model
from qdgs_jax.train.loader import area_average, load_images
from qdgs_jax.train.loop import FitSettings, classes_of, fit, init_models, predict

KIND = "shape_classifier"  # in the `config.json` of its folder
IMAGE_SIZE = 32  # pixels that a classifier sees at most, unless told otherwise
MULTIPLE = 8  # the network halves an image three times
BATCH = 64  # pictures classified together


@dataclasses.dataclass(frozen=True)
class TrainedClassifier:
    """A classifier and how it does.

    Attributes:
        cfg: its sizes.
        params: its parameters as a nested dict of arrays, as checkpoints hold them.
        label_names: name of each class.
        train_counts: number of images it learnt from, for each class.
        train_accuracy: share of right answers on them.
        test_counts: number of images held back, for each class.
        test_accuracy: share of right answers on those, for each class; NaN for a class without any.
    """

    cfg: ShapeClassifierConfig
    params: dict[str, Any]
    label_names: tuple[str, ...]
    train_counts: tuple[int, ...]
    train_accuracy: float
    test_counts: tuple[int, ...]
    test_accuracy: tuple[float, ...]

    @property
    def train_count(self) -> int:
        """Number of images it learnt from."""
        return sum(self.train_counts)

    @property
    def test_count(self) -> int:
        """Number of images held back."""
        return sum(self.test_counts)

    def config(self) -> dict[str, Any]:
        """What a model folder's `config.json` needs to build the network again."""
        return {
            "kind": KIND,
            **dataclasses.asdict(self.cfg),
            "label_names": list(self.label_names),
        }

    def save(self, folder: str | os.PathLike[str]) -> None:
        """Write a model folder, which `load_classifier` reads."""
        save_model(Path(folder), self.config(), self.params)


@dataclasses.dataclass(frozen=True)
class Classifier:
    """A trained classifier, ready to be used.

    Attributes:
        model: the network.
        classes: name of each class.
    """

    model: ShapeClassifier
    classes: tuple[str, ...]

    def predict(self, images: np.ndarray) -> np.ndarray:
        """Tell the class of each picture.

        Args:
            images: UInt8[N, H, W, 3], or Float[N, H, W, 3] in [0, 1], of any size from the one
                that the classifier sees, `model.cfg.image_size`.

        Returns:
            Int[N], indices into `classes`; of equally likely classes the first.

        Raises:
            ValueError: the pictures have another shape or type, are too small or out of range.
        """
        cfg = self.model.cfg
        pictures = _bytes_of(np.asarray(images), cfg.image_size)
        params = jax.tree.map(lambda value: value[None], nnx.state(self.model))
        found = []
        for start in range(0, len(pictures), BATCH):
            small = area_average(pictures[start : start + BATCH], cfg.image_size)
            count = len(small)  # the last batch is filled up, for one program to serve all
            logits = predict(cfg, params, np.pad(small, ((0, BATCH - count), *[(0, 0)] * 3)))[0]
            found.append(np.asarray(classes_of(logits, cfg.num_classes), np.int64)[:count])
        return np.concatenate([np.zeros(0, np.int64), *found])


def _bytes_of(images: np.ndarray, smallest: int) -> np.ndarray:
    """Pictures as UInt8[N, H, W, 3]; what is none, or smaller, is refused."""
    if images.ndim != 4 or images.shape[3] != 3:
        raise ValueError(
            f"images has shape {images.shape}: give [N, height, width, 3], one picture as "
            "picture[None]."
        )
    if min(images.shape[1:3]) < smallest:
        raise ValueError(
            f"the pictures have {images.shape[1]} x {images.shape[2]} pixels and the classifier "
            f"sees {smallest} x {smallest}: give pictures of at least that size."
        )
    if images.dtype == np.uint8:
        return images
    if images.dtype.kind != "f":
        raise ValueError(f"images are {images.dtype}: give uint8, or floats from 0 to 1.")
    if images.size and not (images.min() >= 0.0 and images.max() <= 1.0):
        raise ValueError(
            f"images reach from {images.min():.3g} to {images.max():.3g}: give floats from 0 to 1."
        )
    return np.round(255.0 * images).astype(np.uint8)


def load_classifier(folder: str | os.PathLike[str]) -> Classifier:
    """Load what `qdgs train DATA` wrote, or `TrainedClassifier.save`.

    Args:
        folder: its folder, or one that holds it alone, such as that of a run.

    Raises:
        CheckpointError: the folder holds no classifier, or several, or does not name its classes.
    """
    place = _place_of(Path(folder))
    model = load(place, ShapeClassifier)
    names = load_config(place).get("label_names")
    if not isinstance(names, list) or len(names) != model.cfg.num_classes:
        raise CheckpointError(
            f"label_names of {place / 'config.json'} is {names!r:.80}, but the network tells "
            f"{model.cfg.num_classes} classes: give a list with the name of each."
        )
    return Classifier(model, tuple(names))


def _place_of(folder: Path) -> Path:
    """The folder of a classifier: what was given, or where it lies inside."""
    if not folder.is_dir() or (folder / "config.json").is_file():
        return folder
    inside = (
        path for depth in ("*", "*/*") for path in sorted(folder.glob(f"{depth}/config.json"))
    )
    found = [path.parent for path in inside if _is_classifier(path.parent)]
    if len(found) > 1:
        names = ", ".join(map(str, found))
        raise CheckpointError(f"{folder} holds {len(found)} classifiers: give one of {names}.")
    if not found:
        sets = [path.parent for path in sorted(folder.glob(f"**/{MANIFEST}"))]
        command = f"qdgs train {shlex.quote(str(sets[0]))}" if sets else "qdgs train DATA"
        raise CheckpointError(
            f"{folder} holds no classifier: `{command}` trains one, and says where it is."
        )
    return found[0]


def _is_classifier(folder: Path) -> bool:
    try:
        return not folder.name.startswith(".") and load_config(folder).get("kind") == KIND
    except CheckpointError:
        return False


def train_classifier(
    dataset_dir: str | os.PathLike[str],
    *,
    image_size: int | None = None,
    epochs: int = 30,
    seed: int = 0,
    holdout: float = 0.2,
) -> TrainedClassifier:
    """Train a classifier on a data set; a part of it is held back to test on.

    Args:
        dataset_dir: a folder written by `qdgs generate`.
        image_size: width and height of the images that the classifier sees, a multiple of 8; None
            takes 32, or the largest that the pictures fill.
        epochs: passes over the data.
        seed: of the split, the weights and the order.
        holdout: share of the images that is held back, in (0, 1).

    Raises:
        ShardError: the folder holds no complete data set.
        ValueError: there is a single class, there are too few images, or settings are out of range.
    """
    if not 0.0 < holdout < 1.0:
        raise ValueError(f"holdout is {holdout}: give a share between 0 and 1, e.g. 0.2.")
    manifest = read_manifest(dataset_dir)
    if len(manifest.label_names) < 2:
        raise ValueError(
            f"{dataset_dir} has the only class {', '.join(map(repr, manifest.label_names))}: a "
            "classifier needs two. A face recognition network learns from people instead, with a "
            "recipe: `qdgs train DATA --config FILE`."
        )
    if min(manifest.image_size) < MULTIPLE:
        raise ValueError(
            f"the pictures of {dataset_dir} have {manifest.image_size[0]} x "
            f"{manifest.image_size[1]} pixels: a classifier needs {MULTIPLE} x {MULTIPLE}."
        )
    if image_size is None:
        image_size = min(IMAGE_SIZE, MULTIPLE * (min(manifest.image_size) // MULTIPLE))
    cfg = ShapeClassifierConfig(image_size=image_size, num_classes=len(manifest.label_names))
    settings = FitSettings(epochs=epochs)
    data = load_images(dataset_dir, image_size)
    learn, test = _split(len(data.labels), holdout, seed)
    init_key, order_key = jax.random.split(keys.stream(keys.root(seed), "train"))
    params = init_models(cfg, init_key[None])
    params = fit(cfg, settings, params, data.images[learn], data.labels[learn], order_key[None])
    logits = predict(cfg, params, data.images)[0]
    right = np.asarray(classes_of(logits, cfg.num_classes)) == data.labels
    per_class = [right[test][data.labels[test] == c] for c in range(cfg.num_classes)]
    pure = nnx.to_pure_dict(params)
    return TrainedClassifier(
        cfg=cfg,
        params=jax.tree.map(lambda value: np.asarray(value)[0], pure),
        label_names=data.label_names,
        train_counts=_counts(data.labels[learn], cfg.num_classes),
        train_accuracy=float(right[learn].mean()),
        test_counts=_counts(data.labels[test], cfg.num_classes),
        test_accuracy=tuple(
            float(part.mean()) if len(part) else float("nan") for part in per_class
        ),
    )


def _counts(labels: np.ndarray, num_classes: int) -> tuple[int, ...]:
    """How many there are of each class."""
    return tuple(np.bincount(labels, minlength=num_classes).tolist())


def _split(count: int, holdout: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows to learn from and rows to test on."""
    test_count = round(holdout * count)
    if not 0 < test_count < count:
        raise ValueError(
            f"{count} images cannot be split into {count - test_count} to learn from and "
            f"{test_count} to test on: generate more images or change holdout ({holdout})."
        )
    order = keys.numpy_stream(seed, "train").permutation(count)
    return order[test_count:], order[:test_count]
