"""Train the embedded CLIP on drawn, captioned shapes.

    python scripts/training/train_shapes_clip.py --output runs/shapes-clip-regular
    python scripts/training/train_shapes_clip.py --output runs/shapes-clip \
        --start runs/shapes-clip-regular --rough --steps 900 --learning-rate 0.01

The first run learns from regular shapes. The second goes on with rough ones, for a generator draws
neither straight edges nor sharp corners, and a model that never saw such shapes takes a triangle
with round corners for a square.

A bank of captions is drawn from a grammar (`shapes_captions.py`), tokenised once and kept on the
device; each step picks captions and draws a scene that fits each. A caption may be true of several
images of a batch, so the contrastive loss (Radford et al. 2021, Fig. 3) takes the truth table as
its target instead of the identity. Linear heads on the image tower, dropped afterwards, tell it
directly what it sees (attributes and outline), which a contrast of captions teaches far more
slowly. Zero-shot accuracy is measured on scenes of another seed with sentence frames that training
never used. Cost and scores: see the model card that the script writes.
"""

from __future__ import annotations

import argparse
import functools
import json
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import optax.contrib
from flax import nnx
from jax.sharding import AxisType, NamedSharding, PartitionSpec
from shapes_captions import HELD_OUT_FRAMES, SIZES, caption_bank
from tokenizers.trainers import BpeTrainer
from transformers import CLIPTokenizerFast

from qdgs_jax.domains.shapes_drawing import (
    COLOURS,
    KINDS,
    SHAPES,
    Scene,
    outline,
    random_pose,
    render,
)
from qdgs_jax.domains.weights import load_clip
from qdgs_jax.models.clip import CLIP, CLIPConfig, TowerConfig, VisionTower
from qdgs_jax.ports.model_folder import save_model

VOCAB_SIZE = 1024
CONTEXT = 24
IMAGE_SIZE = 48
DIRECTIONS = 24  # in which the outline is predicted
SCENES = 2  # scenes drawn for each caption of a batch
RADIUS = (0.16, 0.38)
SIZE_EDGES = (0.22, 0.30)  # circumradii at which small and medium end


def train_tokenizer(texts: Sequence[str]) -> CLIPTokenizerFast:
    """A CLIP tokenizer whose byte-pair merges are learnt from the captions."""
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
    return CLIPTokenizerFast(vocab=model["vocab"], merges=merges, model_max_length=CONTEXT)


def tokenize(tokenizer: CLIPTokenizerFast, texts: Sequence[str]) -> np.ndarray:
    """Token ids Int[len(texts), CONTEXT], cut and padded with the end token."""
    encoded = tokenizer(
        list(texts), padding="max_length", truncation=True, max_length=CONTEXT, return_tensors="np"
    )
    return np.asarray(encoded["input_ids"], np.int32)


def _pick(key: jax.Array, allowed: jax.Array) -> jax.Array:
    """One index per row, uniform among the allowed: Float[B, N] to Int[B]."""
    return jax.random.categorical(key, jnp.log(allowed))


def sample_scene(key: jax.Array, masks: dict[str, jax.Array]) -> Scene:
    """A scene that fits each caption, whose masks Float[B, n] are given."""
    keys = jax.random.split(key, 9)
    batch = masks["colours"].shape[0]
    kind_weights = jnp.asarray([4.0, 2.0, 1.5, 1.0, 1.0])
    kind = _pick(keys[0], masks["kinds"] * kind_weights)
    colour = _pick(keys[1], masks["colours"])
    others = masks["colours"] * (1 - jax.nn.one_hot(colour, len(COLOURS)))
    alone = others.sum(axis=-1, keepdims=True) == 0
    second = _pick(keys[2], jnp.where(alone, masks["colours"], others))
    blend = jax.random.uniform(keys[3], (batch,), minval=0.25, maxval=0.5)
    low = jnp.asarray([RADIUS[0], *SIZE_EDGES])
    high = jnp.asarray([*SIZE_EDGES, RADIUS[1]])
    size = _pick(keys[4], masks["sizes"])
    centre, unit, angle = random_pose(keys[5], batch, (0.0, 1.0), 0.12)
    radius = low[size] + unit * (high - low)[size]
    soft = jax.random.uniform(keys[6], (batch,))
    blurred = radius * (0.10 + 0.14 * soft)
    slight = 0.012 * soft**2  # generators are never perfectly sharp
    shape = _pick(keys[7], masks["shapes"])
    blur = jnp.where(kind == KINDS.index("blurred"), blurred, slight)
    return Scene(shape, colour, second, blend, kind, centre, radius, angle, blur)


