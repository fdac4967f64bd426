"""Network and head together, and one step of their training as a pure function.

A step augments its images, embeds them, takes the head's loss, and moves parameters by stochastic
gradient descent as PyTorch has it: decay added to the gradient, momentum over both, then the rate.
Batch norms, and AdaFace's statistics, take in the whole of a step's images, however many devices
they are spread over; with `accumulate` each part of them in turn. The step is compiled by those who
call it, `fit` over a mesh and `seeds` for several seeds at once.
"""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jax import lax

from qdgs_jax import keys
from qdgs_jax.models.iresnet import IResNet
from qdgs_jax.models.variables import Buffer
from qdgs_jax.search_state import strong
from qdgs_jax.train.faces.augment import augment
from qdgs_jax.train.faces.embed import normalise_faces
from qdgs_jax.train.faces.heads import HeadConfig, MarginHead, cross_entropy
from qdgs_jax.train.faces.recipe import Recipe


class Learner(nnx.Module):
    """A network and its head."""

    def __init__(self, recipe: Recipe, head: HeadConfig, *, rngs: nnx.Rngs) -> None:
        self.network = IResNet(recipe.network.config(), dtype=recipe.network.dtype, rngs=rngs)
        self.head = MarginHead(head, rngs=rngs)


class LearnerState(NamedTuple):
    """All that a training changes.

    Attributes:
        step: Int[], steps done.
        params: parameters of network and head.
        buffers: running statistics of both.
        momenta: the optimiser's state.
    """

    step: jax.Array
    params: Any
    buffers: Any
    momenta: Any


@dataclasses.dataclass(frozen=True)
class Training:
    """What does not change in a training; static under `jit`.

    Attributes:
        recipe: how to train.
        graph: structure of a `Learner`.
        steps_per_epoch: steps that the schedule counts as an epoch.
    """

    recipe: Recipe
    graph: nnx.GraphDef[Learner]
    steps_per_epoch: int

    def optimizer(self, params: Any) -> optax.GradientTransformation:
        """Descent with momentum; batch norms do not decay."""
        table = self.recipe.optimizer
        return optax.chain(
            optax.add_decayed_weights(table.weight_decay, decays(params)),
            optax.trace(table.momentum),
            optax.scale_by_learning_rate(table.schedule(self.steps_per_epoch)),
        )


def decays(params: Any) -> Any:
    """Which parameters decay, as a pytree of truth values: all but those of batch norms."""

    def one(path: tuple[Any, ...], _: Any) -> bool:
        owner = str(path[-2].key) if str(path[-1]).startswith("[") else str(path[-3].key)
        return not owner.startswith("norm")

    return jax.tree_util.tree_map_with_path(one, params)


def begin(
    recipe: Recipe,
    head: HeadConfig,
    key: jax.Array,
    steps_per_epoch: int,
    start: IResNet | None = None,
) -> tuple[Training, LearnerState]:
    """A training before its first step.

    Args:
        recipe: how to train.
        head: settings of the head.
        key: of this training.
        steps_per_epoch: steps that the schedule counts as an epoch.
        start: weights and running statistics of the network; the head is always new.
    """
    learner = Learner(recipe, head, rngs=nnx.Rngs(keys.stream(key, "train/faces/weights")))
    if start is not None:
        nnx.update(learner.network, nnx.state(start))
    split: Any = nnx.split(learner, nnx.Param, Buffer)
    graph, params, buffers = split
    training = Training(recipe, graph, steps_per_epoch)
    momenta = training.optimizer(params).init(params)
    state = LearnerState(jnp.zeros((), jnp.int32), params, buffers, momenta)
    return training, jax.tree.map(strong, state)


def check_start(recipe: Recipe, start: IResNet, what: str) -> None:
    """Refuse to start from a network of another shape.

    Raises:
        ValueError: it differs from the recipe's; the fields are named.
    """
    wanted, found = recipe.network.config(), start.cfg
    fields = ("depth", "se", "input_size", "embed_dim", "channels")
    other = [name for name in fields if getattr(wanted, name) != getattr(found, name)]
    if other:
        differ = ", ".join(
            f"{name} {_shown(getattr(found, name))} instead of {_shown(getattr(wanted, name))}"
            for name in other
        )
        raise ValueError(
            f"{what} cannot be started from: it has {differ}; give a network of the recipe's "
            "shape, or change [network] of the recipe."
        )


def _shown(value: Any) -> str:
    return str(list(value)) if isinstance(value, tuple) else str(value)


def train_step(
    training: Training,
    state: LearnerState,
    images: jax.Array,
    identities: jax.Array,
    key: jax.Array,
) -> tuple[LearnerState, jax.Array]:
    """One step on images UInt8[B, S, S, 3] of identities Int[B]: the new state and the loss.

    Args:
        training: what does not change.
        state: what does.
        images: of the step.
        identities: theirs, in [0, C).
        key: of the training; the step's numbers follow from it and the state's count.
    """
    table = training.recipe.optimizer
    key = jax.random.fold_in(keys.stream(key, "train/faces/step"), state.step)
    slope = jax.value_and_grad(_loss, argnums=1, has_aux=True)

    def part(carry: tuple[Any, Any, Any], given: Any) -> tuple[tuple[Any, Any, Any], None]:
        buffers, losses, gradients = carry
        number, images, identities = given
        (loss, buffers), gradient = slope(
            training, state.params, buffers, images, identities, jax.random.fold_in(key, number)
        )
        share = 1.0 / table.accumulate
        gradients = jax.tree.map(lambda total, new: total + share * new, gradients, gradient)
        return (buffers, losses + share * loss, gradients), None

    # Every n-th image makes a part, so that parts are spread over devices as the whole is.
    numbers = jnp.arange(table.accumulate)
    parts = jax.tree.map(
        lambda x: x.reshape(-1, table.accumulate, *x.shape[1:]).swapaxes(0, 1), (images, identities)
    )
    zeros = jax.tree.map(jnp.zeros_like, state.params)
    carry = (state.buffers, jnp.zeros(()), zeros)
    if table.accumulate == 1:
        carry, _ = part(carry, jax.tree.map(lambda x: x[0], (numbers, *parts)))
    else:
        carry, _ = lax.scan(part, carry, (numbers, *parts))
    buffers, loss, gradient = carry
    optimizer = training.optimizer(state.params)
    updates, momenta = optimizer.update(gradient, state.momenta, state.params)
    params = optax.apply_updates(state.params, updates)
    return LearnerState(state.step + 1, params, buffers, momenta), loss


def _loss(
    training: Training,
    params: Any,
    buffers: Any,
    images: jax.Array,
    identities: jax.Array,
    key: jax.Array,
) -> tuple[jax.Array, Any]:
    """Loss of images, and the running statistics after them."""
    learner = nnx.merge(training.graph, params, buffers, copy=True)
    shown = augment(images, keys.stream(key, "augmentation"), training.recipe.augmentation)
    embeddings, norms = learner.network(
        normalise_faces(shown), train=True, key=keys.stream(key, "dropout")
    )
    loss = cross_entropy(learner.head(embeddings, norms, identities), identities)
    return loss, nnx.state(learner, Buffer)
