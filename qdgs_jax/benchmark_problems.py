"""Benchmark domains of the quality-diversity literature: linear projection and the planar arm.

Linear projection (Fontaine et al. 2020, arXiv:1912.02400) squeezes the measures of random points
towards the middle of the grid, so that an algorithm has to work for the edges; the objective is a
sphere, Rastrigin's function or a plateau. The arm repertoire (Cully et al. 2015; here with the
objective of Vassiliades & Mouret 2018) reaches points of a disc with evenly bent joints.
Normalisation and archive follow Fontaine & Nikolaidis 2022 (arXiv:2205.10752): objectives up to
100, QD-score divided by the number of cells.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable

import jax
import jax.numpy as jnp

from qdgs_jax.problem import FunctionProblem

BOUND = 5.12  # of the components that count fully
SHIFT = 0.4 * BOUND  # where the sphere and Rastrigin's function are best
PROBLEMS = ("sphere", "rastrigin", "plateau", "arm")


@dataclasses.dataclass(frozen=True)
class Benchmark:
    """A problem and the archive its scores are quoted for.

    Attributes:
        problem: What a `Search` takes.
        ranges: (low, high) per measure.
        sigma0: Step size of the literature for latents.
        sigma_gradient: Step size of the literature for coefficients of normalised gradients.
    """

    problem: FunctionProblem
    ranges: tuple[tuple[float, float], ...]
    sigma0: float
    sigma_gradient: float


def load_benchmark(name: str, dim: int) -> Benchmark:
    """Build a benchmark.

    Args:
        name: One of `PROBLEMS`.
        dim: Length n of a latent, even for linear projections.

    Raises:
        ValueError: If there is no such problem, or `dim` does not suit it.
    """
    if name == "arm":
        if dim < 1:
            raise ValueError(f"dim is {dim}: give at least 1 joint.")
        return Benchmark(FunctionProblem(arm, dim, 2), ((-dim, dim),) * 2, 0.1, 0.05)
    if name not in PROBLEMS:
        raise ValueError(f"unknown problem {name!r}: known are {', '.join(PROBLEMS)}.")
    if dim < 2 or dim % 2:
        raise ValueError(f"dim is {dim}: a linear projection needs an even number of components.")
    objective = {"sphere": sphere, "rastrigin": rastrigin, "plateau": plateau}[name]
    reach = dim / 2 * BOUND
    problem = FunctionProblem(_projected(objective), dim, 2)
    return Benchmark(problem, ((-reach, reach),) * 2, 0.5, 10.0)


def sphere(x: jax.Array) -> jax.Array:
    """Objective Float[B] of latents Float[B, n]: 100 at 2.048 everywhere, 0 at -5.12 everywhere."""
    return 100 * (1 - ((x - SHIFT) ** 2).mean(-1) / (BOUND + SHIFT) ** 2)


def rastrigin(x: jax.Array) -> jax.Array:
    """Sphere with ripples: 100 at 2.048 everywhere, 0 at -5.12 everywhere."""
    worst = (BOUND + SHIFT) ** 2 + 10 * (1 - math.cos(2 * math.pi * (BOUND + SHIFT)))
    d = x - SHIFT
    raw = (d**2 + 10 * (1 - jnp.cos(2 * jnp.pi * d))).mean(-1)
    return 100 * (1 - raw / worst)


def plateau(x: jax.Array) -> jax.Array:
    """100 inside the bounds; outside, less by the mean squared distance to them."""
    return 100 - (jnp.maximum(jnp.abs(x) - BOUND, 0) ** 2).mean(-1)


def projection(x: jax.Array) -> jax.Array:
    """Measures Float[B, 2]: sums of the halves, components beyond the bounds folded back."""
    outside = jnp.abs(x) > BOUND
    # The divisor is made harmless inside too, where its gradient would be 0 times infinity.
    folded = jnp.where(outside, BOUND / jnp.where(outside, x, 1.0), x)
    return folded.reshape(x.shape[0], 2, -1).sum(-1)


def _projected(
    objective: Callable[[jax.Array], jax.Array],
) -> Callable[[jax.Array], tuple[jax.Array, jax.Array]]:
    def evaluate(x: jax.Array) -> tuple[jax.Array, jax.Array]:
        return objective(x), projection(x)

    return evaluate


def arm(angles: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Objective 100 (1 - variance of the angles) and the tip of an arm with links of length 1.

    Args:
        angles: Float[B, n], each relative to the link before.
    """
    heading = jnp.cumsum(angles, axis=-1)
    tip = jnp.stack([jnp.cos(heading).sum(-1), jnp.sin(heading).sum(-1)], axis=-1)
    return 100 * (1 - angles.var(-1)), tip
