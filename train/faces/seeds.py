"""Several trainings at once on images in memory: the seeds of a comparison.

An epoch of one training is a scan over its steps; several go side by side, each with weights, an
order and augmentations of its own, which follow from its seed alone. Accelerators take them
together (`vmap`); on a CPU, where a convolution with a kernel per image group is slow, each device
takes one after the other, and the command line makes a device of every core.
"""

from __future__ import annotations

import dataclasses
import functools
import os
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import lax
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from qdgs_jax import keys
from qdgs_jax.models.iresnet import IResNet
from qdgs_jax.train.faces.fit import save_network
from qdgs_jax.train.faces.learner import LearnerState, Training, begin, check_start, train_step
from qdgs_jax.train.faces.recipe import Recipe
from qdgs_jax.train.loop import in_groups, models_mesh, side_by_side


@dataclasses.dataclass(frozen=True, eq=False)
class SeedNetworks:
    """Networks of one recipe, a seed each.

    Attributes:
        recipe: how they were trained.
        graph: structure of a network.
        states: parameters and running statistics, with leading axis G.
        losses: Float[G, epochs], mean loss of each epoch.
    """

    recipe: Recipe
    graph: nnx.GraphDef[IResNet]
    states: Any
    losses: np.ndarray

    def __len__(self) -> int:
        return len(self.losses)

    def __getitem__(self, index: int) -> IResNet:
        if not 0 <= index < len(self):
            raise IndexError(f"network {index} of {len(self)}")
        state = jax.tree.map(lambda leaf: jnp.asarray(leaf[index]), self.states)
        network: IResNet = nnx.merge(self.graph, state)
        return network

    def save(self, index: int, folder: str | os.PathLike[str]) -> None:
        """Write one as a model folder, which `qdgs_jax.ports.loading.load` reads."""
        with tempfile.TemporaryDirectory() as scratch:
            save_network(self[index], folder, Path(scratch), self.recipe)


def train_seeds(
    recipe: Recipe,
    images: np.ndarray,
    identities: np.ndarray,
    seeds: Sequence[int],
    *,
    start: SeedNetworks | IResNet | None = None,
    progress: Callable[[float], None] = lambda share: None,
) -> SeedNetworks:
    """Train a network per seed on images in memory.

    Args:
        recipe: how to train; its own seed does not count.
        images: UInt8[N, S, S, 3], red first, shared by all, or UInt8[G, N, S, S, 3].
        identities: Int[N] shared by all, or Int[G, N]; from 0, and all of the same number C of
            people, the largest identity plus one.
        seeds: G seeds, of weights, order and augmentation.
        start: weights and running statistics to begin with, of each seed or of all; heads are new.
        progress: told the finished share in [0, 1].

    Raises:
        ValueError: images, identities, start and recipe do not fit together, or a loss is not
            finite.
    """
    _check(recipe, images, identities, seeds, start)
    table = recipe.optimizer
    steps = images.shape[-4] // table.batch_size  # what is left over waits for another epoch
    head = recipe.head.config(recipe.network.embed_dim, int(identities.max()) + 1)
    roots = [keys.root(seed) for seed in seeds]
    made = [
        begin(recipe, head, root, steps, _start_of(start, index))
        for index, root in enumerate(roots)
    ]
    training = made[0][0]
    states = jax.tree.map(lambda *leaves: np.stack(leaves), *(state for _, state in made))
    in_axes = (0, 0, 0 if images.ndim == 5 else None, 0 if identities.ndim == 2 else None)
    everything = (states, jnp.stack(roots), images, identities.astype(np.int32))
    done = 0

    def group(which: slice) -> tuple[Any, np.ndarray]:
        nonlocal done
        state, *given = _placed(everything, in_axes, which)
        losses = []
        for _ in range(table.epochs):
            state, loss = _epoch(training, in_axes, state, *given)
            losses.append(np.asarray(loss))
            if not np.isfinite(losses[-1]).all():
                raise ValueError(
                    f"in epoch {len(losses)} the loss of a network is not finite: lower "
                    f"optimizer.learning_rate, which is {table.rate:g}."
                )
            done += len(losses[-1])
            progress(min(1.0, done / (len(seeds) * table.epochs)))
        return (state.params, state.buffers), np.stack(losses, axis=1)

    (params, buffers), losses = in_groups(group, len(seeds))
    one = jax.tree.map(lambda leaf: leaf[0], (params, buffers))
    graph = nnx.split(nnx.merge(training.graph, *one).network)[0]
    every = nnx.merge(training.graph, params, buffers).network
    return SeedNetworks(recipe, graph, nnx.state(every), losses)


