"""Judges of given images: CLIP by the nearest text, and an oracle of faces."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from faces_run import write_clip
from flax import nnx
from run_text import RUN

from qdgs_jax import ports
from qdgs_jax.domains.faces_drawing import sample_population
from qdgs_jax.domains.faces_oracle import GROUPS, UNCLEAR, groups_of, load_faces_oracle
from qdgs_jax.domains.prompts import PromptPair, embed_prompts
from qdgs_jax.domains.weights import load_clip
from qdgs_jax.domains.zero_shot import load_zero_shot
from qdgs_jax.models.clip import CLIP
from qdgs_jax.models.face_regressor import (
    TRAITS,
    FaceRegressor,
    FaceRegressorConfig,
    Traits,
    scale_traits,
)
from qdgs_jax.ports.errors import CheckpointError
from qdgs_jax.runs.config import parse_run

SMALL = FaceRegressorConfig(image_size=16, channels=(4, 4, 4), hidden=8)


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    return write_clip(tmp_path_factory.mktemp("zero-shot"))


def test_clip_chooses_the_nearest_group_and_measures_as_the_search_does(clip):
    config = parse_run(RUN.replace("embedded:shapes-clip", str(clip)))
    audit = {
        "colour": {"red": ("a red shape", "a pink one"), "blue": ("a blue shape",)},
        "size": {"small": ("small",), "mid": ("mid",), "large": ("large",)},
    }
    eye = load_zero_shot(config, audit)
    assert eye.groups == {"colour": ("red", "blue"), "size": ("small", "mid", "large")}
    pictures = np.random.default_rng(0).integers(0, 256, (5, 8, 8, 3), np.uint8)
    seen = eye.look(pictures)

    model, tokenizer = load_clip(str(clip))
    pairs = [PromptPair(axis.positive, axis.negative) for axis in config.measures]
    pairs += [PromptPair(texts, texts) for groups in audit.values() for texts in groups.values()]
    axes = embed_prompts(model, tokenizer, pairs)

    @nnx.jit
    def score(model, images, axes):
        embeds = model.embed_images(model.preprocess(images))
        measures = jnp.stack([axis.distance(embeds) for axis in axes[:2]], axis=-1)
        return measures, jnp.stack([axis.sides(embeds)[0] for axis in axes[2:]], axis=-1)

    measures, distances = score(model, np.float32(pictures / 255.0), axes)
    distances = np.asarray(distances)
    np.testing.assert_allclose(seen.measures, measures, atol=2e-5)
    np.testing.assert_array_equal(seen.groups[:, 0], np.argmin(distances[:, :2], axis=1))
    np.testing.assert_array_equal(seen.groups[:, 1], np.argmin(distances[:, 2:], axis=1))


def test_clip_without_groups_only_measures(clip):
    eye = load_zero_shot(parse_run(RUN.replace("embedded:shapes-clip", str(clip))), {})
    seen = eye.look(np.zeros((3, 12, 10, 3), np.uint8))
    assert seen.groups.shape == (3, 0)
    assert seen.measures.shape == (3, 2)
    assert np.isfinite(seen.measures).all()


def test_the_oracle_cuts_as_drawn_faces_are_labelled():

    @jax.jit
    def cut():
        faces, labels = sample_population(jax.random.key(0), 64, "balanced")
        who = faces.identity
        values = jnp.stack([who.skin, who.age, faces.hair_length, who.gender], axis=-1)
        sure = jnp.full(values.shape, UNCLEAR - 0.1)
        doubtful = sure.at[:, 1].set(UNCLEAR + 0.1)
        seen = (groups_of(Traits(scale_traits(values), x)) for x in (sure, doubtful))
        return labels, *seen

    labels, groups, unsure = jax.device_get(cut())
    for index, name in enumerate(TRAITS):
        np.testing.assert_array_equal(groups[:, index], getattr(labels, name))
        assert set(np.unique(groups[:, index])) == set(range(len(GROUPS[name])))
    assert np.all(unsure[:, 1] == -1)
    np.testing.assert_array_equal(unsure[:, 0], labels.skin)


def test_an_oracle_is_loaded_from_its_folder(tmp_path, clip):
    model = nnx.jit(lambda: FaceRegressor(SMALL, rngs=nnx.Rngs(0)))()
    params = nnx.to_pure_dict(nnx.state(model))
    ports.save_model(tmp_path / "judge", {"kind": "face_regressor", **SMALL.to_dict()}, params)
    judge = load_faces_oracle(str(tmp_path / "judge"))
    assert tuple(judge.groups) == TRAITS
    pictures = np.random.default_rng(0).integers(0, 256, (3, 16, 16, 3), np.uint8)
    scaled = np.float32(pictures / 127.5 - 1.0)
    expected = nnx.jit(lambda model, images: groups_of(model(images)))(model, scaled)
    np.testing.assert_array_equal(judge.look(pictures).groups, expected)
    twice = judge.look(pictures.repeat(2, axis=1).repeat(2, axis=2))
    np.testing.assert_array_equal(twice.groups, expected)
    with pytest.raises(ValueError, match=r"12 x 16 pixels, this judge looks at 16 x 16"):
        judge.look(np.zeros((1, 16, 12, 3), np.uint8))
    with pytest.raises(CheckpointError, match="'clip', not 'face_regressor'"):
        load_faces_oracle(str(clip))
    with pytest.raises(CheckpointError, match="no weights 'embedded:judge'"):
        load_faces_oracle("embedded:judge")
    with pytest.raises(CheckpointError, match="'face_regressor', not 'clip'"):
        ports.load(tmp_path / "judge", CLIP)
