"""Scores of images by text prompts: objective and measures of QDGS.

Distances are geodesic on the unit sphere of CLIP embeddings (Crowson et al. 2022, VQGAN-CLIP). A
prompt pair spans an axis from its positive texts (small values) to its negative ones; one pair with
two optional penalties makes the objective, further pairs make the measures (Chang et al. 2024,
section 4 and the published program).
"""

from __future__ import annotations

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from flax.struct import PyTreeNode

MEMORY_SIZE = 100  # embeddings that the uniqueness memory holds


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


class PromptPair(PyTreeNode):  # type: ignore[no-untyped-call]
    """Embeddings of the texts at both ends of an axis.

    Attributes:
        positive: Float[P, E], P >= 1.
        negative: Float[N, E], N >= 1.
    """

    positive: jax.Array
    negative: jax.Array

    def distance(self, embeds: jax.Array) -> jax.Array:
        """Sum of distances to the positive texts minus that to the negative ones.

        Args:
            embeds: Float[..., E], of any length.

        Returns:
            Float[...], smaller means closer to the positive texts.
        """
        near = geodesic_distance(embeds[..., None, :], self.positive).sum(axis=-1)
        far = geodesic_distance(embeds[..., None, :], self.negative).sum(axis=-1)
        return near - far


class Targets(PyTreeNode):  # type: ignore[no-untyped-call]
    """All prompts of a run, embedded.

    Attributes:
        objective: what good images are near to and far from.
        measures: one pair per measure.
    """

    objective: PromptPair
    measures: tuple[PromptPair, ...]


class Memory(PyTreeNode):  # type: ignore[no-untyped-call]
    """First-in-first-out memory of embeddings of generated images.

    Attributes:
        embeds: Float[MEMORY_SIZE, E].
        written: Int[], embeddings written so far; the last `MEMORY_SIZE` of them are kept.
    """

    embeds: jax.Array
    written: jax.Array

    @classmethod
    def create(cls, embed_dim: int) -> Memory:
        """An empty memory."""
        return cls(jnp.zeros((MEMORY_SIZE, embed_dim)), jnp.zeros((), jnp.int32))

    @classmethod
    def of(cls, embeds: jax.Array) -> Memory:
        """A memory of at most `MEMORY_SIZE` given embeddings, Float[n, E]."""
        kept = jnp.zeros((MEMORY_SIZE, embeds.shape[1])).at[: len(embeds)].set(embeds)
        return cls(kept, jnp.asarray(len(embeds), jnp.int32))

    def uniqueness(self, embeds: jax.Array) -> jax.Array:
        """`100 / |memory|` times the distance to the nearest embedding; 1 for an empty memory.

        Args:
            embeds: Float[B, E].

        Returns:
            Float[B].
        """
        count = jnp.minimum(self.written, MEMORY_SIZE)
        distance = geodesic_distance(embeds[:, None], self.embeds)
        filled = jnp.arange(MEMORY_SIZE) < count
        nearest = jnp.min(jnp.where(filled, distance, jnp.inf), axis=-1)
        return jnp.where(count > 0, 100.0 / jnp.maximum(count, 1) * nearest, 1.0)

    def remember(self, embeds: jax.Array, losses: jax.Array, key: jax.Array) -> Memory:
        """Write one embedding of a batch, drawn among those whose loss is below 1, if any is.

        Args:
            embeds: Float[B, E].
            losses: Float[B].
            key: a key of its own.
        """
        worthy = losses < 1.0
        row = jax.random.categorical(key, jnp.where(worthy, 0.0, -jnp.inf))
        place = self.written % MEMORY_SIZE
        kept = jnp.where(jnp.any(worthy), embeds[row], self.embeds[place])
        written = self.written + jnp.any(worthy)
        return Memory(self.embeds.at[place].set(kept), written.astype(jnp.int32))


def prompt_distances(targets: Targets, embeds: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Distances along the objective's and the measures' axes, averaged over cutouts.

    Args:
        targets: embedded prompts.
        embeds: Float[n, B, E], embeddings of n cutouts.

    Returns:
        Float[B] and Float[B, M].
    """
    objective = targets.objective.distance(embeds).mean(axis=0)
    measures = [pair.distance(embeds).mean(axis=0) for pair in targets.measures]
    return objective, jnp.stack(measures, axis=-1)


def norm_penalty(latents: jax.Array, norm_bound: jax.Array | float) -> jax.Array:
    """`max(|q| - norm_bound, 0)^2` of latents Float[B, D], as Float[B]."""
    squared = jnp.sum(latents**2, axis=-1)
    norm = jnp.sqrt(jnp.maximum(squared, 1e-24))
    return jnp.maximum(norm - norm_bound, 0.0) ** 2


def objective_of_loss(loss: jax.Array) -> jax.Array:
    """The objective on the paper's scale, `10 (10 - 5 loss)`: 100 for a loss of 0."""
    return 10.0 * (10.0 - 5.0 * loss)


def split_prompt(prompt: str) -> Sequence[str]:
    """The texts of one side of a prompt pair, separated by `|`."""
    return tuple(text.strip() for text in prompt.split("|"))
