"""Does the generated data set repair a biased classifier? The experiment of QDGS, section 5.1.

Classifiers learn triangle against square from drawings in which triangles are mostly red and
squares mostly blue, for several strengths of that bias, and then see a generated data set: one from
a search, one of random samples of the same generator labelled the same way (its baseline), or none.
A balanced set of drawings shows what each has learnt, group by group. (Chang et al. 2024,
arXiv:2312.14369.)
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Protocol

import jax
import numpy as np

from qdgs_jax import keys
from qdgs_jax.domains.shapes_drawing import balanced_dataset, biased_dataset
from qdgs_jax.models.shape_classifier import ShapeClassifierConfig
from qdgs_jax.train.loader import LabelledImages, load_images
from qdgs_jax.train.loop import FitSettings, Params, fit, in_groups, init_models, predict
from qdgs_jax.train.shapes.repair_result import ARMS, GROUPS, RepairResult

TRAINING, TESTING = "train on biased drawings", "test"  # stages
Progress = Callable[[str, float], None]  # (what is being done, finished share in [0, 1])


class RepairSettings(Protocol):
    """What the experiment reads of a run file's [repair] table."""

    @property
    def image_size(self) -> int:
        """Width and height of the images that the classifiers see."""

    @property
    def biases(self) -> tuple[float, ...]:
        """Shares of the drawings whose colour follows their shape."""

    @property
    def seeds(self) -> int:
        """Classifiers per bias."""

    @property
    def train_images(self) -> int:
        """Drawings that each classifier learns from."""

    @property
    def train_epochs(self) -> int:
        """Epochs on the biased drawings."""

    @property
    def repair_epochs(self) -> int:
        """Epochs on a generated data set."""

    @property
    def test_images(self) -> int:
        """Balanced drawings to test on."""


def run_repair(
    run_dir: str | os.PathLike[str],
    baseline_dir: str | os.PathLike[str],
    settings: RepairSettings,
    seed: int,
    progress: Progress | None = None,
    *,
    group: int | None = None,
) -> RepairResult:
    """Train biased classifiers, repair them with each data set, and test them.

    Args:
        run_dir: data set of a search, with classes triangle and square in this order.
        baseline_dir: data set of random samples, labelled the same way.
        settings: sizes of the experiment.
        seed: of drawings, initial weights and orders. Equal arguments give equal results.
        progress: told what is being done and how much of the whole is finished.
        group: classifiers trained in one program, see `in_groups`.

    Raises:
        ShardError: a folder holds no complete data set.
        ValueError: a data set has other than two classes, or its images are too small.
    """
    cfg = ShapeClassifierConfig(image_size=settings.image_size)
    data = {
        arm: _binary(load_images(folder, settings.image_size), folder)
        for arm, folder in (("baseline", baseline_dir), ("run", run_dir))
    }
    learnt = settings.train_images * settings.train_epochs
    work = {TRAINING: learnt}
    for arm, images in data.items():
        work[_repairing(arm)] = len(images.labels) * settings.repair_epochs
    work[TESTING] = settings.test_images  # three times, at a third of a step's cost
    report = _of_all(progress or (lambda _what, _share: None), work)
    count = len(settings.biases) * settings.seeds
    train_seeds, test_seed = _drawing_seeds(seed, count)
    model_keys = _model_keys(seed, count)
    test = balanced_dataset(test_seed, settings.test_images, settings.image_size)
    params = {"none": _train_biased(cfg, settings, train_seeds, model_keys, report, group)}
    for arm, images in data.items():
        title = _repairing(arm)
        params[arm] = _repair(
            cfg, settings, params["none"], images, model_keys, title, report, group
        )
    shape = (len(settings.biases), settings.seeds)
    accuracy = {}
    for number, arm in enumerate(ARMS):
        hits = _group_accuracy(cfg, params[arm], test, group)
        accuracy[arm] = hits.reshape(*shape, len(GROUPS))
        report(TESTING, (number + 1) / len(ARMS))
    images_seen = {"none": 0, **{arm: len(images.labels) for arm, images in data.items()}}
    return RepairResult(tuple(settings.biases), accuracy, images_seen)


def _repairing(arm: str) -> str:
    return f"repair with the data set of the {arm}"


