"""Train the embedded faces' CLIP on drawn, captioned faces.

    python scripts/training/train_faces_clip.py --output runs/faces-clip-drawn
    python scripts/training/train_faces_clip.py --output runs/faces-clip --start
        runs/faces-clip-drawn --generator runs/faces-stylegan2 --push 0.02 --steps 600

The first run learns from drawings of the balanced population, half of them with traits between
groups, all spoilt a little, a quarter corrupted. The second goes on with pictures of the faces'
generator among them, whose attributes are known since its codes are attributes, and with
pixels pushed to where the loss is larger, so that a search does not find pictures that only look to
CLIP as they should. How it is trained: see `clip_training.py`.

Groups are soft: a caption is true of a face between groups as far as each group is near, so that
the difference of two captions' scores grows evenly with what they differ in. Zero-shot accuracy is
measured on drawings of another seed with sentence frames that training never used, and the
measures of the packaged run files against the attributes that were drawn. Cost and scores: see the
model card that the script writes.
"""

from __future__ import annotations

import functools
import random
import time
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from clip_training import (
    Bank,
    Batch,
    Trainee,
    arguments,
    compact_config,
    initialise_tower,
    tokenize,
    train,
    train_tokenizer,
    use_every_core,
)
from faces_card import write_card
from faces_clip_scores import all_scores, zero_shot
from faces_pictures import corrupt, spoil, traits_of, widen
from filler_words import with_fillers
from flax import nnx
from train_faces_stylegan2 import flat, scales

from qdgs_jax import keys
from qdgs_jax.domains.cutouts import random_cutouts
from qdgs_jax.domains.faces_drawing import (
    GEOMETRY,
    FaceAttributes,
    caption_bank,
    draw,
    sample_population,
)
from qdgs_jax.domains.weights import checkpoint_folder, load_clip
from qdgs_jax.models.clip import CLIPConfig
from qdgs_jax.models.face_regressor import TRAITS, scale_traits
from qdgs_jax.models.stylegan2 import Generator
from qdgs_jax.ports.loading import load

CONTEXT = 32
IMAGE_SIZE = 48
LAYERS = (4, 2)  # of the towers for images and texts
TEXTS = 48  # captions of a batch
CORRUPTED = 0.25  # share of the pictures
CUTOUTS = 0.25  # share of the pictures of which a cutout is seen
UNCLEAR_FROM = 0.4  # amount of corruption at which a picture is as clear as not
# Centres of groups and the variance around them; between two centres lies the groups' edge.
SOFT_GROUPS = {
    "skin": ((3.5, 5.5, 7.5), 1.5),
    "age": ((30.0, 50.0), 100.0),
    "gender": ((-2 / 3, 0.0, 2 / 3), 0.12),
    "hair": ((0.25, 0.75), 0.04),
    "glasses": ((0.0, 1.0), 0.08),
    "decade": (tuple(range(15, 95, 10)), 64.0),
    "quality": ((1.0, 0.0), 0.08),
}


class Known(NamedTuple):
    """What is known of the images of a batch; every field has leading axis B.

    Attributes:
        traits: Float[B, len(TRAITS)] in [-1, 1].
        glasses: Float[B] in {0, 1}.
        geometry: Float[B, len(GEOMETRY)] in [-1, 1].
        amount: Float[B] in [0, 1], how far the picture is corrupted.
    """

    traits: jax.Array
    glasses: jax.Array
    geometry: jax.Array
    amount: jax.Array


class FacesTrainee(Trainee):
    """CLIP with linear heads for what a face is known to be."""

    def __init__(self, cfg: CLIPConfig, *, rngs: nnx.Rngs):
        super().__init__(cfg, rngs=rngs)
        self.heads = nnx.Linear(cfg.vision.width, len(TRAITS) + 2 + len(GEOMETRY), rngs=rngs)

    def attribute_loss(self, features: jax.Array, known: Known) -> jax.Array:
        """Squared errors of traits, geometry and corruption, cross-entropy of glasses."""
        count = len(TRAITS)
        traits, glasses, amount, geometry = jnp.split(
            self.heads(features), (count, count + 1, count + 2), axis=-1
        )
        loss = jnp.sum((traits - known.traits) ** 2, axis=-1)
        loss += 0.5 * optax.sigmoid_binary_cross_entropy(glasses[:, 0], known.glasses)
        loss += 0.5 * jnp.mean((geometry - known.geometry) ** 2, axis=-1)
        face = jnp.where(known.amount > 0.0, 0.0, 1.0)  # of others it cannot be told
        return 2.0 * jnp.mean(face * loss + (amount[:, 0] - known.amount) ** 2)


def beliefs(faces: FaceAttributes, amount: jax.Array, share: jax.Array) -> dict[str, jax.Array]:
    """How far faces belong to each group, Float[B, groups] per attribute; rows sum to 1.

    Args:
        faces: of the batch.
        amount: Float[B], how far pictures are corrupted; groups become uncertain with it.
        share: Float[B], how much of the face before it each picture shows.
    """
    values = dict(zip(TRAITS, traits_of(faces).T, strict=True))
    values |= {"glasses": faces.glasses, "decade": values["age"]}
    found = {}
    for name, value in values.items():
        centres, variance = SOFT_GROUPS[name]
        sure = jax.nn.softmax(-0.5 * (value[:, None] - jnp.asarray(centres)) ** 2 / variance)
        sure = sure + share[:, None] * (jnp.roll(sure, 1, axis=0) - sure)
        found[name] = sure + 0.7 * amount[:, None] * (1.0 / len(centres) - sure)
    centres, variance = SOFT_GROUPS["quality"]
    unclear = amount + (0.5 - UNCLEAR_FROM)
    apart = (unclear[:, None] - jnp.asarray(centres)) ** 2
    return found | {"quality": jax.nn.softmax(-0.5 * apart / variance)}


