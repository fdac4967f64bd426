"""Small data sets of drawn shapes, written as shards once."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from labelled_rows import labelled

from qdgs_jax.datasets.shards import write_shards
from qdgs_jax.domains.shapes_drawing import biased_dataset


def write_drawings(folder: Path, images: np.ndarray, labels: np.ndarray) -> Path:
    count = len(labels)
    rows = labelled(labels, np.zeros((count, 1), np.float32))
    names = {"label_names": ("triangle", "square"), "measure_names": ("shape",)}
    write_shards(folder, rows, [images], **names, shard_size=60)
    return folder


@pytest.fixture(scope="session")
def balanced_drawings(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """160 balanced drawings of 32 x 32 pixels."""
    images, shapes, _ = biased_dataset(3, 160, 0.5, 32)
    return write_drawings(tmp_path_factory.mktemp("balanced") / "set", images, shapes)


@pytest.fixture(scope="session")
def biased_drawings(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """160 drawings of 32 x 32 pixels whose colour is their shape."""
    images, shapes, _ = biased_dataset(4, 160, 1.0, 32)
    return write_drawings(tmp_path_factory.mktemp("biased") / "set", images, shapes)
