"""How far a measure moves over what the generator draws."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, NamedTuple, TypeVar

import jax
import numpy as np

from qdgs_jax import keys
from qdgs_jax.domains.batches import in_batches

if TYPE_CHECKING:
    from qdgs_jax.domains.protocol import Domain

W = TypeVar("W")

SAMPLES = 256
TOGETHER = 16


class MeasureSpread(NamedTuple):
    low: float
    high: float
    std: float


def measure_spread(domain: Domain[W], params: W, key: jax.Array) -> tuple[MeasureSpread, ...]:
    measures = np.asarray(_sampled(domain, params, key))
    low, high = np.quantile(measures, (0.05, 0.95), axis=0)
    return tuple(map(MeasureSpread, low.tolist(), high.tolist(), measures.std(axis=0).tolist()))


@functools.partial(jax.jit, static_argnums=0)
def _sampled(domain: Domain[W], params: W, key: jax.Array) -> jax.Array:
    latents = domain.sample(params, keys.stream(key, "latents"), SAMPLES)
    cutouts = keys.stream(key, "cutouts")
    state = domain.init_state()

    def measure(latents: jax.Array) -> jax.Array:
        return domain.evaluate(params, state, latents, cutouts).descriptors

    return in_batches(measure, latents, TOGETHER)
