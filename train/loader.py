"""From shards to arrays: Grain reads, decodes and shrinks the pictures; the device gets them once.

The classifiers see small images, so a whole data set fits into device memory and each epoch is an
order of indices there, instead of a stream of batches from the host.
"""

from __future__ import annotations

import os
from typing import Any, NamedTuple

import grain
import numpy as np

from qdgs_jax.datasets.shards import ShardSource


class LabelledImages(NamedTuple):
    """A data set in memory.

    Attributes:
        images: UInt8[N, S, S, 3].
        labels: Int[N].
        label_names: name of each class.
    """

    images: np.ndarray
    labels: np.ndarray
    label_names: tuple[str, ...]


def area_weights(size: int, target: int) -> np.ndarray:
    """Matrix Float[target, size] that averages `size` pixels over `target` equal intervals.

    Raises:
        ValueError: target exceeds size, so there is nothing to average.
    """
    if not 1 <= target <= size:
        raise ValueError(
            f"cannot average {size} pixels to {target}: give an image size of at most {size}."
        )
    edges = np.arange(target + 1) * (size / target)
    pixels = np.arange(size)
    overlap = np.minimum(edges[1:, None], pixels + 1) - np.maximum(edges[:-1, None], pixels)
    return (np.clip(overlap, 0.0, None) * (target / size)).astype(np.float32)


def area_average(image: np.ndarray, target: int) -> np.ndarray:
    """Shrink pictures UInt8[..., H, W, 3] to UInt8[..., target, target, 3], rounded."""
    if image.shape[-3:-1] == (target, target):
        return image
    rows = area_weights(image.shape[-3], target)
    columns = area_weights(image.shape[-2], target)
    # Two products over long contiguous lines: first the rows, then each row's columns.
    lines = np.moveaxis(image, -3, 0).reshape(image.shape[-3], -1).astype(np.float32)
    shrunk = (rows @ lines).reshape(target, *image.shape[:-3], *image.shape[-2:])
    shrunk = np.moveaxis(columns @ shrunk, 0, -3)
    return np.round(shrunk).astype(np.uint8)


def load_images(
    folder: str | os.PathLike[str], image_size: int, *, verify: bool = True, batch_size: int = 64
) -> LabelledImages:
    """Read a data set's pictures at the size that the classifiers see.

    Args:
        folder: a folder written by `qdgs_jax.datasets.shards.write_shards`.
        image_size: width and height S to average the pictures down to.
        verify: compare the shards with their checksums first.
        batch_size: pictures shrunk together.

    Raises:
        ShardError: the folder holds no complete data set.
        ValueError: the pictures are smaller than `image_size`.
    """
    source = ShardSource(folder, verify=verify)

    def shrink(batch: dict[str, Any]) -> dict[str, Any]:
        return {**batch, "image": area_average(batch["image"], image_size)}

    pipeline = grain.MapDataset.source(source).batch(batch_size).map(shrink).to_iter_dataset()
    batches = list(pipeline)
    return LabelledImages(
        images=np.concatenate([batch["image"] for batch in batches]),
        labels=np.concatenate([batch["label"] for batch in batches]).astype(np.int32),
        label_names=source.manifest.label_names,
    )
