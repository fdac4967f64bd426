"""How well a CLIP judges drawn faces: zero-shot groups, and measures along the packaged prompts."""

from __future__ import annotations

import tomllib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from clip_training import embed_in_parts, zero_shot_accuracies
from faces_pictures import corrupt, spoil, traits_of, widen
from scipy.stats import spearmanr
from transformers import CLIPTokenizerFast

from qdgs_jax import keys
from qdgs_jax.domains.cutouts import random_cutouts
from qdgs_jax.domains.faces_drawing import draw, sample_population
from qdgs_jax.domains.faces_drawing.captions import HELD_OUT_FRAMES, QUALITY_FRAMES
from qdgs_jax.domains.prompts import PromptPair, embed_prompts, split_prompt
from qdgs_jax.domains.scoring import PromptAxis
from qdgs_jax.domains.weights import ASSETS
from qdgs_jax.models.clip import CLIP
from qdgs_jax.models.face_regressor import TRAITS

PHRASES = {
    "skin": ("a person with light skin", "a person with mixed skin", "a person with dark skin"),
    "age": ("a young person", "an old person"),
    "gender": ("a masculine person", "an androgynous person", "a feminine person"),
    "hair": ("a person with short hair", "a person with long hair"),
    "glasses": ("a person with no glasses", "a person with glasses"),
}
CORRUPTED_FROM = 0.6  # amount of corruption of the pictures that must be found unclear
QUALITIES = ("an obscure, fake, or discolored", "a detailed")
COUNT = 1000
Scores = dict[str, float]


def embed_faces(model: CLIP, images: jax.Array) -> jax.Array:
    """Embeddings Float[B, E] of whole images Float[B, S, S, 3] in [-1, 1]."""
    size = model.cfg.image_size
    return embed_in_parts(model, random_cutouts(0.5 + 0.5 * images, jax.random.key(0), 0, size)[0])


def zero_shot(
    model: CLIP, tokenizer: CLIPTokenizerFast, seed: int, count: int, spoilt: bool = False
) -> Scores:
    """Accuracies per attribute and for the quality, mean of and least among held-out frames."""
    root = keys.root(seed)
    faces, labels = sample_population(keys.stream(root, "scores/faces"), count, "balanced")
    images = draw(faces)
    worse = corrupt(keys.stream(root, "scores/corrupted"), images, jnp.roll(images, 1, axis=0))
    if spoilt:
        images = spoil(keys.stream(root, "scores/spoilt"), images)
    embeds = embed_faces(model, images)
    scores = {}
    for name, phrases in PHRASES.items():
        shares = zero_shot_accuracies(
            model, tokenizer, embeds, getattr(labels, name), phrases, HELD_OUT_FRAMES
        )
        scores[name] = float(np.mean(shares))
        scores[f"{name}, worst frame"] = min(shares)
    unclear = embed_faces(model, worse.images[worse.amount >= CORRUPTED_FROM])
    shown = jnp.concatenate([unclear, embeds[: len(unclear)]])
    frames = [frame.format("{}", "a person") for frame in QUALITY_FRAMES["held out"]]
    clear = jnp.arange(len(shown)) >= len(unclear)
    shares = zero_shot_accuracies(model, tokenizer, shown, clear, QUALITIES, frames)
    return scores | {"quality": float(np.mean(shares)), "quality, worst frame": min(shares)}


def packaged_axes(model: CLIP, tokenizer: CLIPTokenizerFast) -> dict[str, PromptAxis]:
    """The objective's axis and the measures' of the packaged run file, by name."""
    run: dict[str, Any] = tomllib.loads((ASSETS / "faces.toml").read_text(encoding="utf-8"))
    tables = {"objective": run["objective"]} | {table["name"]: table for table in run["measures"]}
    pairs = [
        PromptPair(split_prompt(table["positive"]), split_prompt(table["negative"]))
        for table in tables.values()
    ]
    return dict(zip(tables, embed_prompts(model, tokenizer, pairs), strict=True))


def measure_scores(model: CLIP, tokenizer: CLIPTokenizerFast, seed: int) -> Scores:
    """Rank correlation of each measure with what was drawn, and what its 5 % to 95 % span."""
    root = keys.root(seed)
    faces = sample_population(keys.stream(root, "measures/faces"), COUNT, "balanced")[0]
    faces = widen(keys.stream(root, "measures/wide"), faces, share=1.0)
    images = draw(faces)
    values = np.asarray(traits_of(faces))
    worse = corrupt(keys.stream(root, "measures/corrupted"), images, jnp.roll(images, 1, axis=0))
    axes = packaged_axes(model, tokenizer)
    embeds = embed_faces(model, images)
    scores: Scores = {}
    for column, name in enumerate(TRAITS):
        measure = np.asarray(axes[name].distance(embeds))
        low, high = np.quantile(measure, (0.05, 0.95))
        rank = spearmanr(measure, values[:, column]).statistic
        scores |= {f"{name}, rank": float(rank), f"{name}, low": low, f"{name}, high": high}
    clear = np.asarray(axes["objective"].distance(embeds))
    unclear = np.asarray(axes["objective"].distance(embed_faces(model, worse.images)))
    apart = np.mean(clear[:, None] < unclear[None])
    rank = spearmanr(unclear, worse.amount).statistic
    return scores | {
        "objective, clear below corrupted": float(apart),
        "objective, rank": float(rank),
        "objective, clear": float(clear.mean()),
        "objective, corrupted": float(unclear.mean()),
    }


def all_scores(model: CLIP, tokenizer: CLIPTokenizerFast) -> dict[str, Scores]:
    """Zero-shot accuracies on plain and on spoilt drawings, and scores of the measures."""
    scores = {
        "plain": zero_shot(model, tokenizer, 20_011, COUNT),
        "spoilt": zero_shot(model, tokenizer, 20_011, COUNT, spoilt=True),
        "measures": measure_scores(model, tokenizer, 30_011),
    }
    for name, values in scores.items():
        print(name, {key: round(value, 4) for key, value in values.items()}, flush=True)
    return scores
