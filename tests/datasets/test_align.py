"""FFHQ's alignment becomes ArcFace's: by the rule itself, on points and on pictures."""

import jax.numpy as jnp
import numpy as np
import pytest

from qdgs_jax.datasets.align import SIDE, TEMPLATE, arcface_transform, fit


def ffhq_crop(eye_left, eye_right, mouth_left, mouth_right):
    """The corner, the sides and the length of the crop that FFHQ's rule cuts around landmarks."""
    eye_avg, mouth_avg = (eye_left + eye_right) / 2, (mouth_left + mouth_right) / 2
    eye_to_eye, eye_to_mouth = eye_right - eye_left, mouth_avg - eye_avg
    x = eye_to_eye - np.flipud(eye_to_mouth) * [-1, 1]
    x /= np.hypot(*x)
    x *= max(np.hypot(*eye_to_eye) * 2.0, np.hypot(*eye_to_mouth) * 1.8)
    y = np.flipud(x) * [-1, 1]
    return (
        eye_avg + eye_to_mouth * 0.1 - x - y,
        x / np.hypot(*x),
        y / np.hypot(*y),
        2 * np.hypot(*x),
    )


def upright_face(rng):
    """Landmarks of an upright, symmetric face somewhere in a photo, in its pixels."""
    middle, eyes = rng.uniform(300, 900), rng.uniform(300, 900)
    apart, mouth = rng.uniform(30, 200), rng.uniform(20, 150)
    height = apart * rng.uniform(10 / 9, 1.6)
    return [
        np.array([middle + dx, eyes + dy])
        for dx, dy in (
            (-apart / 2, 0),
            (apart / 2, 0),
            (-mouth / 2, height),
            (mouth / 2, height),
        )
    ]


@pytest.mark.parametrize("seed", range(20))
def test_eyes_and_mouth_of_any_upright_face_land_on_the_template(seed):
    landmarks = upright_face(np.random.default_rng(seed))
    corner, across, down, side = ffhq_crop(*landmarks)
    scale, shift = arcface_transform()

    def landed(points):
        """In the template's pixels, whose centres are whole numbers."""
        from_corner = np.mean(points, axis=0) - corner
        unit = np.array([from_corner @ across, from_corner @ down]) / side
        return SIDE * (scale * unit + shift) - 0.5

    template = np.asarray(TEMPLATE)
    assert np.abs(landed(landmarks[:2]) - template[:2].mean(0)).max() < 0.5
    assert np.abs(landed(landmarks[2:]) - template[3:].mean(0)).max() < 0.5


def test_nothing_beyond_the_crop_is_seen():
    scale, shift = arcface_transform()
    corners = [(end - move) / scale for end in (0.0, 1.0) for move in shift]
    assert min(corners) > 0.11 and max(corners) < 0.89
    white = np.full((1, 64, 64, 3), 255, np.uint8)
    np.testing.assert_array_equal(fit(jnp.asarray(white)), 255)


def blob(size, x, y, width=0.03):
    """A soft spot at (x, y) of a picture, in units of its side."""
    at = (np.arange(size) + 0.5) / size
    spot = np.exp(-((at[None] - x) ** 2 + (at[:, None] - y) ** 2) / (2 * width**2))
    return np.round(np.broadcast_to(255 * spot[None, :, :, None], (1, size, size, 3))).astype("u1")


@pytest.mark.parametrize("size", [64, 256])
@pytest.mark.parametrize(
    ("place", "target"),
    [
        ((0.5, 17 / 36), np.mean(TEMPLATE[:2], axis=0)),
        ((0.5, 3 / 4), np.mean(TEMPLATE[3:], axis=0)),
    ],
)
def test_a_spot_where_the_eyes_or_the_mouth_are_moves_to_the_templates(size, place, target):
    found = np.asarray(fit(jnp.asarray(blob(size, *place))))[0, :, :, 0].astype(float)
    middle = [(found.sum(axis) @ np.arange(SIDE)) / found.sum() for axis in (0, 1)]
    np.testing.assert_allclose(middle, target, atol=0.5)


def test_one_resampling_gives_what_two_would():
    """Shrinking to 256 pixels first, as the published program does, blurs and moves nothing."""
    picture = jnp.asarray(np.maximum(blob(512, 0.4, 0.45), blob(512, 0.6, 0.7, 0.05)))
    once = np.asarray(fit(picture)).astype(int)
    twice = np.asarray(fit(fit(picture, align="none", side=256))).astype(int)
    assert np.abs(once - twice).max() <= 4
    assert np.abs(once - twice).mean() < 0.25


def test_without_alignment_the_whole_picture_is_resized():
    picture = np.random.default_rng(0).integers(0, 256, (2, 16, 16, 3), np.uint8)
    np.testing.assert_array_equal(fit(jnp.asarray(picture), align="none", side=16), picture)
    small = np.asarray(fit(jnp.asarray(picture), align="none", side=8))
    assert small.shape == (2, 8, 8, 3)
    assert abs(small.mean() - picture.mean()) < 4
