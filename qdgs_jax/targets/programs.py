"""The programs of a run, lowered for a target: search, generation, training.

Nothing is executed and no weight is read: arguments are shapes that say on which of the target's
devices they would lie.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from qdgs_jax.domains.decoding import BATCH, on_each
from qdgs_jax.models.backend import lowering_for
from qdgs_jax.runs.config import RunConfig
from qdgs_jax.runs.prepare import prepare_search
from qdgs_jax.targets.abstract import abstract_domain
from qdgs_jax.targets.chips import Target, TargetError
from qdgs_jax.targets.flops import counted, evaluation_flop, picture_flop

if TYPE_CHECKING:
    from qdgs_jax.runs.driver import SearchTask


@dataclasses.dataclass(frozen=True)
class Work:
    """A program of a run, lowered for a target.

    Attributes:
        program: "search", "generate" or "train".
        lowered: it.
        steps: of which its figures are the sum.
        unit: what a step does several of, in the singular.
        units: how many of these, on all devices together.
        words: what a step is.
        flop: useful floating-point operations of a step, on all devices together.
        devices: that share it.
    """

    program: str
    lowered: jax.stages.Lowered
    steps: int
    unit: str
    units: int
    words: str
    flop: float
    devices: int


def lower(config: RunConfig, program: str, target: Target) -> Work:
    """Lower a program of a run for a target.

    Args:
        config: the run; its weights may be named as `sizes.read_sizes` takes them.
        program: a key of `PROGRAMS`.
        target: what to lower it for.

    Raises:
        CheckpointError: a folder of weights is missing or of another model.
        TargetError: the target's compiler is not installed, or there is no such program.
        ValueError: the run cannot be searched.
    """
    return PROGRAMS[program](config, target)


def programs_of(config: RunConfig) -> list[str]:
    """The programs that a run has."""
    trained = any(getattr(config, name) is not None for name in TRAININGS)
    return ["search", "generate", *(["train"] if trained else [])]


def search_work(task: SearchTask, target: Target, **described: Any) -> Work:
    """Lower what a search does most: a chunk of steps, its state donated, on one device.

    Args:
        task: the search; its weights may be shapes.
        target: what to lower it for.
        described: `unit`, `units`, `words` and `flop` of the `Work`.
    """
    where = _on_all(target.devices()[:1])
    with lowering_for(target.backend):
        params, state = _placed((task.params, task.shapes()), where)
        lowered = task.search.lower(state, params=params)
    return Work("search", lowered, task.search.chunk, devices=1, **described)


def jacobians_of(task: SearchTask) -> int:
    """How many of a step's evaluations are made with Jacobians."""
    emitter: Any = task.search.emitter
    by_itself = getattr(emitter, "jacobian_function", None) is not None
    return int(emitter.num_parents) if hasattr(emitter, "parents") and not by_itself else 0


def _search(config: RunConfig, target: Target) -> Work:
    task = prepare_search(config, abstract_domain(config, target.backend))
    once, with_jacobian = evaluation_flop(_plain(config))
    units, jacobians = task.step_evaluations, jacobians_of(task)
    words = f"a step of {config.search.algorithm}: {units} evaluations"
    return search_work(
        task,
        target,
        unit="evaluation",
        units=units,
        words=f"{words}, {jacobians} of them with Jacobians" if jacobians else words,
        flop=jacobians * with_jacobian + (units - jacobians) * once,
    )


def _generate(config: RunConfig, target: Target) -> Work:
    domain = abstract_domain(config, target.backend)
    devices = target.devices()
    mesh = Mesh(np.asarray(devices), ("images",))
    count = BATCH * len(devices)
    shares = NamedSharding(mesh, P("images"))  # type: ignore[no-untyped-call]
    latents = jax.ShapeDtypeStruct((count, domain.latent_dim), jnp.float32, sharding=shares)  # type: ignore[no-untyped-call]
    with lowering_for(target.backend):
        params = _placed(domain.params, _on_all(devices, mesh))
        lowered = on_each.lower(domain, mesh, params, latents)
    flop = count * picture_flop(_plain(config))
    words = f"a batch of {count} pictures, {BATCH} on each device"
    return Work("generate", lowered, 1, "picture", count, words, flop, len(devices))


