"""The drawn world's augmentations change the picture and not the person."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from qdgs_jax.datasets.augment import read_augmentations
from qdgs_jax.domains.faces_drawing import NUMBERS, faces_from_numbers
from qdgs_jax.domains.weights import checkpoint_folder
from qdgs_jax.ports import load_config
from qdgs_jax.ports.registry import KINDS


@pytest.fixture(scope="module")
def rows():
    """Float[A, layers, attributes]."""
    generator = checkpoint_folder("embedded:faces-stylegan2")
    cfg = KINDS["stylegan2"].read_config(load_config(generator))
    shape = (cfg.num_ws, cfg.w_dim)
    folder = checkpoint_folder("embedded:faces-augmentations")
    return read_augmentations(folder, shape[0] * shape[1]).reshape(-1, *shape)


def test_no_attribute_of_the_person_moves(rows):
    fields = jax.jit(faces_from_numbers)(jnp.full((1, NUMBERS), 0.5))._asdict()
    owners = np.concatenate(
        [
            np.full(leaf.size, name)
            for name, value in fields.items()
            for leaf in jax.tree.leaves(value)
        ]
    )
    assert len(owners) == rows.shape[2]
    stay = np.isin(owners, ["identity", "beard", "make_up"])
    assert not rows[..., stay].any()
    assert (rows[1:, :, ~stay] != 0).all()
    assert np.abs(rows).max() <= 1.2


def test_layers_move_alike_from_the_latent_itself(rows):
    assert len(rows) == 5
    assert not rows[0].any()
    np.testing.assert_array_equal(rows, np.broadcast_to(rows[:, :1], rows.shape))
