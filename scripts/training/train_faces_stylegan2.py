"""Train the embedded faces' generator: StyleGAN2 at 64 x 64 on a population biased as FFHQ is.

    python scripts/training/train_faces_stylegan2.py --output runs/faces-stylegan2
    python scripts/training/train_faces_stylegan2.py --output runs/faces-stylegan2 --distill
    python scripts/training/train_faces_stylegan2.py --output runs/trial --images 4000

Drawings are made inside the training step, none is seen twice. The first route is StyleGAN2's own
(Karras et al. 2020, arXiv:1912.04958): non-saturating loss, lazy R1 and path-length
regularisation, an exponential moving average of the weights, a residual discriminator with the
deviation over the minibatch.

`--distill` is the fallback where adversarial training takes too long. It is no generative model of
images: attributes are a fixed function of z (`faces_from_numbers` of the normal distribution's
values at z), and mapping and synthesis learn by regression to draw what it says. A card of weights
made so must say that; the script writes it. The bias of the population is then built in, not
learnt from pictures.

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
from faces_discriminator import Discriminator
from flax import nnx

from qdgs_jax import keys
from qdgs_jax.domains.faces_drawing import NUMBERS, draw, faces_from_numbers
from qdgs_jax.files import write_atomically
from qdgs_jax.models.stylegan2 import Generator, StyleGAN2Config
from qdgs_jax.ports.model_folder import save_model

CONFIG = StyleGAN2Config(64, (64, 64, 48, 32, 16), z_dim=64, w_dim=64, mapping_layers=4)
POPULATION = "ffhq"
R1_EVERY, R1_WEIGHT = 16, 1.0
PATH_EVERY, PATH_WEIGHT, PATH_DECAY = 8, 2.0, 0.01
EMA_IMAGES = 5000  # half-life of the average of weights
MAPPED = 10_000  # codes that the average code is taken from


class State(NamedTuple):
    """What a training changes."""

    generator: nnx.State
    discriminator: nnx.State
    average: nnx.State
    generator_moments: Any
    discriminator_moments: Any
    path_mean: jax.Array
    step: jax.Array


class Fixed(NamedTuple):
    """What it does not: static under jit."""

    generator: Any
    discriminator: Any
    generator_tx: optax.GradientTransformation
    discriminator_tx: optax.GradientTransformation
    batch: int


def real_images(key: jax.Array, count: int) -> jax.Array:
    """Drawings of the population, Float[count, 64, 64, 3] in [-1, 1]."""
    return draw(faces_from_numbers(jax.random.uniform(key, (count, NUMBERS)), POPULATION))


def synthesise(graph: Any, params: nnx.State, rest: nnx.State, ws: jax.Array, key: Any) -> Any:
    """Images of codes, with fresh noise where a key is given."""
    generator = nnx.merge(graph, params, rest)
    noise = "const" if key is None else "random"
    return generator.synthesis(ws, noise=noise, key=key)


def draw_fakes(fixed: Fixed, params: nnx.State, rest: nnx.State, key: jax.Array, count: int) -> Any:
    """Generated images; codes of half of them are mixed from two latents."""
    z_key, other_key, mix_key, noise_key = jax.random.split(key, 4)
    mapping = nnx.merge(fixed.generator, params, rest).mapping
    first, second = (
        mapping(jax.random.normal(k, (count, CONFIG.z_dim))) for k in (z_key, other_key)
    )
    # From a random layer on, past the last one for half of the images.
    start = jax.random.randint(mix_key, (count, 1, 1), 1, 2 * CONFIG.num_ws)
    ws = jnp.where(jnp.arange(CONFIG.num_ws)[:, None] < start, first, second)
    return synthesise(fixed.generator, params, rest, ws, noise_key)


def blend(average: nnx.State, params: nnx.State, step: jax.Array, batch: int) -> nnx.State:
    """Moving average of weights, quick at the start."""
    images = jnp.minimum(EMA_IMAGES, 0.05 * (step + 1.0) * batch)
    keep = 0.5 ** (batch / jnp.maximum(images, 1.0))
    return jax.tree.map(lambda old, new: keep * old + (1.0 - keep) * new, average, params)


@functools.partial(jax.jit, static_argnames=("fixed", "penalised"), donate_argnums=0)
def discriminator_step(
    state: State, rest: nnx.State, key: jax.Array, fixed: Fixed, penalised: bool
) -> tuple[State, jax.Array]:
    """Tell drawings from fakes; R1 (Mescheder et al. 2018) keeps the slope at drawings small."""
    real_key, fake_key = jax.random.split(jax.random.fold_in(key, state.step))
    reals = real_images(real_key, fixed.batch)
    fakes = jax.lax.stop_gradient(draw_fakes(fixed, state.generator, rest, fake_key, fixed.batch))

    def objective(params: nnx.State) -> jax.Array:
        model = nnx.merge(fixed.discriminator, params)
        loss = jnp.mean(nnx.softplus(model(fakes)) + nnx.softplus(-model(reals)))
        if penalised:
            slope = jax.grad(lambda images: model(images).sum())(reals)
            penalty = jnp.mean(jnp.sum(slope**2, axis=(1, 2, 3)))
            loss = loss + 0.5 * R1_WEIGHT * R1_EVERY * penalty
        return loss

    loss, grads = jax.value_and_grad(objective)(state.discriminator)
    updates, moments = fixed.discriminator_tx.update(grads, state.discriminator_moments)
    discriminator = optax.apply_updates(state.discriminator, updates)
    return state._replace(discriminator=discriminator, discriminator_moments=moments), loss


@functools.partial(jax.jit, static_argnames=("fixed", "regular"), donate_argnums=0)
def generator_step(
    state: State, rest: nnx.State, key: jax.Array, fixed: Fixed, regular: bool
) -> tuple[State, jax.Array]:
    """Draw what passes for a drawing; now and then, keep the lengths of paths alike."""
    fake_key, z_key, noise_key, image_key = jax.random.split(jax.random.fold_in(key, state.step), 4)
    model = nnx.merge(fixed.discriminator, state.discriminator)

    def objective(params: nnx.State) -> tuple[jax.Array, jax.Array]:
        loss = jnp.mean(
            nnx.softplus(-model(draw_fakes(fixed, params, rest, fake_key, fixed.batch)))
        )
        if not regular:
            return loss, state.path_mean
        z = jax.random.normal(z_key, (fixed.batch // 2, CONFIG.z_dim))
        ws = nnx.merge(fixed.generator, params, rest).mapping(z)
        side = CONFIG.resolution

        def projected(ws: jax.Array) -> jax.Array:
            images = synthesise(fixed.generator, params, rest, ws, noise_key)
            return jnp.sum(images * jax.random.normal(image_key, images.shape) / side)

        slope = jax.grad(projected)(ws)
        lengths = jnp.sqrt(jnp.mean(jnp.sum(slope**2, axis=2), axis=1))
        mean = state.path_mean + PATH_DECAY * (lengths.mean() - state.path_mean)
        penalty = jnp.mean((lengths - jax.lax.stop_gradient(mean)) ** 2)
        return loss + PATH_WEIGHT * PATH_EVERY * penalty, jax.lax.stop_gradient(mean)

    (loss, mean), grads = jax.value_and_grad(objective, has_aux=True)(state.generator)
    return _apply(state, grads, fixed)._replace(path_mean=mean), loss


@functools.partial(jax.jit, static_argnames="fixed", donate_argnums=0)
def distill_step(
    state: State, rest: nnx.State, key: jax.Array, fixed: Fixed
) -> tuple[State, jax.Array]:
    """Draw the face whose numbers are z's."""
    z = jax.random.normal(jax.random.fold_in(key, state.step), (fixed.batch, CONFIG.z_dim))
    # The mapping network sees z's direction alone, so the attributes must not hang on its length.
    unit = z * jax.lax.rsqrt(jnp.mean(z**2, axis=-1, keepdims=True))
    numbers = jax.scipy.stats.norm.cdf(unit[:, :NUMBERS])
    target = draw(faces_from_numbers(numbers, POPULATION))

    def objective(params: nnx.State) -> jax.Array:
        ws = nnx.merge(fixed.generator, params, rest).mapping(z)
        error = synthesise(fixed.generator, params, rest, ws, None) - target
        return jnp.mean(jnp.abs(error)) + jnp.mean(error**2)

    loss, grads = jax.value_and_grad(objective)(state.generator)
    return _apply(state, grads, fixed), loss


