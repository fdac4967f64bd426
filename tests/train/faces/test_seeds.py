"""Drawn people are told apart after a short training; seeds do not depend on their company."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from qdgs_jax.domains.faces_drawing import draw, sample_identities, vary
from qdgs_jax.models.iresnet import IResNet
from qdgs_jax.ports.loading import load
from qdgs_jax.train.faces.embed import embed_faces
from qdgs_jax.train.faces.recipe import (
    AugmentationTable,
    HeadTable,
    NetworkTable,
    OptimizerTable,
    Recipe,
)
from qdgs_jax.train.faces.seeds import SeedNetworks, train_seeds

PEOPLE, LEARNT, HELD, SIZE = 20, 12, 4, 32
RECIPE = Recipe(
    network=NetworkTable(
        depth=10, input_size=SIZE, embed_dim=32, widths=(8, 16, 32, 64), dropout=0.0
    ),
    head=HeadTable(scale=32.0),
    optimizer=OptimizerTable(epochs=24, batch_size=24, learning_rate=0.05, milestones=(18,)),
    augmentation=AugmentationTable(crop=0.0, low_resolution=0.0, colour=0.0),
)


@pytest.fixture(scope="module")
def people() -> tuple[np.ndarray, np.ndarray]:
    """Pictures UInt8[20, 16, 32, 32, 3] of 20 people, whose geometry stays; all else varies."""

    @jax.jit
    def drawn() -> jax.Array:
        who = sample_identities(jax.random.key(0), PEOPLE)
        pictures = draw(vary(jax.random.key(1), who, LEARNT + HELD), SIZE)
        return jnp.round(127.5 * (pictures + 1)).astype(jnp.uint8)

    return np.asarray(drawn()).reshape(PEOPLE, -1, SIZE, SIZE, 3)


@pytest.mark.filterwarnings("ignore:overflow|invalid")
def test_networks_that_diverge_are_told(people):
    recipe = RECIPE.model_copy(
        update={
            "network": NetworkTable(depth=10, input_size=16, embed_dim=8, widths=(4, 4, 4, 4)),
            "optimizer": OptimizerTable(epochs=3, batch_size=10, learning_rate=1e30),
        }
    )
    pictures = people[:, 0, ::2, ::2]
    with pytest.raises(ValueError, match=r"the loss of a network is not finite: .*1e\+30"):
        train_seeds(recipe, pictures, np.arange(PEOPLE), (0,))


@pytest.fixture(scope="module")
def trained(people, optimised) -> SeedNetworks:  # unlike what stands above
    pictures = people[:, :LEARNT].reshape(-1, SIZE, SIZE, 3)
    return train_seeds(RECIPE, pictures, np.repeat(np.arange(PEOPLE), LEARNT), (3,))


def test_twenty_drawn_people_are_told_apart(people, trained):
    embeddings, _ = embed_faces(trained[0], people.reshape(-1, SIZE, SIZE, 3))
    embeddings = embeddings.reshape(PEOPLE, LEARNT + HELD, -1)
    means = embeddings[:, :LEARNT].mean(axis=1)
    nearest = (embeddings @ means.T).argmax(axis=-1)
    right = nearest == np.arange(PEOPLE)[:, None]
    assert right[:, :LEARNT].mean() >= 0.99
    assert right[:, LEARNT:].mean() >= 0.8  # pictures that it never saw
    assert trained.losses[0, -1] < 0.5 * trained.losses[0, 0]


def test_a_seed_is_written_and_read_back(trained, tmp_path):
    trained.save(0, tmp_path / "model")
    found, wanted = load(tmp_path / "model", IResNet), trained[0]
    assert found.cfg == wanted.cfg
    for one, other in zip(
        jax.tree.leaves(nnx.state(found)), jax.tree.leaves(nnx.state(wanted)), strict=True
    ):
        np.testing.assert_array_equal(one, other)
    with pytest.raises(IndexError):
        trained[1]


def test_what_does_not_fit_is_refused(people, trained):
    pictures = people[:, 0]
    with pytest.raises(ValueError, match=r"uint8\[N, 32, 32, 3\]"):
        train_seeds(RECIPE, pictures.astype(np.float32), np.arange(PEOPLE), (0,))
    with pytest.raises(ValueError, match=r"20 images and a step takes 24"):
        train_seeds(RECIPE, pictures, np.arange(PEOPLE), (0,))
    pictures = np.concatenate([pictures] * 2)
    with pytest.raises(ValueError, match="identities have shape"):
        train_seeds(RECIPE, pictures, np.arange(PEOPLE), (0,))
    with pytest.raises(ValueError, match="start has 1 networks for 2 seeds"):
        train_seeds(RECIPE, pictures, np.arange(2 * PEOPLE), (0, 1), start=trained)
    deeper = RECIPE.model_copy(
        update={"network": RECIPE.network.model_copy(update={"depth": 18, "embed_dim": 16})}
    )
    with pytest.raises(ValueError, match="depth 10 instead of 18, embed_dim 32 instead of 16"):
        train_seeds(deeper, pictures, np.arange(2 * PEOPLE), (0,), start=trained)
