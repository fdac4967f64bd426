"""Inputs of `reproduce_faces.py --smoke`: networks of the true sizes, made-up weights, few faces.

Nothing that comes out means anything: it shows that the whole program goes through, at the shapes
and with the compiled programs of the real one but for their batches.
"""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

import numpy as np
from flax import nnx
from reproduce_faces import Paths

from qdgs_jax import ports
from qdgs_jax.cli.init import packaged_run
from qdgs_jax.datasets.face_pairs import write_pairs
from qdgs_jax.datasets.manifest import MANIFEST
from qdgs_jax.datasets.real_faces import write_identities
from qdgs_jax.domains.weights import ASSETS
from qdgs_jax.models.clip import CLIP, CLIPConfig, TowerConfig
from qdgs_jax.models.stylegan2 import Generator, StyleGAN2Config, code_statistics
from qdgs_jax.ports.faces.pairs import FacePairs, PairIndex
from qdgs_jax.ports.registry import STATISTICS
from qdgs_jax.train.faces.recipe import default_recipe, recipe_to_toml

FFHQ_256 = StyleGAN2Config.from_base(256, channel_base=16384, conv_clamp=256.0)
VIT_B32 = CLIPConfig(
    vision=TowerConfig(width=768, layers=12, heads=12, mlp_width=3072),
    text=TowerConfig(width=512, layers=12, heads=8, mlp_width=2048),
    image_size=224,
    patch_size=32,
    vocab_size=49408,
    context_length=77,
    embed_dim=512,
    eos_token_id=1,  # of the small tokenizer that stands in
)
SIZES = {"15": 2, "50": 4}  # latents
IDENTITIES, IMAGES, PAIRS, BATCH = 2, 2, 10, 2
CHANGES = {  # of faces.toml
    'generator = "weights/ffhq-256"': 'generator = "generator"',
    'clip = "weights/vit-b-32"': 'clip = "clip"',
    "cells = 50": "cells = 4",
    "cells = 25": "cells = 4",
    "evaluations = 240513": "evaluations = 13",
    "start_batches = 32": "start_batches = 1",
    "start_batch_size = 16": "start_batch_size = 4",
    "chunk = 25": "chunk = 1",
    "restarts = 10": "restarts = 1",
    "size = 2 ": "size = 1 ",
    "augmentation_count = 9": "augmentation_count = 2",
}
FEW = 8  # samples of the generator that measures are looked at with


@contextlib.contextmanager
def with_few_samples() -> Iterator[None]:
    """Have measures judged by few samples, of which each costs a second here."""
    with mock.patch("qdgs_jax.domains.prompted.SAMPLES", FEW):
        yield


def smoke_inputs(out: Path) -> Paths:
    """Make all inputs below a folder, as far as they are not there."""
    place = out / "inputs"
    place.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)

    def pictures(count: int) -> np.ndarray:
        return rng.integers(0, 256, (count, 112, 112, 3), np.uint8)

    if not (place / "generator" / "config.json").is_file():
        generator = Generator(FFHQ_256, rngs=nnx.Rngs(0))
        statistics = code_statistics(generator.mapping, FFHQ_256.num_ws).to_dict()
        settings = {"kind": "stylegan2", **FFHQ_256.to_dict(), STATISTICS: statistics}
        save(place / "generator", settings, generator)
    if not (place / "clip" / "config.json").is_file():
        model = CLIP(VIT_B32, rngs=nnx.Rngs(1))
        save(place / "clip", {"kind": "clip", **VIT_B32.to_dict()}, model)
        for name in ("tokenizer.json", "tokenizer_config.json"):
            shutil.copyfile(ASSETS / "faces-clip" / name, place / "clip" / name)
    if not (place / "real" / MANIFEST).is_file():
        who = np.repeat(np.arange(IDENTITIES), IMAGES)
        write_identities(place / "real", pictures(len(who)), who)
    for name in ("lfw", "dark", "light"):
        if not (place / name / MANIFEST).is_file():
            same = np.arange(PAIRS) % 2 == 0
            write_pairs(place / name, FacePairs(pictures(2 * PAIRS), PairIndex.in_rows(same)))
    run = packaged_run("faces")
    for old, new in CHANGES.items():
        if old not in run:
            raise ValueError(f"faces.toml no longer says {old!r}: mend CHANGES.")
        run = run.replace(old, new)
    (place / "faces.toml").write_text(run, encoding="utf-8")
    recipe = default_recipe()
    steps = recipe.optimizer.model_copy(update={"epochs": 1, "batch_size": BATCH, "milestones": ()})
    recipe = recipe.model_copy(update={"optimizer": steps})
    (place / "recognition.toml").write_text(recipe_to_toml(recipe), encoding="utf-8")
    return Paths(
        out=out,
        run_file=place / "faces.toml",
        real=place / "real",
        benchmarks={"lfw": place / "lfw"},
        skin={"dark": place / "dark", "light": place / "light"},
        recipe=place / "recognition.toml",
        sizes=SIZES,
    )


def save(folder: Path, settings: dict[str, object], model: nnx.Module) -> None:
    """Write a model folder."""
    ports.save_model(folder, settings, nnx.to_pure_dict(nnx.state(model)))
