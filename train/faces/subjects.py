"""Are generated subjects people? How well an embedding tells pictures of one from those of others.

A network that learnt from drawn people, and saw no generated one, embeds all pictures of a data
set. The area under the ROC curve is the chance that two pictures of one subject lie nearer to each
other than two pictures of different subjects: 1 where subjects are as distinct as people, 0.5 where
subjects are nothing but names.
"""

from __future__ import annotations

import dataclasses

import numpy as np
from scipy.stats import rankdata

from qdgs_jax import keys

MOST_PAIRS = 2_000_000  # of different subjects that are compared; more are drawn from


@dataclasses.dataclass(frozen=True)
class SubjectAuc:
    """How distinct the subjects of a data set are.

    Attributes:
        subjects: how many.
        images: of them.
        all_pairs: AUC of all pairs of one subject against pairs of two; NaN without either.
        other_latents: likewise, of pairs of one subject that show different latents alone, which
            are no small variations of one picture.
        shuffled: of all pairs again, after subjects were dealt out at random: 0.5 but for chance.
    """

    subjects: int
    images: int
    all_pairs: float
    other_latents: float
    shuffled: float


def auc(near: np.ndarray, far: np.ndarray) -> float:
    """Chance that a number of `near` Float[N] is below one of `far` Float[M]; equals count half.

    NaN where one of them is empty.
    """
    if not len(near) or not len(far):
        return float("nan")
    ranks = rankdata(np.concatenate([near, far]))
    below = ranks[: len(near)].sum() - len(near) * (len(near) + 1) / 2
    return float(1.0 - below / (len(near) * len(far)))


def subject_auc(
    embeddings: np.ndarray, subjects: np.ndarray, latents: np.ndarray, seed: int = 0
) -> SubjectAuc:
    """Measure how distinct subjects are.

    Args:
        embeddings: Float[N, E] of unit length.
        subjects: Int[N], the subject of each picture.
        latents: Int[N], the latent that each shows under some augmentation.
        seed: of the pairs of different subjects that are drawn, and of the shuffling.

    Raises:
        ValueError: lengths differ.
    """
    if not len(embeddings) == len(subjects) == len(latents):
        raise ValueError(
            f"{len(embeddings)} embeddings, {len(subjects)} subjects and {len(latents)} latents: "
            "pass one of each for every picture."
        )
    rng = keys.numpy_stream(seed, "recognition/subjects")
    first, second = _within(subjects)
    one = _distances(embeddings, first, second)
    two = _distances(embeddings, *_between(rng, subjects))
    # Who belongs together is drawn anew, with as many pictures to each subject.
    dealt = rng.permutation(subjects)
    nobody = _distances(embeddings, *_within(dealt))
    others = _distances(embeddings, *_between(rng, dealt))
    return SubjectAuc(
        subjects=len(np.unique(subjects)),
        images=len(subjects),
        all_pairs=auc(one, two),
        other_latents=auc(one[latents[first] != latents[second]], two),
        shuffled=auc(nobody, others),
    )


def _within(subjects: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """All pairs of pictures of one subject."""
    order = np.argsort(subjects, kind="stable")
    parts = np.split(order, np.flatnonzero(np.diff(subjects[order])) + 1)
    found = [part[np.stack(np.triu_indices(len(part), 1))] for part in parts]
    first, second = np.concatenate(found, axis=1)
    return first, second


def _between(rng: np.random.Generator, subjects: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Pairs of pictures of different subjects: all, or as many as are compared at most."""
    count = len(subjects)
    if count * (count - 1) // 2 <= MOST_PAIRS:
        first, second = np.triu_indices(count, 1)
    else:
        first, second = rng.integers(count, size=(2, MOST_PAIRS))
    apart = subjects[first] != subjects[second]
    return first[apart], second[apart]


def _distances(embeddings: np.ndarray, first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Squared distances Float[P] of unit vectors, some pairs at a time."""
    found = np.zeros(len(first), np.float32)
    for start in range(0, len(first), 2**16):
        part = slice(start, start + 2**16)
        found[part] = 2.0 - 2.0 * np.einsum(
            "pe,pe->p", embeddings[first[part]], embeddings[second[part]]
        )
    return found
