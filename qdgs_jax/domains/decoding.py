"""Latents become pictures, on every accelerator of the process at once.

Each device has a copy of the weights and draws its share of a batch by the same program. The cores
of a processor are one device here: they share the work of a batch anyway, and copies of the weights
would only take memory.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from qdgs_jax.domains.protocol import Domain

BATCH = 50  # latents decoded or scored together, on each device


class Latents(Protocol):
    """Latents that are asked for in slices: an array, or what makes or reads its rows then."""

    def __len__(self) -> int: ...

    def __getitem__(self, rows: slice, /) -> np.ndarray: ...


def decoded(
    domain: Domain[Any],
    latents: Latents,
    devices: Sequence[jax.Device] | None = None,
    *,
    start: int = 0,
    fit: Callable[[jax.Array], jax.Array] = lambda pictures: pictures,
) -> Iterator[np.ndarray]:
    """Decode latents Float[N, D] to pictures UInt8[B, H, W, 3], batch by batch, in their order.

    Args:
        domain: its `pictures` draws on each device, and rounds there.
        latents: on the host.
        devices: where to decode; None for all accelerators of this process, or its processor.
        start: the first row to decode. Batches are cut as from row 0 on, so that pictures are
            those of a whole run to the bit.
        fit: what becomes of pictures on the device before they leave it.
    """
    devices = devices or _devices()
    size = batch_size(len(latents), len(devices)) * len(devices)
    first = start // size * size
    params, draw = domain.params, domain.pictures
    place: Any = None
    if len(devices) > 1:
        mesh = Mesh(np.asarray(devices), ("images",))
        copies, shares = P(), P("images")  # type: ignore[no-untyped-call]
        params = jax.device_put(params, NamedSharding(mesh, copies))
        draw = functools.partial(on_each, domain, mesh)
        place = NamedSharding(mesh, shares)
    for batch, count in batches(latents, size, first):
        skipped = max(0, start - first)
        first += size
        pictures = fit(draw(params, jax.device_put(batch, place)))
        yield np.asarray(pictures)[skipped:count]


@functools.partial(jax.jit, static_argnums=(0, 1))
def on_each(domain: Domain[Any], mesh: Mesh, params: Any, latents: jax.Array) -> jax.Array:
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


def batch_size(count: int, devices: int = 1) -> int:
    """Latents of a batch, on each device: few are filled up to a power of two, not to a batch.

    Sizes are few, as each is a program to compile.
    """
    share = max(1, -(-count // devices))
    return int(min(BATCH, 1 << (share - 1).bit_length()))


def batches(latents: Latents, size: int = BATCH, first: int = 0) -> Iterator[tuple[jax.Array, int]]:
    """Cut latents into batches of one size, the last one filled up; and how many of each count.

    Args:
        latents: on the host.
        size: of a batch.
        first: row that the first batch begins with.
    """
    for start in range(first, len(latents), size):
        part = latents[start : start + size]
        yield jnp.asarray(np.pad(part, ((0, size - len(part)), (0, 0)))), len(part)
