"""Named streams of random numbers, all from one root.

In JAX `split(key, n)[i]` equals `fold_in(key, i)`: two parts of a program that both start from
`key(seed)` draw the same numbers. Here every part asks for its stream by a name of its own, and the
names' checksums keep the streams apart from each other and from everything that a part derives from
its own key by splitting or by counting. Streams do not depend on devices or on the order of asking.
"""

from __future__ import annotations

import zlib

import jax
import numpy as np


def root(seed: int) -> jax.Array:
    """Root key of a run, from its seed in [0, 2^31)."""
    return jax.random.key(seed)


def stream(key: jax.Array, name: str) -> jax.Array:
    """Key of the stream `name` below a key; the checksum of the name is folded into it.

    Args:
        key: a root, or another stream.
        name: what the numbers are for, for example "search/start". Within a program each name is
            asked for in one place.
    """
    return jax.random.fold_in(key, np.uint32(zlib.crc32(name.encode())))


def numpy_stream(seed: int, name: str) -> np.random.Generator:
    """A generator of NumPy's for work on the host, apart from all others of the same seed."""
    return np.random.default_rng([zlib.crc32(name.encode()), seed])