def truth(scene: Scene, masks: dict[str, jax.Array]) -> jax.Array:
    """How far each caption is true of each scene, Float[images, captions] in [0, 1]."""
    mixed = (scene.kind == KINDS.index("blended")) | (scene.kind == KINDS.index("splatter"))
    share = jnp.where(mixed, scene.blend, 0.0)[:, None]
    colours = (1 - share) * jax.nn.one_hot(scene.colour, len(COLOURS))
    colours = colours + share * jax.nn.one_hot(scene.second, len(COLOURS))
    size = jnp.searchsorted(jnp.asarray(SIZE_EDGES), scene.radius)
    one_hot = {
        "shapes": jax.nn.one_hot(scene.shape, len(SHAPES)),
        "kinds": jax.nn.one_hot(scene.kind, len(KINDS)),
        "sizes": jax.nn.one_hot(size, len(SIZES)),
    }
    table = colours @ masks["colours"].T
    for name, values in one_hot.items():
        table = table * (values @ masks[name].T)
    return table


def contrastive_loss(
    images: jax.Array, texts: jax.Array, scale: jax.Array, table: jax.Array
) -> Any:
    """Cross-entropy between the softmax over the batch and the truth table, both ways."""
    images = images / jnp.linalg.norm(images, axis=-1, keepdims=True)
    texts = texts / jnp.linalg.norm(texts, axis=-1, keepdims=True)
    logits = jnp.exp(scale) * images @ texts.T

    def one_way(logits: jax.Array, table: jax.Array) -> jax.Array:
        target = table / jnp.maximum(table.sum(axis=-1, keepdims=True), 1e-6)
        return -jnp.mean(jnp.sum(target * jax.nn.log_softmax(logits, axis=-1), axis=-1))

    return 0.5 * (one_way(logits, table) + one_way(logits.T, table.T))


class Trainee(nnx.Module):
    """CLIP with linear heads for what a scene is known to be."""

    def __init__(self, cfg: CLIPConfig, *, rngs: nnx.Rngs):
        self.clip = CLIP(cfg, rngs=rngs)
        width = cfg.vision.width
        self.shape = nnx.Linear(width, len(SHAPES), rngs=rngs)
        self.colour = nnx.Linear(width, len(COLOURS), rngs=rngs)
        self.kind = nnx.Linear(width, len(KINDS), rngs=rngs)
        self.geometry = nnx.Linear(width, 2 + DIRECTIONS, rngs=rngs)

    def attribute_loss(self, features: jax.Array, scene: Scene) -> jax.Array:
        """Cross-entropy of the attributes and squared error of the geometry."""
        entropy = optax.softmax_cross_entropy_with_integer_labels
        formed = scene.kind != KINDS.index("splatter")
        geometry = jnp.concatenate([5 * scene.centre, 5 * outline(scene, DIRECTIONS)], axis=-1)
        errors = jnp.mean((self.geometry(features) - geometry) ** 2, axis=-1)
        loss = entropy(self.shape(features), scene.shape) * formed + errors * formed
        loss += entropy(self.colour(features), scene.colour) + entropy(
            self.kind(features), scene.kind
        )
        return loss.mean()


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


