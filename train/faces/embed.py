"""Embeddings of faces: a network over pictures and their mirror images, and its accuracy on pairs.

Pictures are normalised to [-1, 1] and their channels turned to blue, green, red, as AdaFace's
networks were trained; mirror images are embedded too, and fused by their norms.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from qdgs_jax.models.iresnet import IResNet
from qdgs_jax.ports.faces.pairs import FacePairs
from qdgs_jax.train.faces.fairness import Fairness, verify_groups
from qdgs_jax.train.faces.verification import (
    FoldResult,
    Roc,
    fuse_flips,
    pair_distances,
    roc_curve,
    verify_folds,
)

BATCH = 64  # pictures embedded together


@dataclasses.dataclass(frozen=True, eq=False)
class PairsResult:
    """How a network verifies a set of pairs.

    Attributes:
        folds: accuracy over ten folds.
        roc: true and false accept rates.
        groups: by group and at a common threshold; None where pairs have no groups.
    """

    folds: FoldResult
    roc: Roc
    groups: Fairness | None

    @property
    def accuracy(self) -> float:
        """Mean accuracy of the folds."""
        return self.folds.accuracy


def normalise_faces(images: jax.Array) -> jax.Array:
    """Pictures UInt8[..., 3], red first, to Float[..., 3] in [-1, 1], blue first."""
    return images[..., ::-1].astype(jnp.float32) / 127.5 - 1.0


@functools.partial(jax.jit, static_argnames=("graph", "flip"))
def _embed(graph: Any, state: Any, images: jax.Array, flip: bool) -> tuple[jax.Array, jax.Array]:
    """Embeddings Float[F, B, E] and norms Float[F, B, 1] of F views of pictures."""
    views = [images, images[:, :, ::-1]] if flip else [images]
    # One batch of all views: one copy of the network to compile.
    found = nnx.merge(graph, state)(normalise_faces(jnp.concatenate(views)))
    embeddings, norms = (each.reshape(len(views), len(images), -1) for each in found)
    return embeddings, norms


def embed_faces(
    model: IResNet, images: np.ndarray, *, flip: bool = True, batch_size: int = BATCH
) -> tuple[np.ndarray, np.ndarray]:
    """Embed pictures of aligned faces.

    Args:
        model: the network, with S its `cfg.input_size`.
        images: UInt8[N, S, S, 3], red first.
        flip: embed mirror images too, and fuse both by their norms.
        batch_size: pictures embedded together; the last batch is filled up, unless it is the only
            one.

    Returns:
        Float32[N, E] of unit length and norms Float32[N, 1]; with `flip`, of the sum of both.

    Raises:
        ValueError: pictures have another shape or type.
    """
    size = model.cfg.input_size
    if images.ndim != 4 or images.shape[1:] != (size, size, 3) or images.dtype != np.uint8:
        raise ValueError(
            f"images are {images.dtype}{list(images.shape)}: pass uint8[N, {size}, {size}, 3]."
        )
    graph, state = nnx.split(model)
    batch_size = max(1, min(batch_size, len(images)))
    embeddings = np.zeros((len(images), model.cfg.embed_dim), np.float32)
    norms = np.zeros((len(images), 1), np.float32)
    for start in range(0, len(images), batch_size):
        batch = images[start : start + batch_size]
        filled = np.pad(batch, ((0, batch_size - len(batch)), *[(0, 0)] * 3))
        views, lengths = map(np.asarray, _embed(graph, state, filled, flip))
        both = fuse_flips(views, lengths) if flip else (views[0], lengths[0])
        embeddings[start : start + batch_size] = both[0][: len(batch)]
        norms[start : start + batch_size] = both[1][: len(batch)]
    return embeddings, norms


def verify_pairs(
    model: IResNet, pairs: FacePairs, *, flip: bool = True, batch_size: int = BATCH
) -> PairsResult:
    """Verify pairs with a network, which embeds each picture once.

    See `embed_faces` and `verification`.

    Raises:
        ValueError: pictures have another size than the network takes, or there are too few pairs.
    """
    embeddings, _ = embed_faces(model, pairs.images, flip=flip, batch_size=batch_size)
    same, groups = pairs.index.same, pairs.index.groups
    distances = pair_distances(embeddings, pairs.index)
    return PairsResult(
        folds=verify_folds(distances, same),
        roc=roc_curve(distances, same),
        groups=verify_groups(distances, same, groups) if groups else None,
    )
