"""Make the embedded faces' generator: StyleGAN2 at 64 x 64 on a population biased as FFHQ is.

    python scripts/training/train_faces_stylegan2.py --output runs/faces-stylegan2
    python scripts/training/train_faces_stylegan2.py --output runs/trial --images 4000

Adversarial training of this size takes a working day on two cores, so the networks are distilled.
Every picture is drawn once and none is seen twice. Two things are learnt, apart from each other:

1. The synthesis network learns by regression to draw a face from its attributes, which are scaled
   to zero mean and unit variance and given as its code w, the same for all layers.
2. The mapping network learns by regression which attributes a latent z stands for: a fixed function
   of the normal distribution's values at z, such that normal z give the population.

So W holds attributes, untangled, and the bias of the population is built in through what z stands
for; the synthesis network sees rare faces as rarely as the population has them. This is no model
that found its distribution in pictures, and the card of the weights, which the script writes, says
so. Random noise is not used in training; the strength of the noise inputs stays zero.

State is kept every `--keep` steps beside the output, and a run that was killed goes on from there.
"""

from __future__ import annotations

import argparse
import functools
import io
import time
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from qdgs_jax import keys
from qdgs_jax.domains.faces_drawing import NUMBERS, FaceAttributes, draw, faces_from_numbers
from qdgs_jax.domains.faces_drawing.population import PICTURE_NUMBERS, POPULATIONS
from qdgs_jax.files import write_atomically
from qdgs_jax.models.stylegan2 import Generator, StyleGAN2Config, code_statistics
from qdgs_jax.ports.model_folder import save_model
from qdgs_jax.ports.registry import STATISTICS

ATTRIBUTES = 52  # numbers that a face is drawn from
CONFIG = StyleGAN2Config(
    64,
    (64, 64, 48, 32, 16),
    z_dim=NUMBERS,
    w_dim=ATTRIBUTES,
    mapping_layers=5,
    mapping_dim=160,
    mapping_lr=1.0,
)
POPULATION = "ffhq"
EMA_IMAGES = 4000  # half-life of the average of weights
MAPPED = 10_000  # codes that the average code is taken from
TEST_FACES = 500
MAPPING_BATCH = 512
FACE = 3.0  # how much more a pixel of the face counts than one of the border
_FACE_CENTRE, _FACE_RADIUS = (0.55, 0.5), 0.25  # in image sizes: rows, columns


class State(NamedTuple):
    """What a training changes."""

    params: nnx.State
    moments: Any
    average: nnx.State
    step: jax.Array


class Fixed(NamedTuple):
    """What it does not: static under jit."""

    graph: Any
    tx: optax.GradientTransformation
    batch: int


def numbers_of(z: jax.Array) -> jax.Array:
    """What latents stand for: numbers Float[N, NUMBERS], uniform for normal z.

    The number that picks a group also picks the place in the group's range, so that an attribute
    is a rising function of one number.

    Args:
        z: Float[N, NUMBERS]; the mapping network sees its direction alone, so its length is 1.
    """
    unit = z * jax.lax.rsqrt(jnp.mean(z**2, axis=-1, keepdims=True))
    numbers = jax.scipy.stats.norm.cdf(unit)
    population = POPULATIONS[POPULATION]

    def place(which: jax.Array, shares: jax.Array) -> jax.Array:
        edges = jnp.concatenate([jnp.zeros((len(which), 1)), jnp.cumsum(shares, axis=1)], axis=1)
        group = jnp.sum(which[:, None] >= edges[:, 1:-1], axis=1, keepdims=True)
        low, high = (jnp.take_along_axis(edges, group + k, axis=1)[:, 0] for k in (0, 1))
        return jnp.clip((which - low) / (high - low), 0.0, 1.0)

    for column, shares in enumerate((population.skin, population.age, population.gender)):
        known = jnp.tile(jnp.asarray(shares), (len(z), 1))
        numbers = numbers.at[:, 2 * column + 1].set(place(numbers[:, 2 * column], known))
    gender = jnp.sum(numbers[:, 4, None] >= jnp.cumsum(jnp.asarray(population.gender))[:-1], axis=1)
    long = jnp.asarray(population.long_hair)[gender]
    shares = jnp.stack([long, 1.0 - long], axis=1)
    hair = NUMBERS - PICTURE_NUMBERS
    return numbers.at[:, hair + 1].set(place(numbers[:, hair], shares))


def flat(faces: FaceAttributes) -> jax.Array:
    """Attributes side by side, Float[N, ATTRIBUTES]."""
    count = faces.smile.shape[0]
    return jnp.concatenate([leaf.reshape(count, -1) for leaf in jax.tree.leaves(faces)], axis=1)


