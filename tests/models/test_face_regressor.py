"""The regressor of faces' traits: its units, its sizes, what it refuses."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from qdgs_jax.models.face_regressor import (
    RANGES,
    TRAITS,
    FaceRegressor,
    FaceRegressorConfig,
    Traits,
    scale_traits,
)

SMALL = FaceRegressorConfig(image_size=16, channels=(4, 4, 4), hidden=8)


def test_units_go_there_and_back():
    values = jnp.asarray([[1.0, 18.0, 0.0, -1.0], [5.5, 49.0, 0.5, 0.0], [10.0, 80.0, 1.0, 1.0]])
    scaled = scale_traits(values)
    np.testing.assert_allclose(scaled, np.repeat([[-1.0], [0.0], [1.0]], 4, axis=1), atol=1e-6)
    seen = Traits(scaled, jnp.zeros_like(scaled))
    np.testing.assert_allclose(seen.values, values, rtol=1e-6)
    widths = [high - low for low, high in RANGES]
    np.testing.assert_allclose(seen.deviation[0], 0.5 * np.array(widths), rtol=1e-6)


def test_every_picture_gets_its_own_traits():
    model = nnx.jit(lambda: FaceRegressor(SMALL, rngs=nnx.Rngs(0)))()
    look = nnx.jit(lambda model, images: model(images))
    images = jnp.stack([jnp.full((16, 16, 3), value) for value in (-1.0, 1.0)])
    both = look(model, images)
    assert both.mean.shape == both.log_variance.shape == (2, len(TRAITS))
    np.testing.assert_allclose(look(model, images[1:]).mean[0], both.mean[1], rtol=1e-5, atol=1e-6)
    assert not np.allclose(both.mean[0], both.mean[1])


def test_settings_survive_their_file():
    fields = {"kind": "face_regressor", **SMALL.to_dict()}
    assert FaceRegressorConfig.from_dict(fields) == SMALL


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"image_size": 40}, "image_size is 40"),
        ({"channels": (8, 8)}, r"channels \(8, 8\)"),
        ({"hidden": 0}, "hidden 0"),
    ],
)
def test_impossible_sizes_are_refused_by_name(fields, message):
    with pytest.raises(ValueError, match=message):
        FaceRegressorConfig(**fields)
