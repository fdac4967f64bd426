"""One training of a face network on shards: `qdgs train DATA --config recognition.toml`.

Images stream from the shards, spread over the devices of the process together with the head's
directions; a step is one compiled program whose state is donated. While it goes on, the folder
OUT.training beside the model holds checkpoints of the whole state; the place in the data follows
from its count of steps. A training that was stopped or killed goes on from the newest with the same
call, on a CPU bit for bit; the model folder appears when the last step is done.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import filelock
import jax
import numpy as np
from flax import nnx
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from qdgs_jax import keys
from qdgs_jax.datasets.unchanged import check_unchanged
from qdgs_jax.files import sweep
from qdgs_jax.models.iresnet import IResNet
from qdgs_jax.ports.loading import load
from qdgs_jax.ports.model_folder import check_destination, save_model
from qdgs_jax.runs.checkpoint import DamagedCheckpointError, read_about, restore_state
from qdgs_jax.runs.checkpoint_writer import CheckpointWriter, find_checkpoints
from qdgs_jax.train.faces.learner import (
    LearnerState,
    Training,
    begin,
    check_start,
    train_step,
)
from qdgs_jax.train.faces.recipe import PACKAGED, Recipe, recipe_to_toml
from qdgs_jax.train.faces.stream import FaceOrder, FaceShards, batches

KIND = "adaface"  # of the model folder
AXIS = "devices"  # of the mesh
SHARDS = "shards.json"  # sizes and times of the shards that a training began with
_AHEAD = 2  # steps that are given to the devices before the first of them is done
_TOLD = 1.0  # seconds from one report of progress to the next

compiled_step = jax.jit(train_step, static_argnames="training", donate_argnames="state")


class Progress(NamedTuple):
    """How far a training is.

    Attributes:
        step: steps done.
        steps: steps in all.
        epoch: epochs done.
        images_per_second: since the last report; NaN in the first, whose time went into compiling.
        loss: of the newest step that is done.
        learning_rate: of that step.
    """

    step: int
    steps: int
    epoch: int
    images_per_second: float
    loss: float
    learning_rate: float


@dataclasses.dataclass(frozen=True, eq=False)
class Trained:
    """What a training came to.

    Attributes:
        network: the network; None if it was stopped.
        step: steps done.
        steps: steps in all.
    """

    network: IResNet | None
    step: int
    steps: int

    @property
    def finished(self) -> bool:
        """Whether all steps are done, and the model folder is there."""
        return self.network is not None


def training_folder(out: str | os.PathLike[str]) -> Path:
    """The folder of checkpoints beside a model folder that is not there yet."""
    path = Path(out).absolute()
    return path.with_name(f"{path.name}.training")


def train_faces(
    recipe: Recipe,
    data: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    start: str | os.PathLike[str] | None = None,
    devices: Sequence[jax.Device] | None = None,
    progress: Callable[[Progress], None] = lambda progress: None,
    should_stop: Callable[[], bool] = lambda: False,
    told: Callable[[str], None] = lambda text: None,
) -> Trained:
    """Train a network on a folder of shards, or go on with a training that was stopped.

    Args:
        recipe: how to train.
        data: shards with subjects.
        out: model folder, which appears when all steps are done. OUT.training holds checkpoints.
        start: a model folder whose weights and running statistics are begun with; the head is new.
        devices: over which images and directions are spread; None takes all accelerators, or one
            CPU device, which has all cores.
        progress: told of once a second at most.
        should_stop: asked before each step; once true, a checkpoint is written.
        told: is told what takes time before the first step, in sentences.

    Raises:
        ShardError: the data cannot be read or has no subjects, or shards were changed since the
            training began.
        CheckpointError: `out` holds something, or `start` is no face network.
        ValueError: recipe, data, start and a training that was begun do not fit together, or the
            training diverged: its loss or weights are not finite.
        OSError: the disk is full; the checkpoints before stay.
    """
    check_destination(Path(out))
    shards = FaceShards(data)
    _check_size(recipe, shards)
    model = None
    if start is not None:
        model = load(Path(start), IResNet)
        check_start(recipe, model, str(start))
    about = _about(recipe, shards, start)
    table = recipe.optimizer
    order = FaceOrder(shards, recipe.seed, table.batch_size, table.epochs, recipe.data.window)
    mesh = Mesh(np.array(_devices(devices, table.batch_size // table.accumulate)), AXIS)
    head = recipe.head.config(recipe.network.embed_dim, shards.num_identities, mesh.size)
    key = keys.root(recipe.seed)
    with _locked(training_folder(out)) as folder:
        _check_same(folder, about)
        begun = bool(find_checkpoints(folder))
        note = folder / SHARDS
        check_unchanged(shards.folder, shards.manifest, note, begun=begun, told=told)
        training, state = begin(recipe, head, key, order.steps_per_epoch, model)
        state, written = _newest(folder, state)
        writer = CheckpointWriter(folder, recipe.checkpoints.seconds, about, written=written)
        run = _Run(training, mesh, key, order, progress, should_stop, folder)
        state, step = run.go(state, written or 0, writer)
        if step < run.steps:
            writer.finish(step, state)
            return Trained(None, step, run.steps)
        writer.wait()
        network = trained_network(training, state)
        if not all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(nnx.state(network))):
            raise _diverged(step, "weights are not finite", recipe, folder)
        save_network(network, out, folder, recipe)
    shutil.rmtree(folder, ignore_errors=True)
    return Trained(network, step, run.steps)


def save_network(
    network: IResNet, out: str | os.PathLike[str], scratch: Path, recipe: Recipe
) -> None:
    """Write a model folder that `load` reads, with the recipe beside it."""
    note = scratch / PACKAGED
    note.write_text(recipe_to_toml(recipe), encoding="utf-8")
    params = jax.tree.map(np.asarray, nnx.to_pure_dict(nnx.state(network)))
    save_model(Path(out), {"kind": KIND, **network.cfg.to_dict()}, params, [note])


def trained_network(training: Training, state: LearnerState) -> IResNet:
    """The network of a state, on the default device."""
    local = jax.tree.map(lambda x: jax.numpy.asarray(np.asarray(x)), (state.params, state.buffers))
    network: IResNet = nnx.merge(training.graph, *local).network
    return network


@dataclasses.dataclass
class _Run:
    """The loop of a training."""

    training: Training
    mesh: Mesh
    key: jax.Array
    order: FaceOrder
    progress: Callable[[Progress], None]
    should_stop: Callable[[], bool]
    folder: Path

    @property
    def steps(self) -> int:
        """Steps in all."""
        return self.order.steps_per_epoch * self.training.recipe.optimizer.epochs

    def go(
        self, state: LearnerState, step: int, writer: CheckpointWriter
    ) -> tuple[LearnerState, int]:
        """Do what is left of the steps, until somebody wants to stop."""
        recipe = self.training.recipe
        batch_size = recipe.optimizer.batch_size
        images = NamedSharding(self.mesh, P(AXIS))  # type: ignore[no-untyped-call]
        state = jax.device_put(state, shardings(state, self.mesh))
        losses: list[jax.Array] = []
        told: tuple[float, int] | None = None
        stream = batches(self.order, batch_size, step, recipe.data.threads)
        for batch in stream if step < self.steps else ():
            if self.should_stop():
                break
            given = jax.device_put((batch["image"], batch["identity"]), images)
            state, loss = compiled_step(self.training, state, *given, self.key)
            step += 1
            losses.append(loss)
            if len(losses) > _AHEAD:
                self._check(step - len(losses) + 1, losses.pop(0))
            now = time.monotonic()
            if told is None or now - told[0] >= _TOLD or step == self.steps:
                self._tell(step, losses[0] if step < self.steps else loss, told, now)
                told = (time.monotonic(), step)
            writer.offer(step, state, 0)
        for number, loss in enumerate(losses, step - len(losses) + 1):
            self._check(number, loss)
        return state, step

    def _check(self, step: int, loss: jax.Array) -> None:
        """Wait for a step, and end a training that no further step could bring back."""
        if not np.isfinite(value := float(loss)):
            recipe = self.training.recipe
            raise _diverged(step, f"loss is {value}", recipe, self.folder)

    def _tell(
        self, step: int, loss: jax.Array, before: tuple[float, int] | None, now: float
    ) -> None:
        table, per_epoch = self.training.recipe.optimizer, self.order.steps_per_epoch
        done = 0 if before is None else (step - before[1]) * table.batch_size
        rate = done / max(now - before[0], 1e-9) if before else float("nan")
        learning_rate = float(table.schedule(per_epoch)(step - 1))
        self.progress(
            Progress(step, self.steps, step // per_epoch, rate, float(loss), learning_rate)
        )


def _diverged(step: int, what: str, recipe: Recipe, folder: Path) -> ValueError:
    return ValueError(
        f"after step {step:,} the {what}, and no further step would bring the network back: lower "
        f"optimizer.learning_rate of the recipe, which is {recipe.optimizer.rate:g}, delete "
        f"{folder}, and train again."
    )


def shardings(state: LearnerState, mesh: Mesh) -> LearnerState:
    """Where a state lies: the head's directions and their momenta cut over the mesh."""
    cut = NamedSharding(mesh, P(None, AXIS))  # type: ignore[no-untyped-call]
    whole = NamedSharding(mesh, P())  # type: ignore[no-untyped-call]

    def one(path: tuple[Any, ...], _: Any) -> NamedSharding:
        name = jax.tree_util.keystr(path)
        return cut if "['head']['kernel']" in name else whole

    placed: LearnerState = jax.tree_util.tree_map_with_path(one, state)
    return placed


