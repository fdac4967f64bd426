"""What an archive's settings must be, checked where they come in."""

from __future__ import annotations

import math
import operator
from collections.abc import Mapping
from numbers import Number
from typing import Any, SupportsFloat

import jax
import jax.numpy as jnp
import numpy as np

from qdgs_jax.archive.insertion import MAX_BATCH


def check_thresholds(learning_rate: float, threshold_min: float, qd_score_offset: float) -> None:
    """Refuse settings of the thresholds that cannot anneal.

    Raises:
        ValueError: It names the setting.
    """
    settings = (learning_rate, threshold_min, qd_score_offset)
    if not all(isinstance(value, SupportsFloat) for value in settings):
        raise ValueError(
            f"learning_rate is {learning_rate!r}, threshold_min {threshold_min!r} and "
            f"qd_score_offset {qd_score_offset!r}: each is a number."
        )
    if not 0 <= learning_rate <= 1:
        raise ValueError(f"learning_rate is {learning_rate}: choose a number from 0 to 1.")
    if not threshold_min < math.inf:
        raise ValueError(f"threshold_min is {threshold_min}: choose a number or -inf.")
    if threshold_min == -math.inf and learning_rate != 1:
        raise ValueError(
            f"learning_rate is {learning_rate} but threshold_min is -inf, from where no mixture "
            "leads away: choose a finite threshold_min, or a learning rate of 1."
        )
    if not math.isfinite(qd_score_offset):
        raise ValueError(f"qd_score_offset is {qd_score_offset}: choose a finite number.")


def check_precision(dtype: Any) -> None:
    """Refuse a type that latents cannot be stored in.

    Raises:
        ValueError: Unless it is a floating-point type.
    """
    try:
        floating = jnp.issubdtype(jnp.dtype(dtype), jnp.floating)
    except TypeError:
        floating = False
    if not floating:
        raise ValueError(f"dtype is {dtype!r}: latents are stored in a floating-point type.")


def as_numbers(name: str, values: Any) -> jax.Array:
    """What a caller gave, lists included, as an array of real numbers.

    Raises:
        ValueError: If it is none.
    """
    try:
        if any(isinstance(leaf, str | bytes) for leaf in jax.tree.leaves(values)):
            raise ValueError("JAX reads a text as the name of a type.")
        array = jnp.asarray(values)
    except (TypeError, ValueError):
        raise ValueError(f"{name} is {values!r:.60}: give an array of numbers.") from None
    if jnp.issubdtype(array.dtype, jnp.complexfloating):
        raise ValueError(f"{name} has dtype {array.dtype}: give real numbers.")
    return array


def as_example(genotype: Any) -> Any:
    """What a caller gave as an example of a latent; a list of numbers as an array.

    Raises:
        ValueError: If it is none.
    """
    if isinstance(genotype, list | tuple) and all(isinstance(x, Number) for x in genotype):
        return as_numbers("genotype", genotype)
    try:
        jax.tree.map(jnp.result_type, genotype)
    except TypeError:
        raise ValueError(
            f"genotype is {genotype!r:.60}: give one example latent, such as jnp.zeros(512), or a "
            "pytree of arrays."
        ) from None
    return genotype


def as_rows(genotypes: Any, stored: Any) -> Any:
    """What a caller gave as latents, lists included where a single array is stored.

    Raises:
        ValueError: If they are none.
    """
    if isinstance(stored, jax.Array) and not isinstance(genotypes, Mapping):
        return as_numbers("genotypes", genotypes)
    return genotypes


def as_scores(extra_scores: Any) -> dict[str, Any]:
    """What a caller gave as extra scores.

    Raises:
        ValueError: If it is no mapping.
    """
    if extra_scores is None:
        return {}
    if not isinstance(extra_scores, Mapping):
        raise ValueError(
            f"extra_scores is {extra_scores!r:.60}: give a mapping of names to arrays, such as "
            '{"age": ages}.'
        )
    return dict(extra_scores)


def as_descriptors(values: Any, num_measures: int) -> jax.Array:
    """What a caller gave as descriptors, Float[B, M].

    Raises:
        ValueError: If it is none.
    """
    descriptors = as_numbers("descriptors", values)
    if descriptors.ndim != 2 or descriptors.shape[1] != num_measures:
        raise ValueError(
            f"descriptors has shape {descriptors.shape}: give a row of {num_measures} measures for "
            f"each candidate, [B, {num_measures}]."
        )
    return descriptors


def checked_draws(key: Any, num_samples: Any) -> int:
    """How many elites to draw.

    Raises:
        ValueError: If that is no whole number >= 0, or the key is none.
    """
    if not isinstance(key, jax.Array | np.ndarray):
        raise ValueError(f"key is {key!r:.60}: give jax.random.key(seed), the first argument.")
    try:
        number = operator.index(num_samples)
    except TypeError:
        number = -1
    if number < 0:
        raise ValueError(f"num_samples is {num_samples!r:.60}: give a whole number of at least 0.")
    return number


def check_batch(
    genotypes: Any, descriptors: jax.Array, fitnesses: jax.Array, stored: Any, centroids: jax.Array
) -> None:
    """Refuse candidates whose shapes do not fit each other or the archive.

    Args:
        genotypes: pytree of arrays with leading axis B.
        descriptors: Float[B, M].
        fitnesses: Float[B] or Float[B, 1].
        stored: the archive's genotypes, of the same structure with leading axis C.
        centroids: Float[C, M] of the archive.

    Raises:
        ValueError: It names the shape and the one that is asked for.
    """
    batch = fitnesses.shape[0] if fitnesses.ndim else 0
    if fitnesses.shape not in {(batch,), (batch, 1)} or not 0 < batch <= MAX_BATCH:
        raise ValueError(
            f"fitnesses has shape {fitnesses.shape}: pass one fitness per candidate, shape [B] "
            f"with B from 1 to {MAX_BATCH}."
        )
    wanted = (batch, centroids.shape[1])
    if descriptors.shape != wanted:
        raise ValueError(
            f"descriptors has shape {descriptors.shape} but {batch} fitnesses and an archive "
            f"of {wanted[1]} measures ask for {wanted}."
        )
    rows = jax.tree.map(lambda x: (batch, *x.shape[1:]), stored)
    offered = jax.tree.map(jnp.shape, genotypes)
    if rows != offered:
        raise ValueError(
            f"genotypes has shape {offered} but {batch} fitnesses and the latents of the "
            f"archive ask for {rows}."
        )