def _apply(state: State, grads: nnx.State, fixed: Fixed) -> State:
    """One step of the generator's optimiser, and of the average of its weights."""
    updates, moments = fixed.generator_tx.update(grads, state.generator_moments)
    params = optax.apply_updates(state.generator, updates)
    average = blend(state.average, params, state.step, fixed.batch)
    return state._replace(
        generator=params, generator_moments=moments, average=average, step=state.step + 1
    )


def begin(args: argparse.Namespace, root: jax.Array) -> tuple[State, nnx.State, Fixed]:
    """Networks and optimisers at the start."""
    rngs = nnx.Rngs(params=keys.stream(root, "faces stylegan2/weights"))
    graph, params, rest = nnx.split(Generator(CONFIG, rngs=rngs), nnx.Param, ...)
    widths = tuple(reversed(CONFIG.channels))
    discriminator, judge = nnx.split(Discriminator(widths, rngs=rngs))
    generator_tx = optax.adam(args.learning_rate, b1=0.9 if args.distill else 0.0, b2=0.99)
    discriminator_tx = optax.adam(args.learning_rate, b1=0.0, b2=0.99)
    state = State(
        params,
        judge,
        jax.tree.map(jnp.copy, params),
        generator_tx.init(params),
        discriminator_tx.init(judge),
        jnp.zeros(()),
        jnp.zeros((), jnp.int32),
    )
    return state, rest, Fixed(graph, discriminator, generator_tx, discriminator_tx, args.batch)


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


