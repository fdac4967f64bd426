"""What the trainings of compact CLIPs have in common: tokenizer, losses, optimiser, loop, scores.

A bank of captions is tokenised once and kept on the device. A lesson is a function from the bank
and a key to a `Batch`: images, captions, how far each caption is true of each image, and what else
is known of the images. A caption may be true of several images of a batch, so the contrastive loss
(Radford et al. 2021, Fig. 3) takes the truth table as its target instead of the identity. Linear
heads on the image tower, dropped afterwards, tell it directly what it sees, which a contrast of
captions teaches far more slowly.
"""

from __future__ import annotations

import argparse
import functools
import json
import os
import shutil
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import optax.contrib
from flax import nnx
from jax.sharding import AxisType, NamedSharding, PartitionSpec
from tokenizers.trainers import BpeTrainer
from transformers import CLIPTokenizerFast

from qdgs_jax.models.clip import CLIP, CLIPConfig, TowerConfig, VisionTower
from qdgs_jax.ports.model_folder import save_model

VOCAB_SIZE = 1024
WARMUP = 100  # steps
ADAM_LEARNING_RATE = 1.5e-3


class Batch(NamedTuple):
    """What a step learns from.

    Attributes:
        images: Float[B, S, S, 3] in [0, 1].
        tokens: Int[T, context], captions.
        table: Float[B, T] in [0, 1], how far each caption is true of each image.
        known: whatever `attribute_loss` of the trainee takes.
    """

    images: jax.Array
    tokens: jax.Array
    table: jax.Array
    known: Any


class Trainee(nnx.Module):
    """CLIP with heads on its image tower; a training derives its own from it."""

    def __init__(self, cfg: CLIPConfig, *, rngs: nnx.Rngs):
        self.clip = CLIP(cfg, rngs=rngs)

    def attribute_loss(self, features: jax.Array, known: Any) -> jax.Array:
        """Loss Float[] of the heads on features Float[B, width]."""
        raise NotImplementedError


Bank = dict[
    str, Any
]  # tokens and masks of captions, and whatever else a lesson needs on the device
Lesson = Callable[[Bank, jax.Array], Batch]


def compact_config(
    image_size: int,
    context: int,
    eos_token_id: int,
    mean: float,
    std: float,
    layers: tuple[int, int] = (5, 3),
) -> CLIPConfig:
    """Sizes of a compact CLIP: patches of 8 x 8, the given layers for images and for texts."""
    vision, text = (TowerConfig(width=128, layers=n, heads=4, mlp_width=512) for n in layers)
    return CLIPConfig(
        vision=vision,
        text=text,
        image_size=image_size,
        patch_size=8,
        vocab_size=VOCAB_SIZE,
        context_length=context,
        embed_dim=128,
        eos_token_id=eos_token_id,
        image_mean=(mean,) * 3,
        image_std=(std,) * 3,
    )


def train_tokenizer(texts: Sequence[str], context: int) -> CLIPTokenizerFast:
    """A CLIP tokenizer whose byte-pair merges are learnt from the captions.

    Args:
        texts: the captions.
        context: tokens that a text has at most.
    """
    backend = CLIPTokenizerFast().backend_tokenizer
    trainer = BpeTrainer(
        vocab_size=VOCAB_SIZE,
        special_tokens=["<|startoftext|>", "<|endoftext|>"],
        initial_alphabet=[chr(code) for code in range(33, 127)],
        end_of_word_suffix="</w>",
        show_progress=False,
    )
    backend.train_from_iterator(texts, trainer)
    model = json.loads(backend.to_str())["model"]
    merges = [tuple(merge) for merge in model["merges"]]
    return CLIPTokenizerFast(vocab=model["vocab"], merges=merges, model_max_length=context)


def tokenize(tokenizer: CLIPTokenizerFast, texts: Sequence[str]) -> np.ndarray:
    """Token ids Int[len(texts), context], cut and padded with the end token."""
    encoded = tokenizer(list(texts), padding="max_length", truncation=True, return_tensors="np")
    return np.asarray(encoded["input_ids"], np.int32)


def contrastive_loss(
    images: jax.Array, texts: jax.Array, scale: jax.Array, table: jax.Array
) -> jax.Array:
    """Cross-entropy between the softmax over the batch and the truth table, both ways."""
    images = images / jnp.linalg.norm(images, axis=-1, keepdims=True)
    texts = texts / jnp.linalg.norm(texts, axis=-1, keepdims=True)
    logits = jnp.exp(scale) * images @ texts.T

    def one_way(logits: jax.Array, table: jax.Array) -> jax.Array:
        target = table / jnp.maximum(table.sum(axis=-1, keepdims=True), 1e-6)
        return -jnp.mean(jnp.sum(target * jax.nn.log_softmax(logits, axis=-1), axis=-1))

    return 0.5 * (one_way(logits, table) + one_way(logits.T, table.T))