@functools.partial(
    jax.jit, static_argnames=("graph", "tx", "batch", "spread", "rough"), donate_argnums=0
)
def train_step(
    state: Any,
    bank: dict[str, jax.Array],
    key: jax.Array,
    graph: Any,
    tx: Any,
    batch: int,
    spread: NamedSharding,
    rough: bool,
) -> tuple[Any, jax.Array]:
    """One step from (parameters, optimiser state, step); the bank holds tokens and masks."""
    params, opt_state, count = state
    keys = jax.random.split(jax.random.fold_in(key, count), 4)
    rows = jax.random.randint(keys[0], (batch // SCENES,), 0, bank["tokens"].shape[0])
    masks = {name: values[rows] for name, values in bank.items() if name != "tokens"}
    scene = sample_scene(keys[1], {name: jnp.repeat(m, SCENES, 0) for name, m in masks.items()})
    images = render(scene, keys[2], IMAGE_SIZE, rough=rough)
    images = images + 0.02 * jax.random.normal(keys[3], images.shape)
    images = jax.lax.with_sharding_constraint(images, spread)
    tokens = jax.lax.with_sharding_constraint(bank["tokens"][rows], spread)

    def objective(params: nnx.State) -> jax.Array:
        trainee = nnx.merge(graph, params)
        model = trainee.clip
        features = model.visual.features(model.preprocess(images))
        image_embeds = model.visual.projection(features)
        text_embeds = model.embed_texts(tokens)
        contrast = contrastive_loss(
            image_embeds, text_embeds, model.logit_scale[...], truth(scene, masks)
        )
        return contrast + trainee.attribute_loss(features, scene)

    loss, grads = jax.value_and_grad(objective)(params)
    updates, opt_state = tx.update(grads, opt_state, params)
    params = optax.apply_updates(params, updates)
    scale = params["clip"]["logit_scale"]
    scale[...] = jnp.minimum(scale[...], jnp.log(50.0))
    return (params, opt_state, count + 1), loss


def shapes_clip_config(eos_token_id: int) -> CLIPConfig:
    """Sizes of the compact CLIP: 2 million parameters, 48 x 48 images in 36 patches."""
    return CLIPConfig(
        vision=TowerConfig(width=128, layers=5, heads=4, mlp_width=512),
        text=TowerConfig(width=128, layers=3, heads=4, mlp_width=512),
        image_size=IMAGE_SIZE,
        patch_size=8,
        vocab_size=VOCAB_SIZE,
        context_length=CONTEXT,
        embed_dim=128,
        eos_token_id=eos_token_id,
        image_mean=(0.9, 0.9, 0.9),
        image_std=(0.25, 0.25, 0.25),
    )


def any_scene(count: int, kinds: Sequence[str]) -> dict[str, jax.Array]:
    """Masks that allow everything but other kinds."""
    return {
        "colours": jnp.ones((count, len(COLOURS))),
        "shapes": jnp.ones((count, len(SHAPES))),
        "kinds": jnp.tile(jnp.asarray([float(kind in kinds) for kind in KINDS]), (count, 1)),
        "sizes": jnp.ones((count, len(SIZES))),
    }


def zero_shot(
    model: CLIP, tokenizer: CLIPTokenizerFast, seed: int, count: int, rough: bool = False
) -> dict[str, float]:
    """Zero-shot accuracy over clean and blurred scenes, averaged over the held-out frames."""
    key, ink_key = jax.random.split(jax.random.key(seed))
    scene = sample_scene(key, any_scene(count, ("clean", "blurred")))
    embed = nnx.jit(lambda model, images: model.embed_images(model.preprocess(images)))
    embeds = []
    for start in range(0, count, 250):
        part = jax.tree.map(lambda x, start=start: x[start : start + 250], scene)
        ink = jax.random.fold_in(ink_key, start)
        embeds.append(embed(model, render(part, ink, model.cfg.image_size, rough=rough)))
    images = jnp.concatenate(embeds)
    scores = {}
    for name, words, labels in (
        ("colour", [f"a {colour} shape" for colour in COLOURS], scene.colour),
        ("shape", [("an " if s[0] == "o" else "a ") + s for s in SHAPES], scene.shape),
    ):
        correct = []
        for frame in HELD_OUT_FRAMES:
            texts = model.embed_texts(
                jnp.asarray(tokenize(tokenizer, [frame.format(word) for word in words]))
            )
            texts = texts / jnp.linalg.norm(texts, axis=-1, keepdims=True)
            correct.append(jnp.mean(jnp.argmax(images @ texts.T, axis=-1) == labels))
        scores[name] = float(jnp.mean(jnp.asarray(correct)))
        scores[f"{name}, worst frame"] = float(jnp.min(jnp.asarray(correct)))
    return scores


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, required=True, help="folder of the checkpoint")
    parser.add_argument("--steps", type=int, default=2400)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--captions", type=int, default=60_000)
    parser.add_argument("--learning-rate", type=float, default=0.02)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--start", type=Path, help="folder of a checkpoint to go on from")
    parser.add_argument("--rough", action="store_true", help="draw rough shapes")
    args = parser.parse_args()

    # Two devices of one thread each train almost twice as fast as one device of two threads.
    os.environ.setdefault("XLA_FLAGS", "--xla_cpu_multi_thread_eigen=false")
    jax.config.update("jax_num_cpu_devices", os.cpu_count())
    start = time.perf_counter()
    texts, masks = caption_bank(args.seed, args.captions)
    tokenizer = train_tokenizer(texts)
    bank = {name: jnp.asarray(values) for name, values in masks.items()}
    bank["tokens"] = jnp.asarray(tokenize(tokenizer, texts))
    cfg = shapes_clip_config(tokenizer.eos_token_id)
    trainee = Trainee(cfg, rngs=nnx.Rngs(args.seed))
    scene = sample_scene(jax.random.key(args.seed + 1), any_scene(1000, KINDS))
    seen = render(scene, jax.random.key(args.seed + 2), IMAGE_SIZE)
    if args.start:
        trainee.clip, _ = load_clip(str(args.start))
    else:
        initialise_tower(trainee.clip.visual, trainee.clip.preprocess(seen))
    graph, params = nnx.split(trainee)
    warm = functools.partial(optax.warmup_cosine_decay_schedule, 0.0, decay_steps=args.steps)
    tx = optax.contrib.muon(
        warm(peak_value=args.learning_rate, warmup_steps=100),
        adam_learning_rate=warm(peak_value=1.5e-3, warmup_steps=100),
        weight_decay=0.02,
        muon_weight_dimension_numbers=muon_matrices,
    )
    mesh = jax.make_mesh((len(jax.devices()),), ("batch",), (AxisType.Auto,))
    spread = NamedSharding(mesh, PartitionSpec("batch"))
    state = (params, tx.init(params), jnp.zeros((), jnp.int32))
    key = jax.random.key(args.seed)
    average = 0.0
    for step in range(1, args.steps + 1):
        state, loss = train_step(state, bank, key, graph, tx, args.batch, spread, args.rough)
        average = 0.98 * average + 0.02 * float(loss) if step > 1 else float(loss)
        if step % 100 == 0:
            elapsed = time.perf_counter() - start
            shown = ""
            if step % 500 == 0:
                shown = str(zero_shot(nnx.merge(graph, state[0]).clip, tokenizer, 10_007, 1000))
            print(f"step {step}: loss {average:.3f}, {elapsed:.0f} s {shown}", flush=True)
    wall = time.perf_counter() - start
    clip = nnx.merge(graph, state[0]).clip
    scores = {rough: zero_shot(clip, tokenizer, 20_011, 5000, rough) for rough in (False, True)}
    print(scores)
    weights = jax.tree.map(lambda x: np.asarray(x, np.float16), nnx.to_pure_dict(state[0]["clip"]))
    save_model(args.output, {"kind": "clip", **cfg.to_dict()}, weights)
    tokenizer.save_pretrained(args.output)
    write_card(args, wall, scores)


def write_card(args: argparse.Namespace, wall: float, scores: dict[bool, dict[str, float]]) -> None:
    """The model card beside the weights."""
    rows = "\n".join(
        f"| {name} | {100 * value:.1f} % | {100 * scores[True][name]:.1f} % |"
        for name, value in scores[False].items()
    )
    start = f" --start {args.start}" if args.start else ""
    drawn = "rough" if args.rough else "regular"
    (args.output / "README.md").write_text(f"""# Shapes CLIP

A compact CLIP (`qdgs_jax.models.clip`): 48 x 48 images, five vision and three text layers of
width 128, its own byte-pair tokenizer of {VOCAB_SIZE} tokens in Hugging Face's format.

- Data: {len(COLOURS)} colours x {len(SHAPES)} shapes x {len(SIZES)} sizes; {", ".join(KINDS)};
  drawn by `qdgs_jax.domains.shapes_drawing`, {args.steps * args.batch:,} {drawn} images, none
  repeated;
  {args.captions:,} captions of the grammar in `scripts/training/shapes_captions.py`.
- Command: `python scripts/training/train_shapes_clip.py --output {args.output}{start}
  {"--rough " if args.rough else ""}--steps {args.steps} --batch {args.batch}
  --learning-rate {args.learning_rate} --seed {args.seed}`
- Wall time: {wall / 60:.1f} minutes on 2 shared CPU cores.
- Licence: that of the repository.

Zero-shot accuracy on 5,000 clean and blurred scenes of another seed, with sentence frames never
seen in training, drawn with regular and with rough outlines:

| what | regular | rough |
| --- | --- | --- |
{rows}
""")


if __name__ == "__main__":
    main()
