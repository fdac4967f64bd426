"""Pictures are the same, in the same order, however many devices draw them."""

import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from qdgs_jax.domains.batches import in_batches
from qdgs_jax.domains.decoding import BATCH, decoded


class Bright:
    """One pixel per latent, as bright as its first number."""

    params = 2.0

    def pictures(self, params, latents):
        def draw(rows):
            return jnp.round(params * rows[:, :1, None, None]).astype(jnp.uint8)

        return in_batches(draw, latents, 20)


def check(count, devices=None):
    latents = np.arange(count, dtype=np.float32)[:, None] % 100
    found = list(decoded(Bright(), latents, devices))
    assert all(part.dtype == np.uint8 for part in found)
    np.testing.assert_array_equal(np.concatenate(found).ravel(), 2 * latents[:, 0])
    return len(found)


def test_a_processor_is_one_device():
    assert check(2 * BATCH + 1) == 3


def test_few_latents_are_drawn_alone(monkeypatch):
    drawn = []
    monkeypatch.setattr(
        Bright, "pictures", lambda self, params, rows: drawn.append(len(rows)) or rows[:, :1]
    )
    for count in (1, 3, 16, BATCH - 1, BATCH + 1):
        list(decoded(Bright(), np.zeros((count, 1), np.float32)))
    assert drawn == [1, 4, 16, BATCH, BATCH, BATCH]
    assert list(decoded(Bright(), np.zeros((0, 1), np.float32))) == []


@pytest.mark.full  # starts JAX anew
def test_devices_share_the_work():
    """In a process of its own, as the number of devices is fixed when JAX starts."""
    subprocess.run(
        [sys.executable, __file__],
        env={**os.environ, "XLA_FLAGS": "--xla_force_host_platform_device_count=2"},
        check=True,
    )


if __name__ == "__main__":
    assert check(2 * BATCH + 1, jax.local_devices()) == 2
    assert check(3, jax.local_devices()) == 1
    assert len(jax.local_devices()) == 2
