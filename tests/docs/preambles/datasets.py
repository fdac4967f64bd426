"""A data set and a classifier where the page has them; caches stay in the test's folder."""

from pathlib import Path

import datasets
import jax
import numpy as np
from flax import nnx
from labelled_rows import labelled

from qdgs_jax.datasets.shards import write_shards
from qdgs_jax.models.shape_classifier import ShapeClassifier, ShapeClassifierConfig
from qdgs_jax.train.classify import TrainedClassifier

datasets.config.HF_DATASETS_CACHE = Path("cache").absolute()
pictures = np.zeros((2, 16, 16, 3), np.uint8)
rows = labelled(np.array([0, 1]), np.zeros((2, 1)))
names = {"label_names": ("triangle", "square"), "measure_names": ("shape",)}
write_shards("runs/my/data", rows, [pictures], card=Path("runs/my"), **names)

sizes = ShapeClassifierConfig(image_size=8)
shapes = nnx.eval_shape(lambda: ShapeClassifier(sizes, rngs=nnx.Rngs(0)))
params = jax.tree.map(
    lambda leaf: np.full(leaf.shape, 0.01, leaf.dtype), nnx.to_pure_dict(nnx.state(shapes))
)
TrainedClassifier(sizes, params, ("triangle", "square"), 1, 1.0, 1, (1.0, 1.0)).save("models/small")
