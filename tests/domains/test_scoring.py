"""Scores and cutouts against the published program, and their edge cases."""

from __future__ import annotations

from pathlib import Path

import jax
import numpy as np
import pytest

from qdgs_jax.domains.cutouts import crop_and_pool, pooling_matrix, random_cutouts
from qdgs_jax.domains.memory import Memory
from qdgs_jax.domains.scoring import (
    PromptAxis,
    Targets,
    geodesic_distance,
    norm_penalty,
    objective_of_loss,
    prompt_distances,
)

DATA = Path(__file__).parents[1] / "data" / "qdgs"
cut = jax.jit(random_cutouts, static_argnums=(2, 3))
pool = jax.jit(crop_and_pool, static_argnums=3)
distances = jax.jit(prompt_distances)
remember = jax.jit(Memory.remember)
sides = jax.jit(PromptAxis.sides)
distance = jax.jit(PromptAxis.distance)


@pytest.fixture(scope="module")
def golden():
    with np.load(DATA / "scoring.npz") as data:
        return dict(data)


@pytest.fixture(scope="module")
def targets(golden):
    def pair(name):
        return PromptAxis(golden[f"{name}_pos"], golden[f"{name}_neg"])

    return Targets(pair("objective"), tuple(pair(f"measure{j}") for j in range(3)))


def published(axis, embeds):
    """The published distance, which sums over the texts of a side where ours averages."""
    near, far = jax.device_get(sides(axis, embeds))
    return near * len(axis.positive) - far * len(axis.negative)


def test_measures_are_the_published_ones(golden, targets):
    embeds = golden["image_embeds"]
    measures = np.stack([published(axis, embeds) for axis in targets.measures], axis=-1)
    np.testing.assert_allclose(measures, golden["measures"], atol=1e-4)
    ours = np.asarray(distances(targets, embeds[None])[1])
    for j in (0, 2):  # one text a side
        np.testing.assert_allclose(ours[:, j], golden["measures"][:, j], atol=1e-4)


def test_a_further_text_on_one_side_does_not_shift_an_axis(golden, targets):
    embeds, axis = golden["image_embeds"], targets.measures[0]
    twice = PromptAxis(np.concatenate([axis.positive, axis.positive]), axis.negative)
    np.testing.assert_allclose(distance(twice, embeds), distance(axis, embeds), atol=1e-6)
    one, other = (targets.measures[j].positive for j in (0, 2))
    both = distance(PromptAxis(np.concatenate([one, other]), axis.negative), embeds)
    each = [np.asarray(distance(PromptAxis(x, axis.negative), embeds)) for x in (one, other)]
    np.testing.assert_allclose(both, sum(each) / 2, atol=1e-6)


@pytest.mark.parametrize(
    ("variant", "penalised", "memory"),
    [
        ("prompt_only", False, None),
        ("with_reg", True, None),
        ("with_uniqueness_empty", True, "empty"),
        ("with_uniqueness_memory", True, "filled"),
    ],
)
def test_objective_is_the_published_one(golden, targets, variant, penalised, memory):
    embeds = golden["image_embeds"]
    loss = published(targets.objective, embeds)
    if penalised:
        # Only norms enter the penalty: any latents of these norms will do.
        latents = golden["solution_norms"][:, None]
        loss = loss + 0.5 * np.asarray(jax.jit(norm_penalty)(latents, float(golden["q_norm"])))
    if memory:
        stored = golden["memory"] if memory == "filled" else golden["memory"][:0]
        unique = jax.jit(lambda stored, embeds: Memory.of(stored).uniqueness(embeds))
        loss = loss + 0.2 * (1 - np.asarray(unique(stored, embeds)))
    np.testing.assert_allclose(loss, golden[f"loss_{variant}"], atol=1e-4)
    np.testing.assert_allclose(objective_of_loss(loss), golden[f"objective_{variant}"], atol=1e-2)


@pytest.mark.parametrize("case", range(6))
def test_cutouts_are_the_published_ones(case):
    with np.load(DATA / "cutouts.npz") as data:
        images = data["images"].transpose(0, 2, 3, 1)
        size, offset_x, offset_y, cells = data["cases_size_offx_offy_cut"][case]
        wanted = data[f"out_{case}"].transpose(0, 2, 3, 1)
    offset = np.asarray([offset_y, offset_x], np.int32)
    pooled = pool(images, int(size), offset, int(cells))
    np.testing.assert_allclose(pooled, wanted, atol=1e-5)


