"""Scores of images by text prompts: objective and measures of QDGS.

Distances are geodesic on the unit sphere of CLIP embeddings (Crowson et al. 2022, VQGAN-CLIP). A
prompt pair spans an axis from its positive texts (small values) to its negative ones; one pair with
two optional penalties makes the objective, further pairs make the measures (Chang et al. 2024,
section 4 and the published program).
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax.struct import PyTreeNode


def normalize(x: jax.Array) -> jax.Array:
    """Scale vectors along the last axis to unit length; zero stays zero, with a finite gradient."""
    squared = jnp.sum(x**2, axis=-1, keepdims=True)
    return x * jax.lax.rsqrt(jnp.maximum(squared, 1e-24))


def geodesic_distance(x: jax.Array, y: jax.Array) -> jax.Array:
    """Angle between vectors along the last axis, `2 asin(|x - y| / 2)` of the normalised ones.

    Returns:
        Float[...] in [0, pi], broadcast over leading axes. At identical and at opposite vectors,
        where the angle has no derivative, the gradient is zero.
    """
    squared = jnp.sum((normalize(x) - normalize(y)) ** 2, axis=-1)
    apart = squared > 1e-14
    half_chord = 0.5 * jnp.sqrt(jnp.where(apart, squared, 1.0))
    opposite = half_chord >= 1.0
    angle = 2.0 * jnp.arcsin(jnp.where(opposite, 0.5, half_chord))
    return jnp.where(apart, jnp.where(opposite, jnp.pi, angle), 0.0)


class PromptAxis(PyTreeNode):  # type: ignore[no-untyped-call]
    """Embeddings of the texts at both ends of an axis.

    Attributes:
        positive: Float[P, E], P >= 1.
        negative: Float[N, E], N >= 1.
    """

    positive: jax.Array
    negative: jax.Array

    def sides(self, embeds: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Mean distances to the positive and to the negative texts.

        Args:
            embeds: Float[..., E], of any length.

        Returns:
            Two of Float[...], in [0, pi].
        """
        near = geodesic_distance(embeds[..., None, :], self.positive).mean(axis=-1)
        far = geodesic_distance(embeds[..., None, :], self.negative).mean(axis=-1)
        return near, far

    def distance(self, embeds: jax.Array) -> jax.Array:
        """Mean distance to the positive texts minus that to the negative ones.

        The published program sums instead, so that two texts on one side and one on the other shift
        an axis by more than its whole range. With one text a side both are the same.

        Args:
            embeds: Float[..., E], of any length.

        Returns:
            Float[...], smaller means closer to the positive texts.
        """
        near, far = self.sides(embeds)
        return near - far


class Targets(PyTreeNode):  # type: ignore[no-untyped-call]
    """All prompts of a run, embedded.

    Attributes:
        objective: what good images are near to and far from.
        measures: one axis per measure.
    """

    objective: PromptAxis
    measures: tuple[PromptAxis, ...]


@jax.named_scope("scoring")
def prompt_distances(targets: Targets, embeds: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Distances along the objective's and the measures' axes, averaged over cutouts.

    Args:
        targets: embedded prompts.
        embeds: Float[n, B, E], embeddings of n cutouts.

    Returns:
        Float[B] and Float[B, M].
    """
    objective = targets.objective.distance(embeds).mean(axis=0)
    measures = [axis.distance(embeds).mean(axis=0) for axis in targets.measures]
    return objective, jnp.stack(measures, axis=-1)


def norm_penalty(latents: jax.Array, norm_bound: jax.Array | float) -> jax.Array:
    """`max(|q| - norm_bound, 0)^2` of latents Float[B, D], as Float[B]."""
    squared = jnp.sum(latents**2, axis=-1)
    norm = jnp.sqrt(jnp.maximum(squared, 1e-24))
    return jnp.maximum(norm - norm_bound, 0.0) ** 2


def objective_of_loss(loss: jax.Array) -> jax.Array:
    """The objective on the paper's scale, `10 (10 - 5 loss)`: 100 for a loss of 0."""
    return 10.0 * (10.0 - 5.0 * loss)
