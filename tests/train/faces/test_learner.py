"""One step of a training: descent as PyTorch has it, what decays, gradients from parts."""

from __future__ import annotations

import functools
from typing import Any

import jax
import numpy as np
import pytest

from qdgs_jax import keys
from qdgs_jax.train.faces.learner import begin, decays, train_step
from qdgs_jax.train.faces.recipe import (
    AugmentationTable,
    HeadTable,
    NetworkTable,
    OptimizerTable,
    Recipe,
)

SIZE, CLASSES = 16, 3
PLAIN = {"batch_size": 8, "weight_decay": 0.0, "momentum": 0.0}
STILL = AugmentationTable(flip=0.0, crop=0.0, low_resolution=0.0, colour=0.0)


def recipe(**optimizer: Any) -> Recipe:
    """A tiny network without anything random in its steps."""
    return Recipe(
        network=NetworkTable(
            depth=10, input_size=SIZE, embed_dim=4, widths=(2, 2, 2, 2), dropout=0.0
        ),
        head=HeadTable(kind="cosface", scale=8.0),
        optimizer=OptimizerTable(learning_rate=0.1, milestones=(2,), **optimizer),
        augmentation=STILL,
    )


def pictures(count: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (count, SIZE, SIZE, 3), np.uint8)
    return images, np.arange(count, dtype=np.int32) % CLASSES


def twice() -> tuple[np.ndarray, np.ndarray]:
    """Four images twice each, so that both parts of a batch have the same four."""
    images, people = pictures(4)
    return np.repeat(images, 2, axis=0), np.repeat(people, 2)


def started(chosen: Recipe) -> Any:
    head = chosen.head.config(chosen.network.embed_dim, CLASSES)
    return begin(chosen, head, keys.root(0), steps_per_epoch=1)


@pytest.fixture(scope="module")
def step() -> Any:
    return jax.jit(train_step, static_argnames="training")


def leaves(tree: Any) -> dict[str, np.ndarray]:
    flat = jax.tree_util.tree_flatten_with_path(tree)[0]
    return {jax.tree_util.keystr(path): np.asarray(leaf) for path, leaf in flat}


def test_batch_norms_alone_do_not_decay():
    _, state = started(recipe(batch_size=4))
    free = {name for name, decay in leaves(decays(state.params)).items() if not decay}
    assert free == {name for name in leaves(state.params) if "norm" in name}
    assert len(free) == 2 * (1 + 4 * 3 + 1)  # of the input, four units and the output
    assert any("dense" in name and "bias" in name for name in leaves(state.params))


def test_descent_has_decay_in_the_gradient_then_momentum_then_the_rate(step):
    """Two steps without decay and momentum give the gradients; PyTorch's rule does the rest."""
    images, people = twice()
    plain, state = started(recipe(**PLAIN))
    training, found = started(recipe(batch_size=8, weight_decay=0.02, momentum=0.9))
    momenta = dict.fromkeys(leaves(state.params), 0.0)
    for number in range(3):
        before = leaves(found.params)
        moved, _ = step(plain, state._replace(**fields_of(found)), images, people, keys.root(0))
        found, _ = step(training, found, images, people, keys.root(0))
        rate = 0.1 if number < 2 else 0.01  # the milestone is after two epochs of a step
        for name, after in leaves(found.params).items():
            gradient = (before[name] - leaves(moved.params)[name]) / 0.1
            decay = 0.0 if "norm" in name else 0.02
            momenta[name] = 0.9 * momenta[name] + gradient + decay * before[name]
            wanted = before[name] - rate * momenta[name]
            np.testing.assert_allclose(after, wanted, atol=2e-6, err_msg=name)


def fields_of(state: Any) -> dict[str, Any]:
    return {"params": state.params, "buffers": state.buffers}


def test_parts_give_the_gradient_of_the_whole_where_their_statistics_agree(step):
    """Each part has the same images, so that batch norms see the same in parts as in the whole."""
    results = {}
    for parts in (1, 2):
        training, state = started(recipe(**PLAIN, accumulate=parts))
        results[parts] = step(training, state, *twice(), keys.root(0))
    (one, loss), (two, other) = results[1], results[2]
    assert float(loss) == pytest.approx(float(other), rel=1e-5)
    for name, value in leaves(one.params).items():
        np.testing.assert_allclose(leaves(two.params)[name], value, atol=1e-5, err_msg=name)


@pytest.mark.parametrize("kind", ["adaface", "arcface", "cosface"])
def test_a_step_leaves_the_types_that_it_found(kind):
    """Else the next one would be compiled anew, and a step of the true size takes minutes."""
    chosen = recipe(epochs=1).model_copy(update={"head": HeadTable(kind=kind, scale=8.0)})
    training, state = started(chosen)
    step = functools.partial(train_step, training)
    after, _ = jax.eval_shape(step, state, *pictures(4), keys.root(0))
    types = [jax.tree.map(lambda x: (x.dtype, x.weak_type), tree) for tree in (state, after)]
    assert types[0] == types[1]


def test_steps_draw_numbers_of_their_own():
    colours = STILL.model_copy(update={"colour": 1.0})
    training, state = started(recipe(batch_size=4).model_copy(update={"augmentation": colours}))
    loss = jax.jit(lambda *given: train_step(training, *given)[1])
    losses = {
        float(loss(state._replace(step=np.int32(n)), *pictures(4), keys.root(s)))
        for n in range(3)
        for s in range(2)
    }
    assert len(losses) == 6