def initialise_tower(tower: VisionTower, pixels: jax.Array) -> None:
    """Give a vision tower eyes to start with: it learns shapes several times sooner.

    The patch embedding whitens patches (rotated principal components of drawn images, scaled to
    equal variance), and positions are encoded by sines and cosines of both coordinates.

    Args:
        tower: changed in place.
        pixels: Float[B, S, S, 3], normalised images.
    """
    patch, width = tower.patch_size, tower.position.shape[1]
    side = pixels.shape[1] // patch
    cut = np.asarray(pixels).reshape(-1, side, patch, side, patch, 3).transpose(0, 1, 3, 2, 4, 5)
    rows = cut.reshape(-1, patch * patch * 3)
    values, vectors = np.linalg.eigh(rows.T @ rows / len(rows))
    whiten = vectors[:, -width:] / np.sqrt(values[-width:] + 1e-2)
    rotation = np.linalg.qr(np.random.default_rng(0).normal(size=(width, width)))[0]
    tower.patch.kernel[...] = jnp.asarray(0.5 * whiten @ rotation, jnp.float32)

    frequency = side / 4 * 100.0 ** -np.linspace(0, 1, width // 4, endpoint=False)
    phase = 2 * np.pi * (np.arange(side) + 0.5)[:, None] / side * frequency
    waves = np.concatenate([np.sin(phase), np.cos(phase)], axis=-1)
    y, x = np.meshgrid(np.arange(side), np.arange(side), indexing="ij")
    positions = np.concatenate([waves[y.ravel()], waves[x.ravel()]], axis=-1)
    tower.position[...] = jnp.asarray(
        0.3 * np.concatenate([np.zeros((1, width)), positions]), jnp.float32
    )


def muon_matrices(params: Any) -> Any:
    """Kernels of the transformers, which Muon updates; the rest is left to Adam."""

    def dimensions(path: Any, value: Any) -> Any:
        name = jax.tree_util.keystr(path)
        if value.ndim == 2 and "kernel" in name and "blocks" in name:
            return optax.contrib.MuonDimensionNumbers()
        return None

    return jax.tree_util.tree_map_with_path(dimensions, params)


def make_optimiser(learning_rate: float, steps: int) -> optax.GradientTransformation:
    """Muon for matrices at the given rate, Adam for the rest, both warmed up and annealed."""
    warm = functools.partial(
        optax.warmup_cosine_decay_schedule, 0.0, warmup_steps=WARMUP, decay_steps=steps
    )
    return optax.contrib.muon(
        warm(peak_value=learning_rate),
        adam_learning_rate=warm(peak_value=ADAM_LEARNING_RATE),
        weight_decay=0.02,
        muon_weight_dimension_numbers=muon_matrices,
    )


def use_every_core() -> None:
    """A device for each core that this process may use; call it before anything runs.

    Two devices of one thread each train almost twice as fast as one device of two threads.
    """
    os.environ.setdefault("XLA_FLAGS", "--xla_cpu_multi_thread_eigen=false")
    allowed = getattr(os, "sched_getaffinity", None)
    cores = len(allowed(0)) if allowed else os.cpu_count()
    jax.config.update("jax_num_cpu_devices", cores)


class Fixed(NamedTuple):
    """What a training does not change: static under jit.

    Attributes:
        graph: structure of the trainee.
        tx: the optimiser.
        lesson: makes the batches.
        spread: how they lie on the devices.
        push: how far, in pixels' values, images are pushed at most to where the loss is larger
            (fast gradient sign, Goodfellow et al. 2015, arXiv:1412.6572); 0 leaves them alone.
    """

    graph: Any
    tx: optax.GradientTransformation
    lesson: Lesson
    spread: NamedSharding
    push: float = 0.0


def _loss(trainee: Trainee, images: jax.Array, batch: Batch) -> jax.Array:
    """Contrast and heads' loss."""
    model = trainee.clip
    features = model.visual.features(model.preprocess(images))
    image_embeds = model.visual.projection(features)
    text_embeds = model.embed_texts(batch.tokens)
    contrast = contrastive_loss(image_embeds, text_embeds, model.logit_scale[...], batch.table)
    return contrast + trainee.attribute_loss(features, batch.known)


@functools.partial(jax.jit, static_argnames="fixed", donate_argnums=0)
def train_step(state: Any, bank: Bank, key: jax.Array, fixed: Fixed) -> tuple[Any, jax.Array]:
    """One step from (parameters, optimiser state, step); the bank holds tokens and masks."""
    params, opt_state, count = state
    step_key = jax.random.fold_in(key, count)
    batch = fixed.lesson(bank, step_key)
    images = jax.lax.with_sharding_constraint(batch.images, fixed.spread)
    tokens = jax.lax.with_sharding_constraint(batch.tokens, fixed.spread)
    batch = batch._replace(images=images, tokens=tokens)
    if fixed.push:
        trainee = nnx.merge(fixed.graph, params)
        slope = jax.grad(lambda images: _loss(trainee, images, batch))(images)
        far = jax.random.uniform(
            jax.random.fold_in(step_key, 1), (len(images), 1, 1, 1), maxval=fixed.push
        )
        images = images + far * jnp.sign(slope)

    def objective(params: nnx.State) -> jax.Array:
        return _loss(nnx.merge(fixed.graph, params), images, batch)

    loss, grads = jax.value_and_grad(objective)(params)
    updates, opt_state = fixed.tx.update(grads, opt_state, params)
    params = optax.apply_updates(params, updates)
    scale = params["clip"]["logit_scale"]
    scale[...] = jnp.minimum(scale[...], jnp.log(50.0))
    return (params, opt_state, count + 1), loss


def train(
    trainee: Trainee,
    lesson: Lesson,
    bank: Bank,
    key: jax.Array,
    args: argparse.Namespace,
    score: Callable[[CLIP], dict[str, float]],
    tokenizer: CLIPTokenizerFast,
    push: float = 0.0,
) -> CLIP:
    """Train for `args.steps` steps, and save what was learnt.

    Weights are kept every 100 steps beside the output, scores are printed every 500.

    Args:
        trainee: the networks at the start.
        lesson: makes a batch.
        bank: tokens and masks of the captions.
        key: of the batches.
        args: the command line of `arguments`.
        score: of the model so far.
        tokenizer: is kept with the weights.
        push: see `Fixed`.

    Returns:
        The CLIP without the heads, as it was saved but in float32.
    """
    graph, params = nnx.split(trainee)
    tx = make_optimiser(args.learning_rate, args.steps)
    mesh = jax.make_mesh((len(jax.devices()),), ("batch",), (AxisType.Auto,))
    fixed = Fixed(graph, tx, lesson, NamedSharding(mesh, PartitionSpec("batch")), push)
    state = (params, tx.init(params), jnp.zeros((), jnp.int32))
    # Where it will be after a step, lest the second one be compiled anew.
    state = jax.device_put(state, NamedSharding(mesh, PartitionSpec()))
    kept = args.output.with_name(args.output.name + ".kept")
    start = time.perf_counter()
    average = 0.0
    for step in range(1, args.steps + 1):
        state, loss = train_step(state, bank, key, fixed)
        average = 0.98 * average + 0.02 * float(loss) if step > 1 else float(loss)
        if step % 100 == 0:
            elapsed = time.perf_counter() - start
            sofar = nnx.merge(graph, state[0]).clip
            shutil.rmtree(kept, ignore_errors=True)
            save_clip(kept, sofar, tokenizer)
            shown = str(score(sofar)) if step % 500 == 0 else ""
            print(f"step {step}: loss {average:.3f}, {elapsed:.0f} s {shown}", flush=True)
    clip: CLIP = nnx.merge(graph, state[0]).clip
    save_clip(args.output, clip, tokenizer)
    shutil.rmtree(kept, ignore_errors=True)
    return clip


def embed_in_parts(model: CLIP, images: jax.Array, part: int = 250) -> jax.Array:
    """Embeddings Float[B, E] of images Float[B, S, S, 3] in [0, 1], `part` at a time."""
    embed = nnx.jit(lambda model, images: model.embed_images(model.preprocess(images)))
    parts = [embed(model, images[i : i + part]) for i in range(0, len(images), part)]
    return jnp.concatenate(parts)


def zero_shot_accuracies(
    model: CLIP,
    tokenizer: CLIPTokenizerFast,
    embeds: jax.Array,
    labels: jax.Array,
    phrases: Sequence[str],
    frames: Sequence[str],
) -> list[float]:
    """Per sentence frame, the share of images whose nearest text is that of their label.

    Args:
        model: the CLIP.
        tokenizer: its tokenizer.
        embeds: Float[B, E], of the images.
        labels: Int[B], into the phrases.
        phrases: one per label.
        frames: sentences with a place for a phrase.
    """
    shares = []
    for frame in frames:
        texts = model.embed_texts(
            jnp.asarray(tokenize(tokenizer, [frame.format(phrase) for phrase in phrases]))
        )
        texts = texts / jnp.linalg.norm(texts, axis=-1, keepdims=True)
        shares.append(float(jnp.mean(jnp.argmax(embeds @ texts.T, axis=-1) == labels)))
    return shares


def save_clip(output: Path, clip: CLIP, tokenizer: CLIPTokenizerFast) -> None:
    """Write the weights, as float16, and the tokenizer beside them."""
    weights = jax.tree.map(lambda x: np.asarray(x, np.float16), nnx.to_pure_dict(nnx.state(clip)))
    save_model(output, {"kind": "clip", **clip.cfg.to_dict()}, weights)
    tokenizer.save_pretrained(output)


def arguments(description: str | None, steps: int, captions: int) -> argparse.ArgumentParser:
    """The command line that all of them take, with defaults that differ."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--output", type=Path, required=True, help="folder of the checkpoint")
    parser.add_argument("--steps", type=int, default=steps)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--captions", type=int, default=captions)
    parser.add_argument("--learning-rate", type=float, default=0.02)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--start", type=Path, help="folder of a checkpoint to go on from")
    return parser
