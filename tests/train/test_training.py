"""Training side by side: each model as if alone, and each learning."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from qdgs_jax.domains.shapes_drawing import biased_dataset
from qdgs_jax.models.shape_classifier import ShapeClassifierConfig
from qdgs_jax.train.loop import (
    FitSettings,
    apply_model,
    fit,
    in_groups,
    init_models,
    mirror,
    predict,
)

CFG = ShapeClassifierConfig(image_size=8)
SETTINGS = FitSettings(epochs=2, batch_size=8)


@pytest.fixture(scope="module")
def data() -> tuple[np.ndarray, np.ndarray]:
    """Three data sets of 20 drawings."""
    drawn = [biased_dataset(seed, 20, 0.5, 8) for seed in range(3)]
    return np.stack([d[0] for d in drawn]), np.stack([d[1] for d in drawn])


@pytest.fixture(scope="module")
def keys() -> jax.Array:
    return jax.random.split(jax.random.key(1), 3)


def assert_close(one: Any, other: Any) -> None:
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4), one, other)


def test_one_step_is_adam_on_the_mean_cross_entropy(
    data: tuple[np.ndarray, np.ndarray], keys: jax.Array
) -> None:
    images, labels = jnp.asarray(data[0][0]), jnp.asarray(data[1][0])
    settings = FitSettings(epochs=1, batch_size=20, learning_rate=1e-2)
    start = init_models(CFG, keys[:1])
    one = jax.tree.map(lambda value: value[0], start)

    def loss(params: Any) -> jax.Array:
        probability = jax.nn.sigmoid(apply_model(CFG, params, images))
        return -jnp.log(jnp.where(labels == 1, probability, 1 - probability)).mean()

    @jax.jit
    def stepped(params: Any) -> Any:
        optimizer = optax.adam(1e-2)
        updates, _ = optimizer.update(jax.grad(loss)(params), optimizer.init(params))
        return optax.apply_updates(params, updates)

    expected = stepped(one)
    trained = fit(CFG, settings, start, images, labels, keys[:1])
    assert_close(jax.tree.map(lambda value: value[0], trained), expected)


def test_models_trained_together_are_as_if_trained_alone(
    data: tuple[np.ndarray, np.ndarray], keys: jax.Array
) -> None:
    images, labels = data

    def train(models: slice) -> Any:
        params = init_models(CFG, keys[models])
        return fit(CFG, SETTINGS, params, images[models], labels[models], keys[models])

    together = in_groups(train, 3, group=3)
    assert_close(in_groups(train, 3, group=1), together)
    kernel = jax.tree.leaves(together)[1]
    assert not np.allclose(kernel[0], kernel[1])


def test_a_shared_data_set_is_the_same_as_copies_of_it(
    data: tuple[np.ndarray, np.ndarray], keys: jax.Array
) -> None:
    images, labels = data[0][0], data[1][0]
    params = init_models(CFG, keys)
    shared = fit(CFG, SETTINGS, params, images, labels, keys)
    copies = [np.broadcast_to(array, (3, *array.shape)) for array in (images, labels)]
    assert_close(shared, fit(CFG, SETTINGS, params, *copies, keys))


def test_the_order_of_the_data_is_each_models_own(
    data: tuple[np.ndarray, np.ndarray], keys: jax.Array
) -> None:
    params = init_models(CFG, jnp.stack([keys[0]] * 3))
    trained = fit(CFG, SETTINGS, params, data[0][0], data[1][0], keys)
    kernels = jax.tree.leaves(trained)[1]
    assert not np.array_equal(kernels[0], kernels[1])


def test_predictions_do_not_depend_on_the_batch(
    data: tuple[np.ndarray, np.ndarray], keys: jax.Array
) -> None:
    params, images = init_models(CFG, keys), data[0][0]
    whole = predict(CFG, params, images)
    assert whole.shape == (3, 20)
    np.testing.assert_allclose(predict(CFG, params, images, batch=7), whole, rtol=1e-4, atol=1e-5)
    apply = jax.jit(apply_model, static_argnums=0)
    alone = apply(CFG, jax.tree.map(lambda value: value[2], params), images[5:6])
    np.testing.assert_allclose(whole[2, 5], alone[0], rtol=1e-4, atol=1e-5)


def test_groups_are_joined_in_order_and_progress_reaches_one() -> None:
    told: list[float] = []
    joined = in_groups(lambda s: {"x": jnp.arange(5)[s]}, 5, group=2, progress=told.append)
    assert joined["x"].tolist() == [0, 1, 2, 3, 4]
    assert told == sorted(told)
    assert told[-1] == 1.0


def test_models_are_trained_on_all_devices_alike(
    data: tuple[np.ndarray, np.ndarray], keys: jax.Array, tmp_path: Path
) -> None:
    np.savez(tmp_path / "in.npz", images=data[0][:2], labels=data[1][:2])
    subprocess.run([sys.executable, "-c", ON_TWO_DEVICES, tmp_path], check=True)
    params = init_models(CFG, keys[:2])
    here = fit(CFG, SETTINGS, params, data[0][:2], data[1][:2], keys[:2])
    logits = predict(CFG, here, data[0][0])
    np.testing.assert_allclose(np.load(tmp_path / "out.npy"), logits, rtol=1e-3, atol=1e-4)


ON_TWO_DEVICES = """
import sys
import jax
import numpy as np
jax.config.update("jax_num_cpu_devices", 2)
from qdgs_jax.models.shape_classifier import ShapeClassifierConfig
from qdgs_jax.train.loop import FitSettings, fit, init_models, predict
cfg = ShapeClassifierConfig(image_size=8)
data = np.load(sys.argv[1] + "/in.npz")
keys = jax.random.split(jax.random.key(1), 3)[:2]
trained = fit(
    cfg,
    FitSettings(epochs=2, batch_size=8),
    init_models(cfg, keys),
    data["images"],
    data["labels"],
    keys,
)
assert all(len(value.devices()) == 2 for value in jax.tree.leaves(trained))
np.save(sys.argv[1] + "/out.npy", predict(cfg, trained, data["images"][0]))
"""


def test_a_mirrored_batch_is_one_of_eight_pictures() -> None:
    image = np.zeros((1, 4, 4, 3), np.uint8)
    image[0, 0, 1] = 255  # no symmetry of the square leaves this pixel where it is
    keys = jax.random.split(jax.random.key(0), 100)
    seen = np.asarray(jax.vmap(lambda key: mirror(jnp.asarray(image), key))(keys))
    assert (seen.sum(axis=(1, 2, 3, 4)) == image.sum()).all()
    assert len({picture.tobytes() for picture in seen}) == 8


def test_mirrored_training_sees_other_pictures(
    data: tuple[np.ndarray, np.ndarray], keys: jax.Array
) -> None:
    params = init_models(CFG, keys)
    plain, mirrored = (
        fit(CFG, FitSettings(2, 8, mirrored=m), params, data[0], data[1], keys)
        for m in (False, True)
    )
    assert not np.allclose(jax.tree.leaves(plain)[1], jax.tree.leaves(mirrored)[1])


@pytest.mark.parametrize("change", [{"epochs": 0}, {"batch_size": 0}, {"learning_rate": 0.0}])
def test_impossible_settings_are_refused(change: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="must be positive"):
        FitSettings(**{"epochs": 1, **change})
