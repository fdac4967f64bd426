"""Latents become pictures on the host, in batches of one size, so that one program serves all."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from qdgs_jax.domains.protocol import Domain

BATCH = 50  # latents decoded or scored together


def decoded(domain: Domain[Any], latents: np.ndarray) -> Iterator[np.ndarray]:
    """Decode latents Float[N, D] to pictures UInt8[B, H, W, 3], batch by batch."""
    for batch, count in batches(latents):
        yield np.asarray(domain.pictures(domain.params, batch))[:count]


def batches(latents: np.ndarray) -> Iterator[tuple[jax.Array, int]]:
    """Cut latents into batches of one size, the last one filled up; and how many of each count."""
    for start in range(0, len(latents), BATCH):
        part = latents[start : start + BATCH]
        yield jnp.asarray(np.pad(part, ((0, BATCH - len(part)), (0, 0)))), len(part)