def scales(root: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Mean and deviation of the population's attributes, Float[ATTRIBUTES] each."""
    numbers = jax.random.uniform(keys.stream(root, "faces stylegan2/scales"), (MAPPED, NUMBERS))
    values = flat(faces_from_numbers(numbers, POPULATION))
    return values.mean(axis=0), values.std(axis=0)


def importance() -> np.ndarray:
    """How much pixels count, Float[64, 64, 1] of mean 1."""
    where = (np.arange(64) + 0.5) / 64
    distance = (where[:, None] - _FACE_CENTRE[0]) ** 2 + (where - _FACE_CENTRE[1]) ** 2
    weights = 1.0 + FACE * np.exp(-0.5 * distance / _FACE_RADIUS**2)
    return np.asarray((weights / weights.mean())[..., None], np.float32)


def difference(images: jax.Array, targets: jax.Array) -> jax.Array:
    """Absolute and squared errors, and those of the slopes, which keep edges sharp: Float[]."""
    weights = jnp.asarray(importance())
    error = images - targets
    slopes = (jnp.abs(jnp.diff(error, axis=a)).mean() for a in (1, 2))
    return jnp.mean(weights * (jnp.abs(error) + error**2)) + sum(slopes, jnp.zeros(()))


@functools.partial(jax.jit, static_argnames="fixed", donate_argnums=0)
def synthesis_step(
    state: State, rest: nnx.State, key: jax.Array, scale: Any, fixed: Fixed
) -> tuple[State, jax.Array]:
    """Draw faces of the population from their attributes."""
    uniform = jax.random.uniform(jax.random.fold_in(key, state.step), (fixed.batch, NUMBERS))
    faces = faces_from_numbers(uniform, POPULATION)
    targets = draw(faces)
    codes = (flat(faces) - scale[0]) / scale[1]
    ws = jnp.repeat(codes[:, None], CONFIG.num_ws, axis=1)

    def objective(params: nnx.State) -> jax.Array:
        synthesis = nnx.merge(fixed.graph, params, rest)
        return difference(synthesis(ws, noise="const"), targets)

    return _apply(state, fixed, *jax.value_and_grad(objective)(state.params))


@functools.partial(jax.jit, static_argnames="fixed", donate_argnums=0)
def mapping_step(
    state: State, rest: nnx.State, key: jax.Array, scale: Any, fixed: Fixed
) -> tuple[State, jax.Array]:
    """Say the attributes that latents stand for."""
    z = jax.random.normal(jax.random.fold_in(key, state.step), (fixed.batch, CONFIG.z_dim))
    target = (flat(faces_from_numbers(numbers_of(z), POPULATION)) - scale[0]) / scale[1]

    def objective(params: nnx.State) -> jax.Array:
        codes = nnx.merge(fixed.graph, params, rest)(z)[:, 0]
        return jnp.mean(optax.losses.huber_loss(codes, target, delta=0.5))

    return _apply(state, fixed, *jax.value_and_grad(objective)(state.params))


def _apply(
    state: State, fixed: Fixed, loss: jax.Array, grads: nnx.State
) -> tuple[State, jax.Array]:
    """One step of the optimiser, and of the average of the weights, quick at the start."""
    updates, moments = fixed.tx.update(grads, state.moments)
    params = optax.apply_updates(state.params, updates)
    images = jnp.minimum(EMA_IMAGES, 0.05 * (state.step + 1.0) * fixed.batch)
    keep = 0.5 ** (fixed.batch / jnp.maximum(images, 1.0))
    average = jax.tree.map(lambda old, new: keep * old + (1.0 - keep) * new, state.average, params)
    return State(params, moments, average, state.step + 1), loss


def begin(module: nnx.Module, batch: int, steps: int, rate: float) -> tuple[State, Any, Fixed]:
    """A network and its optimiser at the start."""
    graph, params, rest = nnx.split(module, nnx.Param, ...)
    warmup = min(200, steps // 5)
    schedule = optax.warmup_cosine_decay_schedule(0.0, rate, warmup, steps, 0.01 * rate)
    tx = optax.chain(optax.clip_by_global_norm(1.0), optax.adam(schedule, b1=0.9, b2=0.99))
    state = State(params, tx.init(params), jax.tree.map(jnp.copy, params), jnp.zeros((), jnp.int32))
    return state, rest, Fixed(graph, tx, batch)


def keep(path: Path, state: State) -> None:
    """Write the whole state beside the output."""
    buffer = io.BytesIO()
    np.savez(buffer, *map(np.asarray, jax.tree.leaves(state)))
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, buffer.getvalue())


def restore(path: Path, state: State) -> State:
    """The state that was kept, if there is one."""
    if not path.exists():
        return state
    with np.load(path) as kept:
        leaves = [jnp.asarray(kept[name]) for name in kept.files]
    return jax.tree.unflatten(jax.tree.structure(state), leaves)


def train(
    name: str, step: Any, begun: tuple[State, Any, Fixed], steps: int, scale: Any, args: Any
) -> nnx.State:
    """Train one network, from where a kept state left off; the average of its weights."""
    state, rest, fixed = begun
    kept = args.output.with_name(f"{args.output.name}.{name}.npz")
    state = restore(kept, state)
    key = keys.stream(keys.root(args.seed), f"faces stylegan2/{name}")
    first, start = int(state.step), time.perf_counter()
    for number in range(first + 1, steps + 1):
        state, loss = step(state, rest, key, scale, fixed)
        if number % 100 == 0:
            speed = (number - first) * fixed.batch / (time.perf_counter() - start)
            minutes = (steps - number) * fixed.batch / speed / 60
            shown = f"loss {float(loss):.4f}, {speed:.0f} faces/s, {minutes:.0f} minutes to go"
            print(f"{name}, step {number}: {shown}", flush=True)
        if number % args.keep == 0:
            keep(kept, state)
    keep(kept, state)
    return state.average


def finish(args: argparse.Namespace, generator: Generator, scale: Any) -> None:
    """Save the generator in half precision with the statistics of its codes, and the card."""
    z = jax.random.normal(
        keys.stream(keys.root(args.seed), "faces stylegan2/mapped"), (MAPPED, CONFIG.z_dim)
    )
    generator.mapping.w_avg[...] = generator.mapping(z)[:, 0].mean(axis=0)
    state = nnx.state(generator)
    stored = jax.tree.map(lambda x: np.asarray(x, np.float16), nnx.to_pure_dict(state))
    nnx.replace_by_pure_dict(state, jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), stored))
    nnx.update(generator, state)  # figures are those of what is on disk
    found = code_statistics(generator.mapping, CONFIG.num_ws)
    fields = {"kind": "stylegan2", **CONFIG.to_dict(), STATISTICS: found.to_dict()}
    save_model(args.output, fields, stored)
    card = make_card(args, *errors(args, generator, scale))
    write_atomically(args.output / "README.md", card.encode())