def finish(
    args: argparse.Namespace, state: State, rest: nnx.State, fixed: Fixed, card: str
) -> None:
    """Save the average generator with its average code, and the card."""
    generator = nnx.merge(fixed.generator, state.average, rest)
    z = jax.random.normal(keys.stream(keys.root(args.seed), "faces stylegan2/mapped"), (MAPPED, 64))
    generator.mapping.w_avg[...] = generator.mapping(z)[:, 0].mean(axis=0)
    weights = jax.tree.map(np.asarray, nnx.to_pure_dict(nnx.state(generator)))
    save_model(args.output, {"kind": "stylegan2", **CONFIG.to_dict()}, weights)
    (args.output / "README.md").write_text(card, encoding="utf-8")


def make_card(args: argparse.Namespace, wall: float) -> str:
    """The model card beside the weights."""
    if args.distill:
        how = """- Route: distillation. Attributes are a fixed function of z, and the networks
  learnt by regression to draw them: no generative model that learnt its distribution from
  pictures. Its bias is the population's, built in."""
    else:
        how = """- Route: adversarial (non-saturating, R1, path length, average of weights); its
  bias is learnt from the pictures."""
    return f"""# Faces StyleGAN2

Architecture: StyleGAN2 (`qdgs_jax.models.stylegan2`), 64 x 64, channels {CONFIG.channels}.

{how}
- Data: the population "{POPULATION}" of `qdgs_jax.domains.faces_drawing`, {args.images:,} images,
  none repeated.
- Command: `python scripts/training/train_faces_stylegan2.py --output {args.output}
  {"--distill " if args.distill else ""}--images {args.images} --batch {args.batch} --seed
  {args.seed}`
- Wall time of the last stretch: {wall / 3600:.2f} hours.
- Licence: that of the repository.
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, required=True, help="folder of the checkpoint")
    parser.add_argument("--images", type=int, default=500_000)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--learning-rate", type=float, default=2e-3)
    parser.add_argument("--distill", action="store_true", help="regress onto drawings instead")
    parser.add_argument("--keep", type=int, default=500, help="steps between kept states")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()

    root = keys.root(args.seed)
    state, rest, fixed = begin(args, root)
    kept = args.output.with_name(args.output.name + ".state.npz")
    state = restore(kept, state)
    judge_key = keys.stream(root, "faces stylegan2/discriminator")
    draw_key = keys.stream(root, "faces stylegan2/generator")
    start = time.perf_counter()
    steady: float | None = None  # once everything has been compiled
    first = int(state.step)
    for step in range(first, -(-args.images // args.batch)):
        if args.distill:
            state, loss = distill_step(state, rest, draw_key, fixed)
        else:
            state, _ = discriminator_step(state, rest, judge_key, fixed, step % R1_EVERY == 0)
            state, loss = generator_step(state, rest, draw_key, fixed, step % PATH_EVERY == 0)
        if step == first + 1:
            loss.block_until_ready()
            steady, steady_step = time.perf_counter(), step
        if (step + 1) % 50 == 0 and steady is not None:
            speed = (step - steady_step) * args.batch / (time.perf_counter() - steady)
            hours = (args.images - step * args.batch) / speed / 3600
            shown = f"loss {float(loss):.3f}, {speed:.1f} images/s, {hours:.1f} h to go"
            print(f"step {step + 1}: {shown}", flush=True)
        if (step + 1) % args.keep == 0:
            keep(kept, state)
    finish(args, state, rest, fixed, make_card(args, time.perf_counter() - start))
    kept.unlink(missing_ok=True)


if __name__ == "__main__":
    main()