def _train(config: RunConfig, target: Target) -> Work:
    for name, make in TRAININGS.items():
        if getattr(config, name) is not None:
            return make(config, target)
    raise TargetError(f"the run trains nothing: it has no table {' or '.join(TRAININGS)}.")


def _train_shapes(config: RunConfig, target: Target) -> Work:
    """The classifiers of the shapes' repair, all biases and seeds side by side."""
    from qdgs_jax.models.shape_classifier import ShapeClassifierConfig
    from qdgs_jax.train.loop import FitSettings, apply_model, fit, init_models

    table = config.repair
    if table is None:
        raise TargetError("the run has no table [repair].")
    cfg = ShapeClassifierConfig(image_size=table.image_size)
    settings = FitSettings(epochs=table.train_epochs)
    models, count, side = len(table.biases) * table.seeds, table.train_images, cfg.image_size
    devices = target.devices()
    devices = devices[: max(n for n in range(1, len(devices) + 1) if models % n == 0)]
    batch = min(settings.batch_size, count)
    shape = jax.ShapeDtypeStruct
    pictures = shape((models, count, side, side, 3), jnp.uint8)  # type: ignore[no-untyped-call]
    keys = jax.eval_shape(lambda: jax.random.split(jax.random.key(0), models))
    params = jax.eval_shape(lambda keys: init_models(cfg, keys), keys)
    # `fit` places what it is given on its own mesh, whose axis is called like this.
    mesh = Mesh(np.asarray(devices), ("models",))
    where = NamedSharding(mesh, P("models"))  # type: ignore[no-untyped-call]
    arguments = _placed((params, pictures, shape((models, count), jnp.int32), keys), where)  # type: ignore[no-untyped-call]
    with lowering_for(target.backend):
        lowered = fit.lower(cfg, settings, *arguments, devices=tuple(devices))

    def loss(params: Any, images: jax.Array) -> jax.Array:
        return apply_model(cfg, params, images).mean()

    one = jax.tree.map(lambda leaf: shape(leaf.shape[1:], leaf.dtype), params)  # type: ignore[no-untyped-call]
    flop = counted(jax.value_and_grad(loss), one, shape((batch, side, side, 3), jnp.uint8))  # type: ignore[no-untyped-call]
    return Work(
        program="train",
        lowered=lowered,
        steps=settings.epochs * (count // batch),
        unit="image",
        units=models * batch,
        words=f"a step of {models} shape classifiers, {batch} images each",
        flop=models * flop,
        devices=len(devices),
    )


PROGRAMS: Mapping[str, Callable[[RunConfig, Target], Work]] = {
    "search": _search,
    "generate": _generate,
    "train": _train,
}
TRAININGS: Mapping[str, Callable[[RunConfig, Target], Work]] = {"repair": _train_shapes}


def _plain(config: RunConfig) -> Any:
    """The run's domain without recomputation, for its operations to be counted."""
    evaluation = config.evaluation.model_copy(update={"remat": False, "batch": 0})
    return abstract_domain(config.model_copy(update={"evaluation": evaluation}), "cpu")


def _on_all(devices: list[Any], mesh: Mesh | None = None) -> NamedSharding:
    """A copy on each device."""
    mesh = mesh or Mesh(np.asarray(devices), ("devices",))
    return NamedSharding(mesh, P())  # type: ignore[no-untyped-call]


def _placed(shapes: Any, where: NamedSharding) -> Any:
    """Shapes that say where their arrays would lie."""

    def leaf(shape: Any) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(shape.shape, shape.dtype, sharding=where)  # type: ignore[no-untyped-call]

    return jax.tree.map(leaf, shapes)
