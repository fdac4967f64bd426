"""Augmentation against plain definitions."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from qdgs_jax.train.faces.augment import (
    augment,
    change_colours,
    draw_changes,
    keep_box,
    lower_resolution,
)
from qdgs_jax.train.faces.recipe import AugmentationTable

SIZE = 12
ALWAYS = AugmentationTable(flip=1.0, crop=1.0, low_resolution=1.0, colour=1.0)
augmented = jax.jit(augment, static_argnames="table")
drawn = jax.jit(draw_changes, static_argnums=(1, 2, 3))
lowered, recoloured = jax.jit(lower_resolution), jax.jit(change_colours)


@pytest.fixture(scope="module")
def image() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (SIZE, SIZE, 3)).astype(np.float32)


def test_a_crop_keeps_its_place_and_the_rest_is_black(image):
    wanted = np.zeros_like(image)
    wanted[2:7, 5:12] = image[2:7, 5:12]
    np.testing.assert_array_equal(keep_box(image, jnp.array([2, 5, 5, 7])), wanted)


def resized(image: np.ndarray, side: int, area: bool, linear: bool) -> np.ndarray:
    """Shrink and enlarge, pixel by pixel in float64."""
    size = len(image)

    def shrunk(line: np.ndarray, at: int) -> np.ndarray:
        if not area:
            return line[at * size // side]
        total = np.zeros(line.shape[1:])
        for pixel in range(size):
            overlap = min((at + 1) * size / side, pixel + 1) - max(at * size / side, pixel)
            total += max(0.0, overlap) * line[pixel]
        return total * side / size

    def enlarged(line: np.ndarray, at: int) -> np.ndarray:
        if not linear:
            return line[at * side // size]
        place = min(max((at + 0.5) * side / size - 0.5, 0.0), side - 1.0)
        low = int(place)
        return (1 - place + low) * line[low] + (place - low) * line[min(low + 1, side - 1)]

    for _ in range(2):
        small = np.stack([shrunk(image.astype(np.float64), at) for at in range(side)])
        image = np.stack([enlarged(small, at) for at in range(size)]).swapaxes(0, 1)
    return image


@pytest.mark.parametrize("soft", [(False, False), (False, True), (True, False), (True, True)])
def test_low_resolution_shrinks_and_enlarges(image, soft):
    for side in (1, 3, 5, 8, SIZE):
        found = lowered(image, side, jnp.array(soft))
        np.testing.assert_allclose(found, resized(image, side, *soft), atol=1e-3)


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 0, 1), (1, 2, 0)])
def test_colours_are_blended_in_order(image, order):
    factors = (1.4, 0.6, 1.3)
    wanted = image.astype(np.float64)
    for which in order:
        grey = (wanted @ np.array([0.299, 0.587, 0.114]))[..., None]
        other = (0.0, grey.mean(), grey)[which]
        wanted = np.clip(wanted * factors[which] + other * (1 - factors[which]), 0, 255)
    found = recoloured(image, jnp.array(factors), jnp.array(order))
    np.testing.assert_allclose(found, wanted, atol=1e-3)


def test_draws_are_in_their_ranges_and_as_often_as_asked():
    table = AugmentationTable(flip=0.5, crop=0.2, low_resolution=0.3, colour=0.1)
    found = drawn(jax.random.key(0), 20_000, SIZE, table)
    for name, share in table.model_dump().items():
        assert getattr(found, name).mean() == pytest.approx(share, abs=0.015)
    starts, sides = np.split(np.asarray(found.box), 2, axis=1)
    assert starts.min() == 0
    assert sides.min() >= 1
    assert (starts + sides).max() == SIZE
    shares = sides.prod(axis=1) / SIZE**2
    assert 0.15 < shares.min() < 0.25
    assert shares.max() > 0.9
    assert (found.side.min(), found.side.max()) == (2, SIZE - 1)
    assert 0.5 <= found.factors.min() < 0.51
    assert 1.49 < found.factors.max() <= 1.5
    assert len(np.unique(np.asarray(found.order), axis=0)) == 6
    draws = [
        found.flip,
        found.crop,
        found.low_resolution,
        found.colour,
        found.side,
        found.box[:, 0],
    ]
    together = np.corrcoef(np.stack([np.asarray(each, np.float64) for each in draws]))
    assert np.abs(together - np.eye(len(draws))).max() < 0.03  # no number is used twice


def test_pictures_are_augmented_in_order_and_one_by_one(image):
    batch = np.stack([image, 255 - image]).astype(np.uint8)
    key = jax.random.key(3)
    changes = drawn(key, 2, SIZE, ALWAYS)
    found = augmented(batch, key, ALWAYS)
    for row in range(2):
        wanted = keep_box(jnp.asarray(batch[row, :, ::-1], jnp.float32), changes.box[row])
        wanted = lowered(wanted, changes.side[row], changes.soft[row])
        wanted = recoloured(wanted, changes.factors[row], changes.order[row])
        np.testing.assert_allclose(found[row], wanted, atol=1e-3)
    never = AugmentationTable(flip=0.0, crop=0.0, low_resolution=0.0, colour=0.0)
    np.testing.assert_array_equal(augmented(batch, key, never), batch)


def test_any_number_of_devices_draws_the_same(image):
    batch = np.stack([image] * 8).astype(np.uint8)
    mesh = Mesh(np.array(jax.devices()), "data")
    spread = jax.device_put(batch, NamedSharding(mesh, P("data")))
    one = augmented(jnp.asarray(batch), jax.random.key(0), ALWAYS)
    np.testing.assert_allclose(augmented(spread, jax.random.key(0), ALWAYS), one, atol=1e-3)
    assert len(np.unique(np.asarray(one).reshape(8, -1), axis=0)) == 8
