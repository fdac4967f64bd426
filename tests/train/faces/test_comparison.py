"""The comparison of arms, with networks that are not trained: who learns what, and what is kept."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from labelled_rows import labelled

from qdgs_jax.datasets.shards import write_shards
from qdgs_jax.runs.experiment_tables import RecognitionConfig
from qdgs_jax.train.faces import comparison as module
from qdgs_jax.train.faces.comparison import People, compare, load_people
from qdgs_jax.train.faces.comparison_result import ARMS, Comparison
from qdgs_jax.train.faces.drawn import Faces

TABLE = RecognitionConfig(
    seeds=2, side=16, people=4, pictures=2, test_people=10, test_pictures=4, pairs=20
)


def people(count: int, classes: int = 2) -> People:
    """Each with two latents of three pictures, whose pixels are the person's number."""
    who = np.repeat(np.arange(count), 6)
    images = np.broadcast_to(who[:, None, None, None], (len(who), 16, 16, 3)).astype(np.uint8)
    return People(images, who, who % classes, np.arange(len(who)) // 3)


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[tuple[object, ...]]:
    """What is trained, in order, instead of training it."""
    made: list[tuple[object, ...]] = []

    def train(recipe, images, identities, seeds, start=None, progress=lambda share: None):
        progress(0.5)
        progress(1.0)
        made.append((recipe.optimizer.epochs, images.shape, seeds, start))
        return [f"network {len(made)}, {seed}" for seed in range(len(seeds))]

    def draw(seed, count, images, side, population="ffhq"):
        who = np.repeat(np.arange(count), images)
        blank = np.full((len(who), side, side, 3), seed % 251, np.uint8)
        groups = np.zeros((len(who), 3), int)
        groups[:, 0] = who * 3 // count
        yaw = np.tile(np.linspace(-0.3, 0.3, images), count)
        return Faces(blank, who, groups, yaw, np.arange(len(who)) % 2, None)

    def embed(network, images):
        rng = np.random.default_rng(abs(hash(network)) % 2**32)
        found = rng.normal(size=(len(images), 4)) + 2 * np.eye(4)[np.arange(len(images)) // 4 % 4]
        return found / np.linalg.norm(found, axis=1, keepdims=True), None

    monkeypatch.setattr(module, "train_seeds", train)
    monkeypatch.setattr(module, "embed_faces", embed)
    monkeypatch.setattr(module, "draw_trained", draw)
    monkeypatch.setattr(module, "draw_tested", lambda s, n, i, side: draw(s, 3 * n, i, side))
    return made


def test_every_arm_is_pretrained_on_its_people_and_then_learns_the_real_ones(calls) -> None:
    shares: list[float] = []
    given = {"run": people(20), "baseline": people(10)}
    found = compare(TABLE, given, 0, shares.append)
    assert tuple(found.arms) == ARMS == ("none", "Rand15", "QD15", "Rand50", "QD50")
    first = {epochs for epochs, shape, _, _ in calls if shape[0] != TABLE.seeds}
    assert first == {TABLE.pretrain_epochs}
    images = [shape[0] for _, shape, _, _ in calls]
    # none learns the real people alone; the others first 0.3 of both classes, or all.
    assert images == [2, 24, 2, 24, 2, 60, 2, 60, 2]
    starts = [start for _, _, _, start in calls]
    assert [start is None for start in starts] == [True, True, False] + [True, False] * 3
    assert starts[2] == ["network 2, 0", "network 2, 1"]
    assert all(seeds == calls[0][2] for _, _, seeds, _ in calls)
    assert len(set(calls[0][2])) == 2
    assert shares == sorted(shares)
    assert shares[-1] == pytest.approx(1.0)
    arm = found.arms["QD15"]
    assert (arm.latents, arm.people, arm.images) == (8, 4, 24)
    assert [len(arm.groups), len(arm.sets)] == [2, 2]
    assert [group.name for group in arm.groups[0].groups] == ["dark", "light", "mixed"]


def test_results_are_read_back(calls) -> None:
    found = compare(TABLE, {"run": people(20), "baseline": people(10)}, 0)
    assert Comparison.from_json(found.to_json()) == found
    for text in ("{}", "[]", "?", found.to_json().replace("QD15", "QD16")):
        with pytest.raises(ValueError, match=r"not results|arms|Expecting|line 1"):
            Comparison.from_json(text)


def test_a_share_of_people_has_all_classes_and_all_pictures_of_each() -> None:
    whole = people(20, classes=3)
    some = module.some_people(whole, 0.3)
    np.testing.assert_array_equal(np.unique(some.people), np.arange(6))
    np.testing.assert_array_equal(np.bincount(some.people), 6)
    kept = [int(some.images[some.people == who][0, 0, 0, 0]) for who in range(6)]
    assert kept == list(range(6))  # those who were chosen first
    assert len(np.unique(some.latents)) == 12


def test_both_kinds_have_as_many_people_and_pictures() -> None:
    one, two = people(20), people(23)
    one = one.take(np.setdiff1d(np.arange(120), [5, 11, 17]))  # pictures of three people
    found = module.even({"QD": one, "Rand": two}, 0)
    for each in found.values():
        assert (each.count, len(each.images)) == (20, 117)
        assert np.bincount(each.people).min() >= module.FEWEST
    np.testing.assert_array_equal(found["QD"].images, one.images)


def test_people_are_read_from_shards(tmp_path: Path) -> None:
    subjects = np.array([4, 4, 4, 4, 7, 7])
    rows = labelled(np.zeros(6, int), np.zeros((6, 1)), subjects=subjects)
    rows = dataclasses.replace(rows, augmentations=np.array([0, 1, 0, 1, 0, 1], np.int32))
    pictures = np.full((6, 32, 32, 3), 100, np.uint8)
    names = {"label_names": ("face",), "measure_names": ("skin",)}
    write_shards(tmp_path, rows, [pictures], **names)
    found = load_people(tmp_path, 16)
    assert found.images.shape == (6, 16, 16, 3)
    assert (found.images == 100).all()
    np.testing.assert_array_equal(found.people, [0, 0, 0, 0, 1, 1])
    assert found.count == 2
    np.testing.assert_array_equal(found.latents, [1, 1, 2, 2, 3, 3])


@pytest.mark.parametrize(
    ("epochs", "steps"), [(26, (12, 20, 24)), (13, (6, 10, 12)), (3, (1, 2)), (1, ())]
)
def test_the_rate_falls_at_the_papers_shares_of_the_epochs(epochs, steps) -> None:
    assert tuple(module.recipe(TABLE, epochs).optimizer.milestones) == steps