def _of_all(progress: Progress, work: Mapping[str, int]) -> Progress:
    """Progress of stages as progress of the whole, by the pictures that each stage looks at."""
    before = dict(zip(work, itertools.accumulate(work.values(), initial=0), strict=False))
    total = sum(work.values())
    return lambda what, share: progress(what, (before[what] + share * work[what]) / total)


def _binary(data: LabelledImages, folder: str | os.PathLike[str]) -> LabelledImages:
    if len(data.label_names) != 2:
        raise ValueError(
            f"{folder} has {len(data.label_names)} classes {data.label_names}: the experiment "
            "needs two, triangle and square; choose the shape as the data set's label."
        )
    return data


def _drawing_seeds(seed: int, count: int) -> tuple[np.ndarray, int]:
    """Seeds of the drawings that each classifier learns from, Int[count], and of the test's."""
    seeds = keys.numpy_stream(seed, "repair").integers(0, 2**31, count + 1)
    return seeds[:count], int(seeds[count])


class _ModelKeys(NamedTuple):
    """Keys [count]: for initial weights, the order in training and the order in repair."""

    init: jax.Array
    train: jax.Array
    repair: jax.Array


def _model_keys(seed: int, count: int) -> _ModelKeys:
    parts = jax.random.split(keys.stream(keys.root(seed), "repair"), 3)
    return _ModelKeys(*(jax.random.split(key, count) for key in parts))


def _train_biased(
    cfg: ShapeClassifierConfig,
    settings: RepairSettings,
    seeds: np.ndarray,
    model_keys: _ModelKeys,
    report: Progress,
    group: int | None,
) -> Params:
    """Parameters of the biased classifiers; model number = bias index * seeds + seed index."""
    count = len(settings.biases) * settings.seeds
    fitting = FitSettings(epochs=settings.train_epochs)

    def train(models: slice) -> Params:
        drawn = [
            biased_dataset(
                int(seeds[m]),
                settings.train_images,
                settings.biases[m // settings.seeds],
                settings.image_size,
            )
            for m in range(models.start, models.stop)
        ]
        images, labels = (np.stack([data[i] for data in drawn]) for i in (0, 1))
        params = init_models(cfg, model_keys.init[models])
        return fit(cfg, fitting, params, images, labels, model_keys.train[models])

    return in_groups(train, count, group=group, progress=lambda share: report(TRAINING, share))


def _repair(
    cfg: ShapeClassifierConfig,
    settings: RepairSettings,
    params: Params,
    data: LabelledImages,
    model_keys: _ModelKeys,
    title: str,
    report: Progress,
    group: int | None,
) -> Params:
    """Fine-tune every classifier on one data set.

    The data set is small and its shapes stand as the search found them: mirrored and turned copies
    stand for those it did not find, and many steps on few images each undo what the biased drawings
    taught.
    """
    count = len(settings.biases) * settings.seeds
    fitting = FitSettings(
        epochs=settings.repair_epochs, batch_size=10, learning_rate=5e-3, mirrored=True
    )
    images, labels = jax.device_put((data.images, data.labels))
    # The same orders for every data set, so that they can be compared in pairs.
    orders: jax.Array = jax.random.clone(model_keys.repair)  # type: ignore[no-untyped-call]

    def repair(models: slice) -> Params:
        start = jax.tree.map(lambda value: value[models], params)
        return fit(cfg, fitting, start, images, labels, orders[models])

    return in_groups(repair, count, group=group, progress=lambda share: report(title, share))


def _group_accuracy(
    cfg: ShapeClassifierConfig,
    params: Params,
    test: tuple[np.ndarray, np.ndarray, np.ndarray],
    group: int | None,
) -> np.ndarray:
    """Share of right answers per model and group, Float[M, 4]."""
    images, shapes, colours = test
    on_device = jax.device_put(images)

    def answer(models: slice) -> Any:
        return predict(cfg, jax.tree.map(lambda value: value[models], params), on_device)

    count = jax.tree.leaves(params)[0].shape[0]
    logits = in_groups(answer, count, group=group)
    right = (logits > 0) == (shapes == 1)
    groups = 2 * shapes + colours
    return np.stack([right[:, groups == g].mean(axis=1) for g in range(len(GROUPS))], axis=1)
