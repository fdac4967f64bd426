"""Train the embedded CLIP on drawn, captioned shapes.

    python scripts/training/train_shapes_clip.py --output runs/shapes-clip-regular
    python scripts/training/train_shapes_clip.py --output runs/shapes-clip \
        --start runs/shapes-clip-regular --rough --steps 900 --learning-rate 0.01

The first run learns from regular shapes. The second goes on with rough ones, for a generator draws
neither straight edges nor sharp corners, and a model that never saw such shapes takes a triangle
with round corners for a square.

A bank of captions is drawn from a grammar (`shapes_captions.py`); each step picks captions and
draws a scene that fits each. Heads tell attributes and outline. How it is trained: see
`clip_training.py`. Zero-shot accuracy is measured on scenes of another seed with sentence frames
that training never used. Cost and scores: see the model card that the script writes.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import optax
from clip_training import (
    VOCAB_SIZE,
    Batch,
    Trainee,
    arguments,
    compact_config,
    embed_in_parts,
    initialise_tower,
    tokenize,
    train,
    train_tokenizer,
    use_every_core,
    zero_shot_accuracies,
)
from flax import nnx
from shapes_captions import HELD_OUT_FRAMES, SIZES, caption_bank
from shapes_card import write_card
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
from qdgs_jax.models.clip import CLIP, CLIPConfig

CONTEXT = 24
IMAGE_SIZE = 48
DIRECTIONS = 24  # in which the outline is predicted
SCENES = 2  # scenes drawn for each caption of a batch
RADIUS = (0.16, 0.38)
SIZE_EDGES = (0.22, 0.30)  # circumradii at which small and medium end


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


class ShapesTrainee(Trainee):
    """CLIP with linear heads for what a scene is known to be."""

    def __init__(self, cfg: CLIPConfig, *, rngs: nnx.Rngs):
        super().__init__(cfg, rngs=rngs)
        width = cfg.vision.width
        self.shape = nnx.Linear(width, len(SHAPES), rngs=rngs)
        self.colour = nnx.Linear(width, len(COLOURS), rngs=rngs)
        self.kind = nnx.Linear(width, len(KINDS), rngs=rngs)
        self.geometry = nnx.Linear(width, 2 + DIRECTIONS, rngs=rngs)

    def attribute_loss(self, features: jax.Array, known: Scene) -> jax.Array:
        """Cross-entropy of the attributes and squared error of the geometry."""
        entropy = optax.softmax_cross_entropy_with_integer_labels
        formed = known.kind != KINDS.index("splatter")
        geometry = jnp.concatenate([5 * known.centre, 5 * outline(known, DIRECTIONS)], axis=-1)
        errors = jnp.mean((self.geometry(features) - geometry) ** 2, axis=-1)
        loss = entropy(self.shape(features), known.shape) * formed + errors * formed
        loss += entropy(self.colour(features), known.colour) + entropy(
            self.kind(features), known.kind
        )
        return loss.mean()


def shapes_lesson(bank: dict[str, jax.Array], key: jax.Array, *, batch: int, rough: bool) -> Batch:
    """Scenes, and captions of which each is true of `SCENES` of them and maybe of more."""
    keys = jax.random.split(key, 4)
    rows = jax.random.randint(keys[0], (batch // SCENES,), 0, bank["tokens"].shape[0])
    masks = {name: values[rows] for name, values in bank.items() if name != "tokens"}
    scene = sample_scene(keys[1], {name: jnp.repeat(m, SCENES, 0) for name, m in masks.items()})
    images = render(scene, keys[2], IMAGE_SIZE, rough=rough)
    images = images + 0.02 * jax.random.normal(keys[3], images.shape)
    return Batch(images, bank["tokens"][rows], truth(scene, masks), scene)


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
    parts = []
    for start in range(0, count, 250):
        part = jax.tree.map(lambda x, start=start: x[start : start + 250], scene)
        ink = jax.random.fold_in(ink_key, start)
        parts.append(render(part, ink, model.cfg.image_size, rough=rough))
    embeds = embed_in_parts(model, jnp.concatenate(parts))
    scores: dict[str, float] = {}
    for name, words, labels in (
        ("colour", [f"a {colour} shape" for colour in COLOURS], scene.colour),
        ("shape", [("an " if s[0] == "o" else "a ") + s for s in SHAPES], scene.shape),
    ):
        correct = zero_shot_accuracies(model, tokenizer, embeds, labels, words, HELD_OUT_FRAMES)
        scores[name] = sum(correct) / len(correct)
        scores[f"{name}, worst frame"] = min(correct)
    return scores


def main() -> None:
    parser = arguments(__doc__, steps=2400, captions=60_000)
    parser.add_argument("--rough", action="store_true", help="draw rough shapes")
    args = parser.parse_args()

    use_every_core()
    start = time.perf_counter()
    texts, masks = caption_bank(args.seed, args.captions)
    tokenizer = train_tokenizer(texts, CONTEXT)
    bank = {name: jnp.asarray(values) for name, values in masks.items()}
    bank["tokens"] = jnp.asarray(tokenize(tokenizer, texts))
    cfg = compact_config(IMAGE_SIZE, CONTEXT, tokenizer.eos_token_id, mean=0.9, std=0.25)
    trainee = ShapesTrainee(cfg, rngs=nnx.Rngs(args.seed))
    scene = sample_scene(jax.random.key(args.seed + 1), any_scene(1000, KINDS))
    seen = render(scene, jax.random.key(args.seed + 2), IMAGE_SIZE)
    if args.start:
        trainee.clip, _ = load_clip(str(args.start))
    else:
        initialise_tower(trainee.clip.visual, trainee.clip.preprocess(seen))
    lesson = functools.partial(shapes_lesson, batch=args.batch, rough=args.rough)
    score = functools.partial(zero_shot, tokenizer=tokenizer, seed=10_007, count=1000)
    clip = train(trainee, lesson, bank, jax.random.key(args.seed), args, score, tokenizer)
    wall = time.perf_counter() - start
    scores = {rough: zero_shot(clip, tokenizer, 20_011, 5000, rough) for rough in (False, True)}
    print(scores)
    write_card(args, VOCAB_SIZE, wall, scores)


if __name__ == "__main__":
    main()
