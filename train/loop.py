"""Training many small classifiers side by side.

One training is a pure function of (parameters, data, key): a scan over epochs and steps. `vmap`
makes it many, each with its own initial weights, order of the data and, if wanted, own data set;
all models of a comparison (seeds x biases) run in one program. How many at once is a matter of
speed alone: accelerators take all, while on a CPU, where a few activations fill the cache, the same
program runs over one model per device; the command line makes a device of every core.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P

from qdgs_jax.models.shape_classifier import ShapeClassifier, ShapeClassifierConfig

Params = Any  # nnx.State of one classifier, or of G with a leading axis


@dataclasses.dataclass(frozen=True)
class FitSettings:
    """How a classifier is trained: Adam on the cross entropy.

    Attributes:
        epochs: passes over the data.
        batch_size: images per step; the incomplete rest of an epoch is left out, and as every epoch
            has its own order, a different rest each time.
        learning_rate: Adam's at the start; it falls to zero along a cosine.
        mirrored: show each batch in one of the eight symmetries of the square, drawn anew.
    """

    epochs: int
    batch_size: int = 50
    learning_rate: float = 3e-3
    mirrored: bool = False

    def __post_init__(self) -> None:
        if min(self.epochs, self.batch_size) < 1 or self.learning_rate <= 0:
            raise ValueError(f"{self}: every setting must be positive.")


@functools.lru_cache
def _graph(cfg: ShapeClassifierConfig) -> nnx.GraphDef:
    return nnx.split(nnx.eval_shape(lambda: ShapeClassifier(cfg, rngs=nnx.Rngs(0))))[0]


@functools.partial(jax.jit, static_argnames="cfg")
def init_models(cfg: ShapeClassifierConfig, keys: jax.Array) -> Params:
    """Initial parameters of a classifier for each of the keys [G], with leading axis G."""
    return jax.vmap(lambda key: nnx.state(ShapeClassifier(cfg, rngs=nnx.Rngs(key))))(keys)


def apply_model(cfg: ShapeClassifierConfig, params: Params, images: jax.Array) -> jax.Array:
    """Logits Float[B] of images UInt8[B, S, S, 3], Float[B, K] for more than two classes."""
    return nnx.merge(_graph(cfg), params)(images.astype(jnp.float32) / 255.0)


def classes_of(logits: jax.Array, num_classes: int) -> jax.Array:
    """Class Int[...] of logits Float[...], or of Float[..., K] for more than two classes."""
    return (logits > 0).astype(jnp.int32) if num_classes == 2 else jnp.argmax(logits, axis=-1)


def mirror(images: jax.Array, key: jax.Array) -> jax.Array:
    """A batch of square images in one of the eight symmetries of the square."""
    upside_down, left_right, transposed = jax.random.bernoulli(key, shape=(3,))
    images = jnp.where(upside_down, images[:, ::-1], images)
    images = jnp.where(left_right, images[:, :, ::-1], images)
    return jnp.where(transposed, images.swapaxes(1, 2), images)


def _fit_one(
    cfg: ShapeClassifierConfig,
    settings: FitSettings,
    params: Params,
    images: jax.Array,
    labels: jax.Array,
    key: jax.Array,
) -> Params:
    """Train one classifier on images UInt8[N, S, S, 3] with labels Int[N]."""
    count = images.shape[0]
    batch = min(settings.batch_size, count)
    steps = count // batch
    total = settings.epochs * steps
    optimizer = optax.adam(optax.cosine_decay_schedule(settings.learning_rate, total))

    def loss(params: Params, indices: jax.Array, key: jax.Array) -> jax.Array:
        shown = mirror(images[indices], key) if settings.mirrored else images[indices]
        logits, targets = apply_model(cfg, params, shown), labels[indices]
        if cfg.num_classes > 2:
            return optax.softmax_cross_entropy_with_integer_labels(logits, targets).mean()
        targets = targets.astype(logits.dtype)
        return optax.sigmoid_binary_cross_entropy(logits, targets).mean()

    def step(
        mirror_key: jax.Array,
        carry: tuple[Params, Any],
        batch_of_step: tuple[jax.Array, jax.Array],
    ) -> tuple[tuple[Params, Any], None]:
        params, opt_state = carry
        number, indices = batch_of_step
        gradient = jax.grad(loss)(params, indices, jax.random.fold_in(mirror_key, number))
        updates, opt_state = optimizer.update(gradient, opt_state, params)
        return (optax.apply_updates(params, updates), opt_state), None

    def epoch(carry: tuple[Params, Any], number: jax.Array) -> tuple[tuple[Params, Any], None]:
        order_key, mirror_key = jax.random.split(jax.random.fold_in(key, number))
        order = jax.random.permutation(order_key, count)[: steps * batch].reshape(steps, batch)
        return jax.lax.scan(functools.partial(step, mirror_key), carry, (jnp.arange(steps), order))

    carry = (params, optimizer.init(params))
    return jax.lax.scan(epoch, carry, jnp.arange(settings.epochs))[0][0]


def models_mesh(count: int) -> Mesh:
    """The devices that share `count` models: as many as divide them, on an axis "models"."""
    devices = np.array(jax.local_devices())
    size = max(n for n in range(1, len(devices) + 1) if count % n == 0)
    return Mesh(devices[:size], "models")


def side_by_side(
    function: Callable[..., Any],
    in_axes: tuple[int | None, ...],
    count: int,
    *,
    unbatched: bool = False,
) -> Callable[..., Any]:
    """`vmap` a function over `count` models, which as many devices share as divide them.

    With `unbatched` a device that has a single model runs the function itself instead of a batch
    of one, for networks whose convolutions are not fast with a batch of kernels.
    """
    mesh = models_mesh(count)
    shared, split = P(), P("models")  # type: ignore[no-untyped-call]
    specs = tuple(shared if axis is None else split for axis in in_axes)

    def alone(*arguments: Any) -> Any:
        firsts = (
            argument if axis is None else jax.tree.map(lambda leaf: leaf[0], argument)
            for argument, axis in zip(arguments, in_axes, strict=True)
        )
        return jax.tree.map(lambda leaf: leaf[None], function(*firsts))

    single = unbatched and count == mesh.size
    mapped = alone if single else jax.vmap(function, in_axes=in_axes)
    return jax.shard_map(mapped, mesh=mesh, in_specs=specs, out_specs=split, check_vma=False)


@functools.partial(jax.jit, static_argnames=("cfg", "settings"))
def fit(
    cfg: ShapeClassifierConfig,
    settings: FitSettings,
    params: Params,
    images: jax.Array,
    labels: jax.Array,
    keys: jax.Array,
) -> Params:
    """Train G classifiers at once.

    Args:
        cfg: their sizes.
        settings: how to train.
        params: parameters with leading axis G.
        images: UInt8[N, S, S, 3] shared by all, or UInt8[G, N, S, S, 3].
        labels: Int[N] shared by all, or Int[G, N]; classes from 0.
        keys: G keys, each the order of one model's data.

    Returns:
        The trained parameters.
    """
    in_axes = (0, 0 if images.ndim == 5 else None, 0 if labels.ndim == 2 else None, 0)
    one = functools.partial(_fit_one, cfg, settings)
    return side_by_side(one, in_axes, len(keys))(params, images, labels, keys)


@functools.partial(jax.jit, static_argnames=("cfg", "batch"))
def predict(
    cfg: ShapeClassifierConfig, params: Params, images: jax.Array, batch: int = 250
) -> jax.Array:
    """Logits of G classifiers for shared images UInt8[N, S, S, 3].

    Float[G, N], or Float[G, N, K] for more than two classes.
    """
    count = images.shape[0]
    batch = min(batch, count)
    images = jnp.pad(images, ((0, -count % batch), (0, 0), (0, 0), (0, 0)))
    batches = images.reshape(-1, batch, *images.shape[1:])

    def one(params: Params, batches: jax.Array) -> jax.Array:
        # Batch by batch: the activations of all images at once would not fit into a cache.
        logits = jax.lax.map(functools.partial(apply_model, cfg, params), batches)
        return logits.reshape(-1, *logits.shape[2:])[:count]

    models = jax.tree.leaves(params)[0].shape[0]
    return side_by_side(one, (0, None), models)(params, batches)


def in_groups(
    function: Callable[[slice], Any],
    count: int,
    *,
    group: int | None = None,
    progress: Callable[[float], None] | None = None,
) -> Any:
    """Run a program over groups of models and join the results along their leading axis.

    Args:
        function: takes a slice of 0..count and returns a pytree of arrays with that leading axis.
            All slices are of one size, so that it compiles once; the last may overlap the one
            before.
        count: number of models.
        group: models per group; None takes one per device on CPUs and all at once elsewhere.
        progress: told the finished share in [0, 1].

    Returns:
        A pytree of NumPy arrays with leading axis `count`.
    """
    on_cpu = jax.default_backend() == "cpu"
    size = min(count, group or (jax.local_device_count() if on_cpu else count))
    results: list[Any] = []
    for start in range(0, count, size):
        first = min(start, count - size)
        result = function(slice(first, first + size))
        results.append(jax.tree.map(lambda v, skip=start - first: np.asarray(v)[skip:], result))
        if progress is not None:
            progress(min(1.0, (start + size) / count))
    return jax.tree.map(lambda *parts: np.concatenate(parts), *results)
