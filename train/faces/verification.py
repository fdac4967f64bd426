"""Verification of pairs of faces: ten folds, error rates, and the mirror image's help.

The protocol is that of LFW (Huang et al. 2007) as ArcFace's and AdaFace's evaluations run it: pairs
in their order fall into ten folds without shuffling; a threshold on squared distances, 0 to 3.99 in
steps of 0.01, is chosen on nine of them, the first of the best, and applied to the tenth. Below the
threshold two faces are one person. Host code on NumPy arrays.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from qdgs_jax.ports.faces.pairs import PairIndex

FOLDS = 10
THRESHOLDS: np.ndarray = np.arange(0, 4, 0.01)  # squared distances of unit vectors reach 4
FARS = (1e-4, 1e-3, 1e-2, 1e-1)
_TOGETHER = 4096  # pairs whose embeddings are held side by side


@dataclasses.dataclass(frozen=True, eq=False)
class FoldResult:
    """What F folds gave.

    Attributes:
        accuracies: Float[F], of each fold at the threshold that the others chose.
        thresholds: Float[F], these thresholds.
        tpr: Float[400], share of genuine pairs below each of `THRESHOLDS`, the mean of the folds.
        fpr: Float[400], share of impostor pairs, likewise. A fold without such pairs counts as 0.
    """

    accuracies: np.ndarray
    thresholds: np.ndarray
    tpr: np.ndarray
    fpr: np.ndarray

    @property
    def accuracy(self) -> float:
        """Mean of the folds' accuracies."""
        return float(self.accuracies.mean())


@dataclasses.dataclass(frozen=True, eq=False)
class Roc:
    """True and false accept rates over all thresholds that tell pairs apart.

    Attributes:
        thresholds: Float[K], increasing from 0: accept the pairs whose distance is at most this;
            the first accepts none, and is -inf.
        far: Float[K], share of impostor pairs that are accepted, increasing; NaN without any.
        tar: Float[K], share of genuine pairs that are accepted, increasing; NaN without any.
    """

    thresholds: np.ndarray
    far: np.ndarray
    tar: np.ndarray

    def tar_at(self, fars: Sequence[float] = FARS) -> np.ndarray:
        """True accept rates at false accept rates.

        Args:
            fars: F rates in [0, 1].

        Returns:
            Float[F], the largest rate whose false accept rate does not exceed the given one: with
            1,000 impostor pairs, 1e-4 stands for none. NaN without genuine or impostor pairs.
        """
        for far in fars:
            if not 0.0 <= far <= 1.0:
                raise ValueError(f"a false accept rate is {far}: give one in [0, 1], e.g. 1e-3.")
        if np.isnan(self.far).any():
            return np.full(len(fars), np.nan)
        # A share of whole pairs and its decimal number may differ in the last bit.
        last = np.searchsorted(self.far, np.asarray(fars) * (1 + 1e-12), side="right") - 1
        return np.asarray(self.tar[last])