def _devices(devices: Sequence[jax.Device] | None, images: int) -> Sequence[jax.Device]:
    """Devices that share so many images equally.

    Raises:
        ValueError: they cannot.
    """
    if devices is None:
        devices = jax.local_devices()
        devices = devices[:1] if devices[0].platform == "cpu" else devices
    if images % len(devices):
        raise ValueError(
            f"{images} images at once (optimizer.batch_size / accumulate) cannot be shared by "
            f"{len(devices)} devices: give a multiple."
        )
    return devices


def _check_size(recipe: Recipe, shards: FaceShards) -> None:
    size = recipe.network.input_size
    if shards.image_size != size:
        raise ValueError(
            f"{shards.folder} has images of {shards.image_size} x {shards.image_size} pixels and "
            f"the network takes {size} x {size}: change network.input_size of the recipe, or give "
            "other shards."
        )


def _about(
    recipe: Recipe, shards: FaceShards, start: str | os.PathLike[str] | None
) -> dict[str, Any]:
    """What a training depends on, as a checkpoint keeps it."""
    digest = None
    if start is not None:  # the model's settings, and a checksum of every parameter
        content = (Path(start) / "config.json").read_bytes()
        digest = hashlib.sha256(content).hexdigest()
    return {
        "recipe": recipe.model_dump(
            mode="json", exclude={"checkpoints": True, "data": {"threads"}}
        ),
        "data": hashlib.sha256(
            "".join(shard.sha256 for shard in shards.manifest.shards).encode()
        ).hexdigest(),
        "start": digest,
    }


