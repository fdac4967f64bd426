"""The drawn shapes: what they are, how often, and that they are drawn the same way twice."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from qdgs_jax.domains.shapes_drawing import (
    COLOURS,
    KINDS,
    PALETTE,
    SHAPES,
    Scene,
    balanced_dataset,
    biased_dataset,
    render,
)
from qdgs_jax.domains.shapes_drawing import coverage as drawn_coverage
from qdgs_jax.domains.shapes_drawing import outline as drawn_outline

coverage = jax.jit(drawn_coverage, static_argnums=1)  # one program for all shapes, not dozens
outline = jax.jit(drawn_outline, static_argnums=1)


def scene(shape: str, *, radius=0.3, angle=0.0, kind="clean", colour="red", blur=0.0) -> Scene:
    return Scene(
        shape=jnp.array([SHAPES.index(shape)]),
        colour=jnp.array([COLOURS.index(colour)]),
        second=jnp.array([COLOURS.index("blue")]),
        blend=jnp.array([0.5]),
        kind=jnp.array([KINDS.index(kind)]),
        centre=jnp.zeros((1, 2)),
        radius=jnp.array([radius]),
        angle=jnp.array([angle]),
        blur=jnp.array([blur]),
    )


@pytest.mark.parametrize(
    ("shape", "area"),  # of circumradius 1
    [
        ("triangle", 3 * math.sqrt(3) / 4),
        ("square", 2.0),
        ("diamond", 2.0 * 0.55),
        ("circle", math.pi),
        ("pentagon", 2.5 * math.sin(math.radians(72))),
        ("star", 5 * 0.42 * math.sin(math.pi / 5)),
    ],
)
@pytest.mark.parametrize("angle", [0.0, 0.7])
def test_shapes_have_the_area_of_their_outline(shape, area, angle):
    drawn = float(coverage(scene(shape, angle=angle), 200).mean())
    assert drawn == pytest.approx(area * 0.3**2, rel=0.01)


@pytest.mark.parametrize("shape", SHAPES)
def test_outline_agrees_with_the_drawing(shape):
    one = scene(shape, angle=0.4)
    reach = np.asarray(outline(one, 16))[0]
    drawn = np.asarray(coverage(one, 400))[0]
    for direction, distance in enumerate(reach):
        angle = 2 * math.pi * direction / 16
        for factor, inside in ((0.93, True), (1.07, False)):
            x = int((0.5 + factor * distance * math.cos(angle)) * 400)
            y = int((0.5 + factor * distance * math.sin(angle)) * 400)
            assert (drawn[y, x] > 0.5) == inside


def test_a_clean_shape_has_its_colour_on_white():
    image = np.asarray(render(scene("square", colour="green"), jax.random.key(0), 64))[0]
    np.testing.assert_array_equal(image[0, 0], 1.0)
    np.testing.assert_allclose(image[32, 32], PALETTE[COLOURS.index("green")], atol=0.25)


def test_blur_softens_edges_and_keeps_the_ink():
    sharp = np.asarray(coverage(scene("triangle"), 64))
    soft = np.asarray(coverage(scene("triangle", blur=0.05), 64))
    assert np.abs(np.diff(soft)).max() < 0.5 * np.abs(np.diff(sharp)).max()
    assert soft.sum() == pytest.approx(sharp.sum(), rel=0.02)


def test_a_blended_shape_shows_both_colours():
    image = np.asarray(render(scene("circle", kind="blended"), jax.random.key(3), 64))[0]
    assert image[24:40, 24:40, 0].max() > 0.3  # red
    assert image[24:40, 24:40, 2].max() > 0.3  # blue


@pytest.mark.parametrize("bias", [0.5, 0.9, 0.98, 1.0])
def test_bias_is_exact_in_both_shapes(bias):
    _, shape, colour = biased_dataset(3, 200, bias, 16)
    for label in (0, 1):
        members = colour[shape == label]
        assert len(members) == 100
        assert (members == label).mean() == pytest.approx(bias)


def test_drawn_pixels_agree_with_their_labels_and_with_the_seed():
    images, shape, colour = balanced_dataset(5, 60, 32)
    again, *_ = balanced_dataset(5, 60, 32)
    np.testing.assert_array_equal(images, again)
    assert not np.array_equal(images, balanced_dataset(6, 60, 32)[0])
    ink = 255 - images.astype(int)
    blue = ink[..., 0].sum(axis=(1, 2)) > ink[..., 2].sum(axis=(1, 2))
    np.testing.assert_array_equal(blue, colour == 1)
    assert images.dtype == np.uint8
    assert set(shape) == {0, 1}


@pytest.mark.parametrize(("count", "bias"), [(0, 0.9), (10, 1.5), (10, -0.1), (10, float("nan"))])
def test_impossible_requests_name_the_value(count, bias):
    with pytest.raises(ValueError, match=r"bias is|count is"):
        biased_dataset(0, count, bias, 16)
