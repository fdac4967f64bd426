"""Memory of what a search has generated, for the reward of images unlike those before.

A first-in, first-out list of embeddings, as in the published QDGS program (Chang et al. 2024); its
size and the rule of what enters are those of that program.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax.struct import PyTreeNode

from qdgs_jax.domains.scoring import geodesic_distance

MEMORY_SIZE = 100  # embeddings that are kept
WORTHY_LOSS = 1.0  # an embedding enters if its loss is below this


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
        """Write one embedding of a batch, drawn among the worthy ones, if there are any.

        Args:
            embeds: Float[B, E].
            losses: Float[B]; an embedding is worthy if its loss is below `WORTHY_LOSS`.
            key: a key of its own.
        """
        worthy = losses < WORTHY_LOSS
        row = jax.random.categorical(key, jnp.where(worthy, 0.0, -jnp.inf))
        place = self.written % MEMORY_SIZE
        kept = jnp.where(jnp.any(worthy), embeds[row], self.embeds[place])
        written = self.written + jnp.any(worthy)
        return Memory(self.embeds.at[place].set(kept), written.astype(jnp.int32))
