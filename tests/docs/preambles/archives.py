"""Imports and a problem of eight measures."""

# ruff: noqa: F401
import jax
import jax.numpy as jnp
import numpy as np

from qdgs_jax import CVTArchive, Elites, FunctionProblem, GridArchive, Search
from qdgs_jax.archive import cvt_centroids
from qdgs_jax.emitters import GaussianEmitter


def function(latents):
    return -jnp.sum(latents**2, axis=-1), jax.nn.sigmoid(latents[:, :8])


emitter = GaussianEmitter(batch=16, sigma=0.5)
latents = jax.random.normal(jax.random.key(0), (20, 512))
measures, objectives = 0.05 * latents[:, :2], -jnp.sum(latents**2, axis=-1)
