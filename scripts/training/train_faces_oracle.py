"""Train the faces' oracle: skin tone, age, hair length and gender cues of a picture, without CLIP.

    python scripts/training/train_faces_oracle.py --output runs/faces-oracle

Drawings are balanced over groups and made inside the training step, so that none is seen twice; in
half of them skin, age, gender cues and hair are uniform over their ranges, so that the network also
knows what lies between groups. They are shifted, blurred, brightened and made noisy, because
generated pictures are. Accuracies are printed for held-out drawings of the balanced population,
plain and spoilt. Cost and scores: see the model card that the script writes.
"""

from __future__ import annotations

import argparse
import functools
import time
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from faces_pictures import spoil, traits_of, widen
from flax import nnx

from qdgs_jax import keys
from qdgs_jax.domains.faces_drawing import draw, label_faces, sample_population
from qdgs_jax.models.face_regressor import (
    TRAITS,
    FaceRegressor,
    FaceRegressorConfig,
    Traits,
    scale_traits,
)
from qdgs_jax.ports.model_folder import load_model, save_model

TEST_FACES = 2000


def training_batch(key: jax.Array, batch: int) -> tuple[jax.Array, jax.Array]:
    """Spoilt drawings Float[batch, 64, 64, 3], and their traits in [-1, 1]."""
    face_key, wide_key, spoil_key = jax.random.split(key, 3)
    faces = widen(wide_key, sample_population(face_key, batch, "balanced")[0])
    return spoil(spoil_key, draw(faces)), scale_traits(traits_of(faces))


def negative_log_likelihood(seen: Traits, traits: jax.Array) -> jax.Array:
    """Of Gaussians, up to a constant, Float[]."""
    squared = (seen.mean - traits) ** 2
    return 0.5 * jnp.mean(squared * jnp.exp(-seen.log_variance) + seen.log_variance)


@functools.partial(jax.jit, static_argnames=("graph", "tx", "batch"), donate_argnums=0)
def train_step(
    state: Any, key: jax.Array, graph: Any, tx: Any, batch: int
) -> tuple[Any, jax.Array]:
    """One step from (parameters, optimiser state, step)."""
    params, opt_state, count = state
    images, traits = training_batch(jax.random.fold_in(key, count), batch)

    def objective(params: nnx.State) -> jax.Array:
        return negative_log_likelihood(nnx.merge(graph, params)(images), traits)

    loss, grads = jax.value_and_grad(objective)(params)
    updates, opt_state = tx.update(grads, opt_state, params)
    return (optax.apply_updates(params, updates), opt_state, count + 1), loss


def accuracies(graph: Any, params: Any, key: jax.Array, spoilt: bool) -> dict[str, float]:
    """Shares of held-out drawings whose group the oracle finds, and mean absolute errors."""
    face_key, spoil_key = jax.random.split(key)
    faces, labels = sample_population(face_key, TEST_FACES, "balanced")
    images = draw(faces)
    if spoilt:
        images = spoil(spoil_key, images)
    seen = jax.jit(lambda params, x: nnx.merge(graph, params)(x).values)(params, images)
    skin, age, hair, gender = seen.T
    identity = faces.identity._replace(skin=skin, age=age, gender=gender)
    found = label_faces(faces._replace(identity=identity, hair_length=hair))
    scores = {
        name: float(jnp.mean(getattr(found, name) == getattr(labels, name))) for name in TRAITS
    }
    errors = jnp.abs(seen - traits_of(faces)).mean(axis=0)
    return scores | {f"{name}, error": float(e) for name, e in zip(TRAITS, errors, strict=True)}


def card(args: argparse.Namespace, wall: float, scores: dict[bool, dict[str, float]]) -> str:
    """The model card beside the weights."""
    rows = "\n".join(
        f"| {name} | {100 * scores[False][name]:.1f} % | {100 * scores[True][name]:.1f} % "
        f"| {scores[False][f'{name}, error']:.2f} | {scores[True][f'{name}, error']:.2f} |"
        for name in TRAITS
    )
    return f"""# Faces' oracle

A convolutional regressor (`qdgs_jax.models.face_regressor`) of skin tone, age, hair length and
gender cues of 64 x 64 faces.

- Data: faces drawn by `qdgs_jax.domains.faces_drawing`, balanced over groups, shifted, blurred,
  brightened and noisy; {args.steps * args.batch:,} images, none repeated.
- Command: `python scripts/training/train_faces_oracle.py --output {args.output.name} --steps
  {args.steps} --batch {args.batch} --seed {args.seed}`
- Wall time: {wall / 60:.1f} minutes on one shared CPU core.
- Licence: that of the repository.

{TEST_FACES:,} held-out drawings of the balanced population: share whose group is found, and mean
absolute error in units of Monk's scale, years, hair length in [0, 1], gender cues in [-1, 1].

| what | plain | spoilt | error, plain | error, spoilt |
| --- | --- | --- | --- | --- |
{rows}
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, required=True, help="folder of the checkpoint")
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--learning-rate", type=float, default=2e-3)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()

    cfg = FaceRegressorConfig()
    root = keys.root(args.seed)
    rngs = nnx.Rngs(params=keys.stream(root, "faces oracle/weights"))
    graph, params = nnx.split(FaceRegressor(cfg, rngs=rngs))
    schedule = optax.warmup_cosine_decay_schedule(0.0, args.learning_rate, 100, args.steps)
    tx = optax.chain(optax.clip_by_global_norm(1.0), optax.adam(schedule))
    state = (params, tx.init(params), jnp.zeros((), jnp.int32))
    key = keys.stream(root, "faces oracle/drawings")
    start = time.perf_counter()
    average = 0.0
    for step in range(1, args.steps + 1):
        state, loss = train_step(state, key, graph, tx, args.batch)
        average = 0.98 * average + 0.02 * float(loss) if step > 1 else float(loss)
        if step % 100 == 0:
            elapsed = time.perf_counter() - start
            print(f"step {step}: loss {average:.3f}, {elapsed:.0f} s", flush=True)
    wall = time.perf_counter() - start
    params = jax.tree.map(lambda x: np.asarray(x, np.float16), nnx.to_pure_dict(state[0]))
    save_model(args.output, {"kind": "face_regressor", **cfg.to_dict()}, params)
    _, kept = load_model(args.output)  # scores are those of what is on disk
    nnx.replace_by_pure_dict(state[0], jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), kept))
    test_key = keys.stream(root, "faces oracle/test")
    scores = {spoilt: accuracies(graph, state[0], test_key, spoilt) for spoilt in (False, True)}
    for spoilt, values in scores.items():
        shown = ", ".join(f"{name} {value:.3f}" for name, value in values.items())
        print(f"{'spoilt' if spoilt else 'plain'}: {shown}", flush=True)
    (args.output / "README.md").write_text(card(args, wall, scores), encoding="utf-8")


if __name__ == "__main__":
    main()