def test_pooling_averages_and_ignores_what_lies_outside():
    matrix = np.asarray(jax.jit(lambda: pooling_matrix(5, 2, 9, 3))())
    np.testing.assert_allclose(matrix.sum(axis=1), 1.0, rtol=1e-6)
    assert not matrix[:, :2].any()
    assert not matrix[:, 7:].any()


def test_random_cutouts_vary_in_size_and_place():
    ramp = np.broadcast_to(np.arange(32, dtype=np.float32)[None, :, None, None], (1, 32, 32, 1))
    cutouts = np.asarray(cut(ramp, jax.random.key(0), 64, 8))
    extent = cutouts[:, 0, -1, 0, 0] - cutouts[:, 0, 0, 0, 0]
    assert cutouts.shape == (64, 1, 8, 8, 1)
    assert extent.min() >= 7 - 1e-4  # the smallest cutout is one pixel a cell
    assert extent.max() <= 28 + 1e-4  # the largest is the image: four pixels a cell
    assert len(np.unique(np.asarray(extent))) > 8
    whole = np.asarray(cut(ramp, jax.random.key(0), 0, 8))
    np.testing.assert_allclose(whole[0, 0, :, 0, 0], np.arange(8) * 4 + 1.5, rtol=1e-6)


def test_the_middle_square_of_an_oblong_image_is_scored():
    ramp = np.broadcast_to(np.arange(32, dtype=np.float32)[None, :, None, None], (1, 32, 16, 1))
    tall = np.asarray(cut(ramp, jax.random.key(0), 0, 8))
    np.testing.assert_allclose(tall[0, 0, :, 0, 0], 8 + np.arange(8) * 2 + 0.5, rtol=1e-6)
    wide = cut(np.swapaxes(ramp, 1, 2), jax.random.key(0), 0, 8)
    np.testing.assert_allclose(wide, np.swapaxes(tall, 2, 3), rtol=1e-6)
    cutouts = np.asarray(cut(ramp, jax.random.key(1), 32, 8))
    assert cutouts.shape == (32, 1, 8, 8, 1)
    assert cutouts.max() > 30  # some reach beyond the middle square


@pytest.mark.parametrize("sign", [1.0, -1.0], ids=["identical", "opposite"])
def test_distance_has_a_finite_gradient_where_the_angle_has_none(sign):
    x = np.float32([0.6, 0.0, 0.8])
    value, gradient = jax.jit(jax.value_and_grad(geodesic_distance))(x, np.float32(sign) * x)
    np.testing.assert_allclose(value, 0.0 if sign > 0 else np.pi, atol=1e-6)
    assert np.isfinite(gradient).all()


def test_distance_is_the_angle():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(2, 50, 7))
    cosine = (x * y).sum(-1) / np.linalg.norm(x, axis=-1) / np.linalg.norm(y, axis=-1)
    np.testing.assert_allclose(jax.jit(geodesic_distance)(x, y), np.arccos(cosine), rtol=1e-5)


def test_memory_keeps_the_last_hundred_that_were_worthy():
    memory = Memory.create(2)
    embeds = np.stack([np.arange(6, dtype=np.float32), np.ones(6, np.float32)], axis=-1)
    losses = np.float32([2.0, 0.5, 2.0, 2.0, np.nan, 1.0])
    memory = jax.device_get(remember(memory, embeds, losses, jax.random.key(0)))
    assert memory.written == 1
    np.testing.assert_array_equal(memory.embeds[0], embeds[1])
    unworthy = remember(memory, embeds, np.full(6, 3, np.float32), jax.random.key(1))
    assert int(unworthy.written) == 1
    np.testing.assert_array_equal(unworthy.embeds, memory.embeds)
    for number in range(100):
        row = np.full((1, 2), 10 + number, np.float32)
        memory = remember(memory, row, np.zeros(1, np.float32), jax.random.key(number))
    assert int(memory.written) == 101
    np.testing.assert_array_equal(np.asarray(memory.embeds)[0], np.full(2, 109.0))