def _placed(everything: tuple[Any, ...], in_axes: tuple[int | None, ...], which: slice) -> Any:
    """The models of a slice on their devices, and what they share on all of them."""
    mesh = models_mesh(which.stop - which.start)
    shared, split = (NamedSharding(mesh, spec) for spec in (P(), P("models")))  # type: ignore[no-untyped-call]
    return tuple(
        jax.device_put(tree, shared)
        if axis is None
        else jax.device_put(jax.tree.map(lambda leaf: leaf[which], tree), split)
        for tree, axis in zip(everything, in_axes, strict=True)
    )


@functools.partial(jax.jit, static_argnames=("training", "in_axes"), donate_argnames="state")
def _epoch(
    training: Training,
    in_axes: tuple[int | None, ...],
    state: LearnerState,
    roots: jax.Array,
    images: jax.Array,
    identities: jax.Array,
) -> tuple[LearnerState, jax.Array]:
    """An epoch of each training: the states after it and mean losses Float[G]."""
    one = functools.partial(_epoch_of_one, training)
    return side_by_side(one, in_axes, len(roots), unbatched=True)(state, roots, images, identities)


def _epoch_of_one(
    training: Training,
    state: LearnerState,
    root: jax.Array,
    images: jax.Array,
    identities: jax.Array,
) -> tuple[LearnerState, jax.Array]:
    batch, steps = training.recipe.optimizer.batch_size, training.steps_per_epoch
    key = jax.random.fold_in(keys.stream(root, "train/faces/order"), state.step // steps)
    order = jax.random.permutation(key, len(images))[: steps * batch].reshape(steps, batch)

    def step(state: LearnerState, rows: jax.Array) -> tuple[LearnerState, jax.Array]:
        return train_step(training, state, images[rows], identities[rows], root)

    state, losses = lax.scan(step, state, order)
    return state, losses.mean()


def _start_of(start: SeedNetworks | IResNet | None, index: int) -> IResNet | None:
    return start[index] if isinstance(start, SeedNetworks) else start


def _check(
    recipe: Recipe,
    images: np.ndarray,
    identities: np.ndarray,
    seeds: Sequence[int],
    start: SeedNetworks | IResNet | None,
) -> None:
    size, batch = recipe.network.input_size, recipe.optimizer.batch_size
    shape = f"{images.dtype}{list(images.shape)}"
    if (
        images.dtype != np.uint8
        or images.ndim not in (4, 5)
        or images.shape[-3:] != (size, size, 3)
    ):
        raise ValueError(
            f"images are {shape}: give uint8[N, {size}, {size}, 3], or one such set per seed."
        )
    if not seeds or (images.ndim == 5 and len(images) != len(seeds)):
        raise ValueError(f"images are {shape} for {len(seeds)} seeds: give one set per seed.")
    count = images.shape[-4]
    if identities.shape not in ((count,), (len(seeds), count)):
        raise ValueError(f"identities have shape {identities.shape}: give one for each of {shape}.")
    if identities.min() < 0:
        raise ValueError(f"identities begin at {identities.min()}: count them from 0.")
    if count < batch:
        raise ValueError(
            f"{count} images and a step takes {batch}: give a smaller "
            "optimizer.batch_size, or more images."
        )
    if isinstance(start, SeedNetworks) and len(start) != len(seeds):
        raise ValueError(f"start has {len(start)} networks for {len(seeds)} seeds: give as many.")
    if start is not None:
        check_start(recipe, start[0] if isinstance(start, SeedNetworks) else start, "start")