def errors(args: argparse.Namespace, generator: Generator, scale: Any) -> tuple[float, float]:
    """Mean absolute error of pixels in [-1, 1], from attributes and from latents, on new faces."""
    z = jax.random.normal(
        keys.stream(keys.root(args.seed), "faces stylegan2/test"), (TEST_FACES, CONFIG.z_dim)
    )
    faces = faces_from_numbers(numbers_of(z), POPULATION)
    codes = jnp.repeat(((flat(faces) - scale[0]) / scale[1])[:, None], CONFIG.num_ws, axis=1)
    drawn, synthesise = draw(faces), jax.jit(lambda ws: generator.synthesis(ws, noise="const"))
    return tuple(
        float(jnp.abs(synthesise(ws) - drawn).mean()) for ws in (codes, generator.mapping(z))
    )


def make_card(args: argparse.Namespace, from_attributes: float, from_latents: float) -> str:
    """The model card beside the weights."""
    return f"""# Faces StyleGAN2

Architecture: StyleGAN2 (`qdgs_jax.models.stylegan2`), 64 x 64, channels {CONFIG.channels}.

- Route: distillation. The synthesis network learnt by regression to draw faces from their
  {ATTRIBUTES} attributes, which its code holds; the mapping network learnt which attributes a
  latent stands for. Neither found its distribution in pictures: the bias of its samples is the
  population's, built in.
- Data: the population "{POPULATION}" of `qdgs_jax.domains.faces_drawing`: {args.images:,} drawings,
  none repeated, and {args.mapping_steps * MAPPING_BATCH:,} latents.
- Command: `python scripts/training/train_faces_stylegan2.py --output {args.output.name} --images
  {args.images} --batch {args.batch} --mapping-steps {args.mapping_steps} --seed {args.seed}`
- Cost: 70 minutes of one CPU core for the pictures, two minutes for the latents.
- Mean absolute error of pixels in [-1, 1] on {TEST_FACES} new faces: {from_attributes:.3f} from
  attributes, {from_latents:.3f} from latents.
- Licence: that of the repository.
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, required=True, help="folder of the checkpoint")
    parser.add_argument("--images", type=int, default=300_000)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--learning-rate", type=float, default=4e-3)
    parser.add_argument("--mapping-steps", type=int, default=8_000)
    parser.add_argument("--keep", type=int, default=500, help="steps between kept states")
    parser.add_argument("--only", choices=("mapping", "synthesis"), help="train one and keep it")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()

    root = keys.root(args.seed)
    rngs = nnx.Rngs(params=keys.stream(root, "faces stylegan2/weights"))
    generator = Generator(CONFIG, rngs=rngs)
    scale = scales(root)
    steps = args.images // args.batch
    if args.only != "mapping":
        begun = begin(generator.synthesis, args.batch, steps, args.learning_rate)
        nnx.update(
            generator.synthesis, train("synthesis", synthesis_step, begun, steps, scale, args)
        )
    if args.only != "synthesis":
        begun = begin(generator.mapping, MAPPING_BATCH, args.mapping_steps, 5e-3)
        nnx.update(
            generator.mapping,
            train("mapping", mapping_step, begun, args.mapping_steps, scale, args),
        )
    if args.only is None:
        finish(args, generator, scale)


if __name__ == "__main__":
    main()
