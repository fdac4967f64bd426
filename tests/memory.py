"""A limit on the memory that a block of code may take."""

import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def at_most(limit: int) -> Iterator[None]:
    """Fail if Python and NumPy allocate more than `limit` bytes at a time inside the block."""
    tracemalloc.start()
    try:
        yield
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak <= limit, f"{peak / 2**20:.0f} MB were allocated, not {limit / 2**20:.0f}"
