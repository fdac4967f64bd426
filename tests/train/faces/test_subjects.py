"""Whether subjects are people, on embeddings of which that is known."""

from __future__ import annotations

import math

import numpy as np
import pytest

from qdgs_jax.train.faces import subjects as module
from qdgs_jax.train.faces.subjects import auc, subject_auc


def clouds(spread: float, seed: int = 0, people: int = 40, latents: int = 2, images: int = 5):
    """Unit vectors around a direction per person: embeddings, subjects and latents."""
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(people, 16))
    who = np.repeat(np.arange(people), latents * images)
    shown = centres[who] + spread * rng.normal(size=(len(who), 16))
    shown /= np.linalg.norm(shown, axis=1, keepdims=True)
    return shown.astype(np.float32), who, np.arange(len(who)) // images


def test_auc_by_hand() -> None:
    assert auc(np.array([1.0, 2.0]), np.array([3.0, 4.0])) == 1.0
    assert auc(np.array([3.0, 4.0]), np.array([1.0, 2.0])) == 0.0
    assert auc(np.array([1.0, 3.0]), np.array([2.0, 4.0])) == 0.75
    assert auc(np.array([1.0, 1.0]), np.array([1.0])) == 0.5
    assert math.isnan(auc(np.array([]), np.array([1.0])))


def test_people_are_told_apart_and_names_are_not() -> None:
    found = subject_auc(*clouds(0.1))
    assert (found.subjects, found.images) == (40, 400)
    assert found.all_pairs > 0.99
    assert found.other_latents > 0.99
    assert found.shuffled == pytest.approx(0.5, abs=0.03)
    noise = subject_auc(*clouds(100.0))
    assert noise.all_pairs == pytest.approx(0.5, abs=0.05)


def test_variations_of_one_picture_count_apart() -> None:
    embeddings, who, latents = clouds(0.0)
    # Each latent is a person of its own, whatever its subject.
    strangers = clouds(0.0, people=80, latents=1)[0]
    found = subject_auc(strangers, who, latents)
    assert found.all_pairs > 0.6
    assert found.other_latents == pytest.approx(0.5, abs=0.1)
    assert subject_auc(embeddings, who, latents).other_latents == 1.0


def test_many_pairs_are_drawn_from(monkeypatch: pytest.MonkeyPatch) -> None:
    data = clouds(1.0)
    whole = subject_auc(*data)
    monkeypatch.setattr(module, "MOST_PAIRS", 20_000)
    assert subject_auc(*data).all_pairs == pytest.approx(whole.all_pairs, abs=0.01)


def test_other_lengths_are_refused() -> None:
    embeddings, who, latents = clouds(1.0)
    with pytest.raises(ValueError, match="400 embeddings, 399 subjects and 400 latents"):
        subject_auc(embeddings, who[:-1], latents)
