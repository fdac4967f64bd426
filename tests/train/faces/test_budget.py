"""What a training costs, counted from shapes alone."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import pytest
from flax import nnx

from qdgs_jax.models.iresnet import IResNet, IResNetConfig
from qdgs_jax.train.faces.budget import DEVICES, TrainingCost, hours, training_cost

SMALL = IResNetConfig(10, input_size=16, embed_dim=8, widths=(4, 4, 8, 8))


@pytest.fixture(scope="module")
def cost() -> TrainingCost:
    return training_cost(SMALL, 100, dtype=jnp.float32)


def test_numbers_are_those_of_the_network_and_head(cost: TrainingCost) -> None:
    network = IResNet(SMALL, rngs=nnx.Rngs(0))
    assert cost.parameters == sum(leaf.size for leaf in jax.tree.leaves(nnx.state(network)))
    assert cost.head == 8 * 100
    assert cost.model == 4 * cost.parameters
    assert cost.checkpoint == 8 * (cost.parameters + 800)
    held = 12 * (cost.parameters + 800)
    assert cost.memory(64) - held == 64 * cost.activations
    # At least the input of every convolution is kept: 16 x 16 pixels of 4 channels, thrice.
    assert cost.activations > 3 * 4 * 16 * 16 * 4


def test_learning_costs_about_thrice_an_embedding_and_more_with_more_people(
    cost: TrainingCost,
) -> None:
    assert 2.5 < cost.train_flop / cost.embed_flop < 4.5
    wide = dataclasses.replace(SMALL, embed_dim=256)
    few, many = (training_cost(wide, people, dtype=jnp.float32) for people in (100, 1100))
    assert many.embed_flop == few.embed_flop
    # A product of 256 numbers with each class, forward and twice backward; and centres of classes
    # are scaled to unit length, which is counted for a batch of two.
    assert 1.0 < (many.train_flop - few.train_flop) / (3 * 2 * 256 * 1000) < 2.0


def test_hours_of_a_device_at_a_share_of_its_peak() -> None:
    found = hours(3.6e18, 0.5)
    assert set(found) == set(DEVICES)
    assert found["NVIDIA A100"] == pytest.approx(1e3 / 156)
    for share in (0.0, 1.5):
        with pytest.raises(ValueError, match=f"utilisation is {share}"):
            hours(1.0, share)


def test_costs_are_plain_numbers(cost: TrainingCost) -> None:
    assert all(value > 0 for value in dataclasses.asdict(cost).values())
