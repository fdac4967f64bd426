"""A data set and a classifier where the page has them; caches stay in the test's folder."""

from pathlib import Path

import datasets
import jax
import numpy as np
import pandas
from flax import nnx

from qdgs_jax.models.shape_classifier import ShapeClassifier, ShapeClassifierConfig
from qdgs_jax.train.classify import TrainedClassifier

datasets.config.HF_DATASETS_CACHE = Path("cache").absolute()
Path("runs/my/data").mkdir(parents=True)
rows = {"image": [{"bytes": b"", "path": "0.png"}], "label": [0]}
pandas.DataFrame(rows).to_parquet("runs/my/data/shard-00000.parquet")

sizes = ShapeClassifierConfig(image_size=8)
params = nnx.to_pure_dict(nnx.state(ShapeClassifier(sizes, rngs=nnx.Rngs(0))))
params = jax.tree.map(np.asarray, params)
TrainedClassifier(sizes, params, ("triangle", "square"), 1, 1.0, 1, (1.0, 1.0)).save("models/small")
pictures = np.zeros((2, 16, 16, 3), np.uint8)
