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
    more = training_cost(SMALL, 1100, dtype=jnp.float32)
    assert 2.5 < cost.train_flop / cost.embed_flop < 4.5
    assert more.embed_flop == cost.embed_flop
    # Three products of 8 numbers with each class, forward and twice backward.
    assert more.train_flop - cost.train_flop == pytest.approx(3 * 2 * 8 * 1000, rel=1.0)
    assert more.train_flop > cost.train_flop


def test_hours_of_a_device_at_a_share_of_its_peak() -> None:
    found = hours(3.6e18, 0.5)
    assert set(found) == set(DEVICES)
    assert found["NVIDIA A100"] == pytest.approx(1e3 / 156)
    for share in (0.0, 1.5):
        with pytest.raises(ValueError, match=f"utilisation is {share}"):
            hours(1.0, share)


def test_costs_are_plain_numbers(cost: TrainingCost) -> None:
    assert all(value > 0 for value in dataclasses.asdict(cost).values())