def fuse_flips(embeddings: np.ndarray, norms: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Embeddings of images and of their mirror images as one, weighted by their norms.

    Args:
        embeddings: Float[2, N, E] of unit length, of images and of mirror images.
        norms: Float[2, N, 1] before that.

    Returns:
        Float[N, E] of unit length, and the sums' norms Float[N, 1].

    Raises:
        ValueError: shapes do not fit.
    """
    if embeddings.ndim != 3 or len(embeddings) != 2 or norms.shape != (*embeddings.shape[:2], 1):
        raise ValueError(
            f"embeddings {embeddings.shape} and norms {norms.shape}: pass [2, N, E] and [2, N, 1]."
        )
    fused = (embeddings * norms).sum(axis=0)
    lengths = np.linalg.norm(fused, axis=1, keepdims=True)
    return fused / lengths, lengths


def pair_distances(embeddings: np.ndarray, index: PairIndex) -> np.ndarray:
    """Squared distances Float[P] of pairs of unit vectors Float[N, E].

    Raises:
        ValueError: a pair's picture has no row, or a number is not finite.
    """
    if embeddings.ndim != 2:
        raise ValueError(f"embeddings have shape {embeddings.shape}: pass [N, E].")
    index.require(len(embeddings))
    if not np.isfinite(embeddings).all():
        row = int(np.flatnonzero(~np.isfinite(embeddings).all(axis=1))[0])
        raise ValueError(
            f"the embedding of picture {row} is not finite: the network or picture is bad."
        )
    distances = np.empty(len(index), embeddings.dtype)
    for start in range(0, len(index), _TOGETHER):
        some = slice(start, start + _TOGETHER)
        gaps = embeddings[index.first[some]] - embeddings[index.second[some]]
        distances[some] = np.square(gaps).sum(axis=1)
    return distances


def count_below(distances: np.ndarray) -> np.ndarray:
    """How many of some distances Float[P] are below each of `THRESHOLDS`: Int[400]."""
    counts: np.ndarray = np.searchsorted(np.sort(distances), THRESHOLDS)
    return counts


def verify_folds(distances: np.ndarray, same: np.ndarray, folds: int = FOLDS) -> FoldResult:
    """Accuracy of verification over folds.

    Args:
        distances: Float[P], squared distances of the pairs.
        same: Bool[P], whether a pair shows one person.
        folds: number of folds; the first ones get a pair more where P is no multiple of it.

    Raises:
        ValueError: shapes do not fit, or there are fewer pairs than folds.
    """
    check_pairs(distances, same)
    if not 2 <= folds <= len(same):
        raise ValueError(f"{len(same)} pairs in {folds} folds: give at least as many pairs.")
    sizes = np.full(folds, len(same) // folds)
    sizes[: len(same) % folds] += 1
    ends = np.cumsum(sizes)[:-1]
    parts = list(zip(np.split(distances, ends), np.split(same, ends), strict=True))
    accepted = np.stack([count_below(part[truth]) for part, truth in parts])
    wrongly = np.stack([count_below(part[~truth]) for part, truth in parts])
    genuine = np.array([truth.sum() for _, truth in parts])
    impostor = sizes - genuine
    right = accepted + impostor[:, None] - wrongly
    # Shares of equal size are compared by their numbers of pairs, so the first best is exact.
    best = np.argmax(right.sum(axis=0) - right, axis=1)
    return FoldResult(
        accuracies=right[np.arange(folds), best] / sizes,
        thresholds=THRESHOLDS[best],
        tpr=(accepted / np.maximum(genuine, 1)[:, None]).mean(axis=0),
        fpr=(wrongly / np.maximum(impostor, 1)[:, None]).mean(axis=0),
    )


def roc_curve(distances: np.ndarray, same: np.ndarray) -> Roc:
    """The receiver operating characteristic of all pairs together; see `verify_folds`."""
    check_pairs(distances, same)
    order = np.argsort(distances, kind="stable")
    values, sorted_same = distances[order], same[order]
    last = np.flatnonzero(np.append(values[1:] != values[:-1], True))  # equal distances go together
    accepted = np.concatenate([[0], np.cumsum(sorted_same)[last]])
    wrongly = np.concatenate([[0], np.cumsum(~sorted_same)[last]])
    genuine, impostor = int(same.sum()), int((~same).sum())
    nothing = np.full(len(accepted), np.nan)
    return Roc(
        thresholds=np.concatenate([[-np.inf], values[last]]),
        far=wrongly / impostor if impostor else nothing,
        tar=accepted / genuine if genuine else nothing,
    )


def check_pairs(distances: np.ndarray, same: np.ndarray) -> None:
    """Raise ValueError unless there is a finite distance and a truth for each of some pairs."""
    if distances.ndim != 1 or distances.shape != same.shape or not len(same):
        raise ValueError(
            f"distances {distances.shape} and same {same.shape}: pass one of each for every pair."
        )
    if same.dtype != np.bool_:
        raise ValueError(f"same is {same.dtype}: pass booleans, True for pairs of one person.")
    if not np.isfinite(distances).all():
        row = int(np.flatnonzero(~np.isfinite(distances))[0])
        raise ValueError(f"the distance of pair {row} is {distances[row]}: leave it out.")
