"""Subjects: latents of a class that lie near each other count as one person.

Inside each class, k-means groups latents into as many clusters as there would be subjects of the
wanted size (Chang et al. 2024, section 5.2: ceil(n / 2) of n). Clusters differ in size: two is the
mean, and a latent far from all others is a subject alone.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from qdgs_jax import keys
from qdgs_jax.datasets.selection import Labelled
from qdgs_jax.kmeans import cluster

Tell = Callable[[str], None]


@dataclasses.dataclass(frozen=True)
class Grouping:
    """How latents become subjects.

    Attributes:
        size: latents of a subject, on average.
        restarts: clusterings of each class, of which the tightest is taken.
        iterations: most rounds of each.
    """

    size: int = 2
    restarts: int = 10
    iterations: int = 2000


def group_subjects(
    rows: Labelled,
    grouping: Grouping,
    key: jax.Array,
    *,
    names: Sequence[str] = (),
    tell: Tell = lambda text: None,
) -> Labelled:
    """Give rows of one person the same subject, and put them one after the other.

    Subjects are counted from 0 in the order of their first rows, over all classes, so that the
    first of them are as balanced as the rows were.

    Args:
        rows: N rows with latents.
        grouping: sizes and effort.
        key: seeds the clusterings.
        names: of the classes, for what is told.
        tell: told of each round.

    Returns:
        The same rows in another order, with subjects.
    """
    clusters = np.zeros(len(rows), np.int64)
    used = 0
    for label in np.unique(rows.labels).tolist():
        members = np.flatnonzero(rows.labels == label)
        wanted = -(-len(members) // grouping.size)
        called = repr(names[label]) if names else f"class {label}"
        found = _clusters(
            rows.elites.latents,
            members,
            wanted,
            grouping,
            keys.stream(key, f"class {label}"),
            lambda text, called=called: tell(f"subjects of {called}: {text}"),
        )
        clusters[members] = used + found
        used += wanted
    _, first, inverse = np.unique(clusters, return_index=True, return_inverse=True)
    number = np.empty(len(first), np.int32)
    number[np.argsort(first, kind="stable")] = np.arange(len(first), dtype=np.int32)
    subjects = number[inverse]
    order = np.argsort(subjects, kind="stable")
    return dataclasses.replace(rows.take(order), subjects=subjects[order])


def _clusters(
    latents: np.ndarray,
    members: np.ndarray,
    wanted: int,
    grouping: Grouping,
    key: jax.Array,
    tell: Tell,
) -> np.ndarray:
    """The cluster Int[n] of each of some latents."""
    if wanted == 1:
        return np.zeros(len(members), np.int32)
    if wanted == len(members):
        return np.arange(len(members), dtype=np.int32)

    def told(restart: int, number: int, inertia: float) -> None:
        tell(
            f"{len(members):,} latents, {wanted:,} subjects, clustering {restart} of "
            f"{grouping.restarts}, round {number}, mean square {inertia / len(members):.4g}"
        )

    return cluster(
        jnp.asarray(latents[members]),
        wanted,
        key,
        restarts=grouping.restarts,
        iterations=grouping.iterations,
        told=told,
    ).labels
