"""Latents to start a search from: the best of many samples (Chang et al. 2024, section 4)."""

from __future__ import annotations

import dataclasses
import functools
from typing import TYPE_CHECKING, TypeVar

import jax
import jax.numpy as jnp

if TYPE_CHECKING:
    from qdgs_jax.domains.protocol import Domain

W = TypeVar("W")


@dataclasses.dataclass(frozen=True)
class StartSettings:
    """How much is sampled, and how much of it is kept.

    Attributes:
        batches: batches of samples.
        batch_size: latents per batch.
        count: latents to keep.
    """

    batches: int = 32
    batch_size: int = 16
    count: int = 8


def find_start(domain: Domain[W], params: W, key: jax.Array, settings: StartSettings) -> jax.Array:
    """The best of `batches x batch_size` samples, Float[count, D]; the best one first.

    The best latents of each batch compete, as many of each as are needed to make up `count`.

    Raises:
        ValueError: if more latents are wanted than are sampled.
    """
    samples = settings.batches * settings.batch_size
    if settings.count > samples:
        raise ValueError(
            f"search.emitters = {settings.count}, but start latents are looked for among "
            f"start_batches x start_batch_size = {settings.batches} x {settings.batch_size} = "
            f"{samples} samples: give fewer emitters, or more samples."
        )
    return _search(domain, settings, params, key)


@functools.partial(jax.jit, static_argnums=(0, 1))
def _search(domain: Domain[W], settings: StartSettings, params: W, key: jax.Array) -> jax.Array:
    state = domain.init_state()
    kept = min(settings.batch_size, -(-settings.count // settings.batches))

    def batch(key: jax.Array) -> tuple[jax.Array, jax.Array]:
        sample_key, score_key = jax.random.split(key)
        latents = domain.sample(params, sample_key, settings.batch_size)
        fitnesses = domain.evaluate(params, state, latents, score_key).fitnesses
        fitnesses = jnp.where(jnp.isfinite(fitnesses), fitnesses, -jnp.inf)
        values, rows = jax.lax.top_k(fitnesses, kept)
        return values, latents[rows]

    values, latents = jax.lax.map(batch, jax.random.split(key, settings.batches))
    _, rows = jax.lax.top_k(values.reshape(-1), settings.count)
    return latents.reshape(-1, domain.latent_dim)[rows]