def _check_same(folder: Path, about: Mapping[str, Any]) -> None:
    """Refuse to go on with another training.

    Raises:
        ValueError: it began otherwise; what differs is named.
    """
    for _, path in find_checkpoints(folder):
        try:
            begun = read_about(path)
        except DamagedCheckpointError:
            continue
        now, before = _flat(about), _flat(begun)
        other = [name for name in now if now.get(name) != before.get(name)]
        if other:
            name = other[0]
            raise ValueError(
                f"{folder} holds a training that began with other {', '.join(other)} "
                f"({name}: {before.get(name)} instead of {now[name]}): go on with what it began "
                "with, give another --out, or delete the folder."
            )
        return


def _flat(table: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in table.items():
        if isinstance(value, Mapping):
            found |= _flat(value, f"{prefix}{name}.")
        else:
            found[f"{prefix}{name}"] = value
    return found


def _newest(folder: Path, state: LearnerState) -> tuple[LearnerState, int | None]:
    """The newest state that can be read and its step, else the given one and None."""
    damaged: list[tuple[Path, DamagedCheckpointError]] = []
    for step, path in find_checkpoints(folder):
        try:
            found = restore_state(path, state)
        except DamagedCheckpointError as error:
            damaged.append((path, error))
            continue
        for broken, _ in damaged:
            shutil.rmtree(broken)
        return found, step
    if damaged:
        raise damaged[0][1]
    return state, None


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[Path]:
    """Keep other processes from training here, and clear away what killed ones left.

    Raises:
        ValueError: another process does.
    """
    folder.mkdir(parents=True, exist_ok=True)
    lock = filelock.FileLock(folder / ".lock", timeout=0)
    try:
        lock.acquire()
    except filelock.Timeout:
        raise ValueError(f"another process is training in {folder}.") from None
    try:
        sweep(folder)
        yield folder
    finally:
        lock.release()