def generated_faces(
    graph: nnx.GraphDef[Generator], given: dict[str, Any], faces: FaceAttributes
) -> jax.Array:
    """Pictures Float[B, 64, 64, 3] that the faces' generator draws of faces.

    Args:
        graph: structure of the generator.
        given: its "weights", and the "mean" and "std" that make its codes of attributes.
        faces: to be drawn.
    """
    model = nnx.merge(graph, given["weights"])
    codes = (flat(faces) - given["mean"]) / given["std"]
    return model.synthesis(jnp.repeat(codes[:, None], model.cfg.num_ws, axis=1), noise="const")


def look(key: jax.Array, images: jax.Array) -> jax.Array:
    """Images in [-1, 1] as a search shows them to CLIP: whole, or one cutout of a part of them."""
    images = 0.5 + 0.5 * images
    place_key, which_key = jax.random.split(key)
    whole = random_cutouts(images, place_key, 0, IMAGE_SIZE)[0]
    cutout = random_cutouts(images, place_key, 1, IMAGE_SIZE)[0]
    chosen = jax.random.bernoulli(which_key, CUTOUTS, (len(images), 1, 1, 1))
    return jnp.where(chosen, cutout, whole)


def faces_lesson(
    bank: Bank, key: jax.Array, *, batch: int, generator: nnx.GraphDef[Generator] | None
) -> Batch:
    """Drawn faces, a quarter of them corrupted; with a generator, it draws another quarter."""
    keys_of = jax.random.split(key, 6)
    faces = widen(keys_of[1], sample_population(keys_of[0], batch, "balanced")[0])
    drawn = batch - (batch // 4 if generator else 0)
    pictures = draw(jax.tree.map(lambda values: values[:drawn], faces))
    others = jnp.roll(pictures, 1, axis=0)
    count = int(CORRUPTED * batch)
    worse = corrupt(keys_of[2], pictures[:count], others[:count])
    images = spoil(keys_of[3], jnp.concatenate([worse.images, pictures[count:]]))
    if generator:
        rest = jax.tree.map(lambda values: values[drawn:], faces)
        images = jnp.concatenate([images, generated_faces(generator, bank["generator"], rest)])
    amount, share = (jnp.pad(v, (0, batch - count)) for v in (worse.amount, worse.share))
    rows = jax.random.randint(keys_of[4], (TEXTS,), 0, len(bank["tokens"]))
    table = jnp.ones((batch, TEXTS))
    for name, groups in beliefs(faces, amount, share).items():
        table = table * (groups @ bank[name][rows].T)
    known = Known(scale_traits(traits_of(faces)), faces.glasses, faces.identity.geometry, amount)
    return Batch(look(keys_of[5], images), bank["tokens"][rows], table, known)


def main() -> None:
    parser = arguments(__doc__, steps=2500, captions=40_000)
    parser.add_argument("--generator", type=Path, help="folder of the StyleGAN2 to learn from")
    parser.add_argument("--push", type=float, default=0.0, help="adversarial change of pixels")
    args = parser.parse_args()

    use_every_core()
    start = time.perf_counter()
    root = keys.root(args.seed)
    texts, masks = caption_bank(keys.stream(root, "faces clip/captions"), args.captions)
    words = random.Random(args.seed)
    texts = [with_fillers(text, words) for text in texts]
    tokenizer = train_tokenizer(texts, CONTEXT)
    bank: Bank = {name: jnp.asarray(values) for name, values in masks.items()}
    bank["tokens"] = jnp.asarray(tokenize(tokenizer, texts))
    cfg = compact_config(
        IMAGE_SIZE, CONTEXT, tokenizer.eos_token_id, mean=0.5, std=0.25, layers=LAYERS
    )
    trainee = FacesTrainee(cfg, rngs=nnx.Rngs(params=keys.stream(root, "faces clip/weights")))
    if args.start:
        trainee.clip, tokenizer = load_clip(str(args.start))
        bank["tokens"] = jnp.asarray(tokenize(tokenizer, texts))
    else:
        seen = sample_population(keys.stream(root, "faces clip/first"), 1000, "balanced")[0]
        pixels = random_cutouts(0.5 + 0.5 * draw(seen), root, 0, IMAGE_SIZE)[0]
        initialise_tower(trainee.clip.visual, trainee.clip.preprocess(pixels))
    generator = None
    if args.generator:
        generator, weights = nnx.split(load(checkpoint_folder(str(args.generator)), Generator))
        mean, std = scales(root)
        bank["generator"] = {"weights": weights, "mean": mean, "std": std}
    lesson = functools.partial(faces_lesson, batch=args.batch, generator=generator)
    score = functools.partial(zero_shot, tokenizer=tokenizer, seed=10_007, count=1000)
    key = keys.stream(root, "faces clip/batches")
    train(trainee, lesson, bank, key, args, score, tokenizer, args.push)
    wall = time.perf_counter() - start
    clip, _ = load_clip(str(args.output))  # scores are those of what is on disk
    write_card(args, wall, all_scores(clip, tokenizer))


if __name__ == "__main__":
    main()
