"""A problem in QDax's form, whose driver the page shows."""

# ruff: noqa: F401
import functools

import jax
import jax.numpy as jnp
from qdax.core.map_elites import MAPElites

from qdgs_jax import GradientArborescenceEmitter, GridArchive


def scoring_function(latents, key):
    return -jnp.sum(latents**2, axis=-1), latents[:, :2], {}


def jacobian(latents):
    def outputs(latent):
        return jnp.concatenate([-jnp.sum(latent**2)[None], latent[:2]])

    return jax.vmap(outputs)(latents), jax.vmap(jax.jacrev(outputs))(latents)


def metrics(repertoire):
    return {"best": jnp.max(repertoire.fitnesses)}


genotypes = jnp.zeros((1, 10))
key = jax.random.key(0)
