"""Latents become pictures, on every accelerator of the process at once.

Each device has a copy of the weights and draws its share of a batch by the same program. The cores
of a processor are one device here: they share the work of a batch anyway, and copies of the weights
would only take memory.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from qdgs_jax.domains.protocol import Domain

BATCH = 50  # latents decoded or scored together, on each device


def decoded(
    domain: Domain[Any], latents: np.ndarray, devices: Sequence[jax.Device] | None = None
) -> Iterator[np.ndarray]:
    """Decode latents Float[N, D] to pictures UInt8[B, H, W, 3], batch by batch, in their order.

    Args:
        domain: its `pictures` draws on each device, and rounds there.
        latents: on the host.
        devices: where to decode; None for all accelerators of this process, or its processor.
    """
    devices = devices or _devices()
    if len(devices) == 1:
        for batch, count in batches(latents):
            yield np.asarray(domain.pictures(domain.params, batch))[:count]
        return
    mesh = Mesh(np.asarray(devices), ("images",))
    copies, shares = P(), P("images")  # type: ignore[no-untyped-call]
    params = jax.device_put(domain.params, NamedSharding(mesh, copies))
    for batch, count in batches(latents, BATCH * len(devices)):
        spread = jax.device_put(batch, NamedSharding(mesh, shares))
        yield np.asarray(_on_each(domain, mesh, params, spread))[:count]


@functools.partial(jax.jit, static_argnums=(0, 1))
def _on_each(domain: Domain[Any], mesh: Mesh, params: Any, latents: jax.Array) -> jax.Array:
    """Pictures of latents Float[B, D], of which each device of the mesh has an equal share."""
    copies, shares = P(), P("images")  # type: ignore[no-untyped-call]
    draw = jax.shard_map(
        domain.pictures,
        mesh=mesh,
        in_specs=(copies, shares),
        out_specs=shares,
        check_vma=False,  # loops within begin with constants, the same on all devices
    )
    pictures: jax.Array = draw(params, latents)
    return pictures


def _devices() -> list[jax.Device]:
    found = jax.local_devices()
    return found[:1] if found[0].platform == "cpu" else found


def batches(latents: np.ndarray, size: int = BATCH) -> Iterator[tuple[jax.Array, int]]:
    """Cut latents into batches of one size, the last one filled up; and how many of each count."""
    for start in range(0, len(latents), size):
        part = latents[start : start + size]
        yield jnp.asarray(np.pad(part, ((0, size - len(part)), (0, 0)))), len(part)
