"""Drawn faces: where features lie, what attributes do, whom populations hold, true captions."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from qdgs_jax.domains.faces_drawing import (
    AGE,
    GENDER,
    GEOMETRY,
    GLASSES,
    HAIR,
    NUMBERS,
    SKIN,
    FaceAttributes,
    FaceLabels,
    Identity,
    caption_bank,
    captions,
    draw,
    faces_from_numbers,
    label_faces,
    sample_identities,
    sample_population,
    vary,
)
from qdgs_jax.domains.faces_drawing.brushes import MONK
from qdgs_jax.domains.faces_drawing.captions import (
    HELD_OUT_FRAMES,
    QUALITY_FRAMES,
    TRAINING_FRAMES,
)

COUNT = 36_000  # faces of each population
ROOM = 48  # faces of every drawing here, so that one program is compiled for all


def drawn(attributes: FaceAttributes) -> np.ndarray:
    """Pictures in [0, 1] of up to `ROOM` faces."""
    count = len(attributes.smile)
    padded = jax.tree.map(
        lambda v: jnp.pad(v, [(0, ROOM - count)] + [(0, 0)] * (v.ndim - 1), mode="edge"), attributes
    )
    return 0.5 + 0.5 * np.asarray(draw(padded))[:count]


def mean_faces(count: int) -> FaceAttributes:
    """The mean face in even light, looking straight ahead."""

    def full(value: float, *shape: int) -> jax.Array:
        return jnp.full((count, *shape), value)

    identity = Identity(
        full(0.0, len(GEOMETRY)), full(5.0), full(25.0), full(0.0), full(0.2), full(0.0)
    )
    fields = dict.fromkeys(FaceAttributes._fields, full(0.0))
    fields |= {
        "identity": identity,
        "hair_length": full(0.2),
        "hair_volume": full(0.5),
        "parting": full(0.5),
        "smile": full(0.3),
        "light": full(0.0, 2),
        "background": full(0.6, 2, 3),
        "clothes": full(0.3, 3),
        "shift": full(0.0, 2),
        "scale": full(1.0),
    }
    return FaceAttributes(**fields)


def with_identity(attributes: FaceAttributes, **fields: jax.Array) -> FaceAttributes:
    return attributes._replace(identity=attributes.identity._replace(**fields))


@pytest.fixture(scope="module")
def populations() -> dict[str, tuple[FaceAttributes, FaceLabels]]:
    return {
        name: sample_population(jax.random.key(1), COUNT, name) for name in ("ffhq", "balanced")
    }


def first(count: int, tree: Any) -> Any:
    return jax.tree.map(lambda values: values[:count], tree)


def brightness(images: np.ndarray) -> np.ndarray:
    return images @ np.array([0.30, 0.59, 0.11])


def cheeks(images: np.ndarray) -> np.ndarray:
    """Mean colour of both cheeks, Float[N, 3]."""
    return np.concatenate([images[:, 34:40, 20:25], images[:, 34:40, 39:44]], 2).mean((1, 2))


def test_features_lie_where_ffhq_has_them():
    drop = GEOMETRY.index("mouth_drop")
    faces = mean_faces(3)
    moved = faces.identity.geometry.at[:, drop].set(jnp.array([-1.0, 0.0, 1.0]))
    images = drawn(with_identity(faces, geometry=moved, skin=jnp.full(3, 3.0)))
    for image, ratio in zip(images, 0.95 + 0.06 * np.array([-1, 0, 1]), strict=True):
        # FFHQ: the side of the square is 4 eye distances, its centre 0.1 ratio below the eyes.
        eye_row, mouth_row = 64 * (0.5 - 0.025 * ratio), 64 * (0.5 + 0.225 * ratio)
        for column in (64 * 0.375, 64 * 0.625):
            window = 1 - brightness(image)[27:34, int(column) - 4 : int(column) + 4]
            weight = np.clip(window - 0.75, 0, None)  # pupils and irises alone
            y, x = np.mgrid[27:34, int(column) - 4 : int(column) + 4] + 0.5
            assert (weight * x).sum() / weight.sum() == pytest.approx(column, abs=0.7)
            assert (weight * y).sum() / weight.sum() == pytest.approx(eye_row, abs=1.2)
        red = (image[..., 0] - image[..., 1])[40:54, 28:36]
        lips = np.clip(red - np.median(red) - 0.05, 0, None)
        rows = np.arange(40, 54)[:, None] + 0.5
        assert (lips * rows).sum() / lips.sum() == pytest.approx(mouth_row, abs=1.2)


def test_skin_follows_the_monk_scale():
    tones = jnp.arange(1.0, 11.0)
    colours = cheeks(drawn(with_identity(mean_faces(10), skin=tones)))
    # Swatches 1 to 3 are equally bright: from there on faces darken tone by tone.
    assert (np.diff(brightness(colours)[2:]) < -0.005).all()
    assert np.abs(colours - MONK).max() < 0.16
    assert (colours[:, 0] > colours[:, 2]).all()  # no skin is grey


def test_skin_groups_stay_apart_under_any_light(populations):
    faces, labels = first(ROOM, populations["balanced"])
    faces = faces._replace(beard=jnp.zeros(ROOM), glasses=jnp.zeros(ROOM))
    seen = brightness(cheeks(drawn(faces)))
    light, mixed, dark = (seen[np.asarray(labels.skin) == group] for group in range(3))
    assert light.min() > mixed.max()
    assert mixed.min() > dark.max()


SCALARS = [
    name
    for name in FaceAttributes._fields
    if name not in ("identity", "light", "background", "clothes", "shift")
]


def test_every_attribute_shows():
    """Each is moved from the mean face; a face of each sex, so that beards and make-up count."""
    moved = {
        "scale": 1.05,
        "rotation": 0.05,
        "yaw": 0.25,
        "parting": -0.5,
        "light_strength": 1.0,
    }
    for gender in (-0.9, 0.9):
        base = with_identity(mean_faces(1), gender=jnp.full(1, gender))
        base = base._replace(
            light=jnp.full((1, 2), 0.7), fringe=jnp.full(1, 0.5), glasses=jnp.full(1, 0.45)
        )
        variants = [base]
        variants += [
            base._replace(**{name: jnp.full(1, moved.get(name, 0.95))}) for name in SCALARS
        ]
        for name in ("light", "background", "clothes", "shift"):
            value = getattr(base, name)
            variants.append(base._replace(**{name: value + (0.02 if name == "shift" else -0.5)}))
        for name, value in {"skin": 8.0, "age": 65.0, "hair_tone": 0.9, "eye_tone": 1.0}.items():
            variants.append(with_identity(base, **{name: jnp.full(1, value)}))
        for part in range(len(GEOMETRY)):
            changed = base.identity.geometry.at[:, part].set(1.0)
            variants.append(with_identity(base, geometry=changed))
        images = drawn(jax.tree.map(lambda *parts: jnp.concatenate(parts), *variants))
        most = np.abs(images[1:] - images[0]).max(axis=(1, 2, 3))
        hidden = {SCALARS.index("beard" if gender > 0 else "make_up")}
        shown = np.delete(most, list(hidden))
        assert shown.min() > 0.03
        assert most[list(hidden)].max() < 1e-6


def test_pictures_are_complete_and_do_not_depend_on_the_batch(populations):
    faces, _ = first(ROOM, populations["ffhq"])
    images = drawn(faces)
    assert images.shape == (ROOM, 64, 64, 3)
    assert np.isfinite(images).all()
    assert images.min() >= 0.0
    assert images.max() <= 1.0
    backwards = drawn(jax.tree.map(lambda v: v[::-1], faces))[::-1]
    np.testing.assert_allclose(backwards, images, atol=1e-6)
    mapped = jax.eval_shape(jax.vmap(draw), jax.tree.map(lambda v: v[None], faces))
    assert mapped.shape == (1, ROOM, 64, 64, 3)


def test_a_person_stays_the_same_in_all_pictures():
    people = sample_identities(jax.random.key(3), 5)
    pictures = vary(jax.random.key(4), people, 3)
    for one, many in zip(people, pictures.identity, strict=True):
        np.testing.assert_array_equal(np.repeat(np.asarray(one), 3, axis=0), many)
    for field in ("smile", "yaw", "hair_volume", "light", "background"):
        values = np.asarray(getattr(pictures, field)).reshape(15, -1)
        assert len(np.unique(values, axis=0)) == 15


def test_the_ffhq_population_leans_as_ffhq_does(populations):
    _, labels = populations["ffhq"]
    skin, age = np.asarray(labels.skin), np.asarray(labels.age)
    shares = np.array([[(skin == s) & (age == a) for a in (0, 1)] for s in range(3)]).mean(-1)
    np.testing.assert_allclose(shares.sum(1), [0.731, 0.171, 0.098], atol=0.008)
    np.testing.assert_allclose(shares.sum(0), [0.649, 0.351], atol=0.008)
    np.testing.assert_allclose(shares, np.outer(shares.sum(1), shares.sum(0)), atol=0.008)
    gender = np.bincount(np.asarray(labels.gender), minlength=3) / COUNT
    assert gender[0] == pytest.approx(gender[2], abs=0.012)


def test_faces_are_a_function_of_their_numbers():
    numbers = np.full((3, NUMBERS), 0.5, np.float32)
    numbers[1:, 0] = 0.95  # which skin: beyond light and mixed
    numbers[2, -1] = 0.9  # the last is a matter of pose
    faces = faces_from_numbers(jnp.asarray(numbers))
    np.testing.assert_array_equal(label_faces(faces).skin, [0, 2, 2])
    same = jax.tree.map(lambda v: np.array_equal(v[1], v[2]), faces)
    assert all(same.identity)
    assert not same.yaw


def test_the_balanced_population_is_uniform_over_all_groups(populations):
    _, labels = populations["balanced"]
    shape = (len(SKIN), len(AGE), len(GENDER), len(HAIR), len(GLASSES))
    flat = np.ravel_multi_index([np.asarray(values) for values in labels[:5]], shape)
    counts = np.bincount(flat, minlength=np.prod(shape))
    assert counts.min() > 0.8 * COUNT / np.prod(shape)


@pytest.mark.parametrize(
    ("field", "value", "group"),
    [
        ("skin", 4.4, ("skin", 0)),
        ("skin", 4.5, ("skin", 1)),
        ("skin", 6.5, ("skin", 2)),
        ("age", 39.9, ("age", 0)),
        ("age", 40.0, ("age", 1)),
        ("age", 59.0, ("decade", 5)),
        ("gender", -0.5, ("gender", 0)),
        ("gender", 0.0, ("gender", 1)),
        ("gender", 0.5, ("gender", 2)),
    ],
)
def test_labels_follow_the_edges(field, value, group):
    labels = label_faces(with_identity(mean_faces(1), **{field: jnp.full(1, value)}))
    assert int(getattr(labels, group[0])[0]) == group[1]


WORDS = {  # each word belongs to one group
    "skin": {"light skin": 0, "fair": 0, "pale": 0, "medium": 1, "tan": 1, "olive": 1, "dark": 2},
    "age": {"young": 0, "old ": 1, "elderly": 1, "older": 1},
    "gender": {" man": 0, "masculine": 0, "androgynous": 1, "woman": 2, "lady": 2},
    "hair": {"short hair": 0, "cropped": 0, "long hair": 1, "flowing": 1},
    "glasses": {"no glasses": 0, "spectacles": 1, "eyeglasses": 1},
    "decade": {"20s": 2, "30s": 3, "50s": 5, "70s": 7},
}


@pytest.mark.parametrize("frames", ["training", "held out"])
def test_captions_are_true(populations, frames):
    _, labels = first(600, populations["balanced"])
    texts = captions(labels, jax.random.key(8), frames)
    assert len(texts) == 600
    for name, words in WORDS.items():
        groups = np.asarray(getattr(labels, name))
        for word, group in words.items():
            naming = [number for number, text in enumerate(texts) if word in f" {text}"]
            assert naming, word
            assert (groups[naming] == group).all(), word
    assert captions(labels, jax.random.key(8), frames) == texts
    assert captions(labels, jax.random.key(9), frames) != texts


def test_masks_of_the_bank_say_what_its_captions_say():
    texts, masks = caption_bank(jax.random.key(10), 3000)
    assert len(set(texts)) == 3000
    assert set(masks) == {*FaceLabels._fields, "quality"}
    for name, words in WORDS.items():
        first = 1 if name == "decade" else 0
        for word, group in words.items():
            rows = masks[name][[word in f" {text}" for text in texts]]
            assert len(rows)
            assert (rows.sum(axis=1) == 1).all(), word
            assert rows[:, group - first].all(), word
    for word, group in {"obscure": 0, "fake": 0, "noisy": 0, "detailed": 1, "sharp": 1}.items():
        rows = masks["quality"][[word in text for text in texts]]
        assert len(rows)
        assert (rows == np.eye(2)[group]).all(), word
    dark = masks["skin"][["skin" not in text for text in texts]]
    assert dark.all()  # what is not named is allowed


def test_held_out_frames_are_never_trained_on():
    assert not set(HELD_OUT_FRAMES) & set(TRAINING_FRAMES)
    assert not set(QUALITY_FRAMES["held out"]) & set(QUALITY_FRAMES["training"])


def test_unknown_names_are_refused_by_name():
    with pytest.raises(ValueError, match=r"'ffqh'.*ffhq, balanced"):
        sample_population(jax.random.key(0), 3, "ffqh")
    labels = label_faces(mean_faces(1))
    with pytest.raises(ValueError, match=r"\(3, 2\).*57"):
        faces_from_numbers(jnp.zeros((3, 2)))
    with pytest.raises(ValueError, match=r"'test'.*'training', 'held out'"):
        captions(labels, jax.random.key(0), "test")
