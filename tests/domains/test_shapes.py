"""The shapes domain on the embedded weights: scores, Jacobians, prompts, and what it refuses."""

from __future__ import annotations

import dataclasses
import gc
import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from domain_settings import settings
from flax import nnx

from qdgs_jax.domains import load_domain
from qdgs_jax.domains.prompted import PromptedDomain
from qdgs_jax.domains.prompts import PromptPair, embed_prompts
from qdgs_jax.domains.scoring import normalize
from qdgs_jax.domains.shapes_drawing import (
    COLOURS,
    SHAPES,
    Scene,
    draw_red_blue,
    random_pose,
    render,
)
from qdgs_jax.domains.spread import MeasureSpread
from qdgs_jax.domains.start import StartSettings
from qdgs_jax.domains.weights import ASSETS, load_clip
from qdgs_jax.ports.errors import CheckpointError
from qdgs_jax.ports.model_folder import load_model

RUN = (ASSETS / "shapes.toml").read_text()


@pytest.fixture(scope="module")
def config():
    return settings(RUN)


def text_tables():
    """How many tables of CLIP's tokens the device holds."""
    shape = load_model(ASSETS / "shapes-clip")[1]["text"]["token"].shape
    gc.collect()
    return sum(array.shape == shape for array in jax.live_arrays())


@pytest.fixture(scope="module")
def loaded(config):
    """The domain, and how many tables of CLIP's tokens stayed on the device with it."""
    before = text_tables()
    return load_domain(config), text_tables() - before


@pytest.fixture(scope="module")
def domain(loaded):
    return loaded[0]


@pytest.fixture(scope="module")
def clip():
    return load_clip("embedded:shapes-clip")


@pytest.fixture(scope="module")
def evaluate(domain):
    """Scores of latents, by one program of 8 at a time."""
    program = jax.jit(domain.evaluate)

    def run(latents, key=0):
        parts = [
            program(domain.params, (), part, jax.random.key(key))
            for part in np.split(np.asarray(latents), len(latents) // 8)
        ]
        return jax.tree.map(lambda *scores: np.concatenate(scores), *parts)

    return run


@pytest.fixture(scope="module")
def scored(domain):
    latents = domain.sample(domain.params, jax.random.key(0), 8)
    run = jax.jit(domain.evaluate_with_jacobian)
    return latents, *run(domain.params, domain.init_state(), latents, jax.random.key(1))


def test_the_text_tower_leaves_the_device_once_prompts_are_embedded(loaded):
    domain, tables = loaded
    assert tables == 0
    tower = jax.tree.leaves(load_model(ASSETS / "shapes-clip")[1]["visual"])
    kept = jax.tree.leaves(domain.params.clip)
    assert sum(map(np.size, kept)) == sum(map(np.size, tower))


def test_the_jacobian_shares_its_values_with_the_plain_evaluation(evaluate, scored):
    latents, evaluation, _ = scored
    plain = evaluate(latents, key=1)
    np.testing.assert_allclose(evaluation.fitnesses, plain.fitnesses, rtol=1e-4)
    np.testing.assert_allclose(evaluation.descriptors, plain.descriptors, atol=1e-5)


def test_the_jacobian_is_the_slope(evaluate, scored):
    latents, jacobian = np.asarray(scored[0]), np.asarray(scored[2])
    direction = np.asarray(jax.random.normal(jax.random.key(2), latents.shape))
    ends = [evaluate(latents + sign * 1e-2 * direction, key=1) for sign in (1, -1)]
    values = [np.c_[end.fitnesses, end.descriptors] for end in ends]
    slope = (values[0] - values[1]) / 2e-2
    predicted = np.einsum("bkd,bd->bk", jacobian, direction)
    for output in range(predicted.shape[1]):
        correlation = np.corrcoef(slope[:, output], predicted[:, output])[0, 1]
        assert correlation > 0.98


def test_weights_are_arguments_of_the_compiled_program(domain):
    latents = jnp.zeros((2, domain.latent_dim))
    traced = jax.make_jaxpr(domain.evaluate_with_jacobian)(
        domain.params, (), latents, jax.random.key(0)
    )
    assert sum(np.size(constant) for constant in traced.consts) < 1000


def test_start_latents_are_good_and_sorted(domain, evaluate):
    assert domain.start == StartSettings(batches=32, batch_size=16, count=64)
    fewer = dataclasses.replace(domain, start=StartSettings(batches=8, batch_size=8, count=8))
    start = fewer.start_latents(domain.params, jax.random.key(3))
    prior = domain.sample(domain.params, jax.random.key(4), 32)
    found = evaluate(start).fitnesses
    average = evaluate(prior).fitnesses.mean()
    assert start.shape == (8, domain.latent_dim)
    assert found.min() > average
    assert np.all(np.diff(found) <= 1e-3)


def test_measures_tell_drawn_colours_and_shapes(domain):
    shape, colour = np.arange(80) % 2, np.arange(80) // 2 % 2
    images = jnp.asarray(draw_red_blue(7, shape, colour, 128, chunk=80) / np.float32(255.0))
    held = FixedImages(domain, images)
    measures = held.measures()
    assert np.mean((measures[:, 0] > 0) == (colour == 1)) == 1.0
    assert np.mean((measures[:, 1] > 0) == (shape == 1)) >= 0.9


class FixedImages:
    """The domain with images in place of its generator."""

    def __init__(self, domain: PromptedDomain, images: jax.Array):
        self.images = images
        self.domain = PromptedDomain(self, domain.clip_graph, domain.clip_config, domain.params)
        self.latent_dim = domain.latent_dim

    def decode(self, params, latents):
        return self.images

    def measures(self):
        latents = jnp.zeros((len(self.images), self.latent_dim))
        evaluate = jax.jit(self.domain.evaluate)
        return np.asarray(evaluate(self.domain.params, (), latents, jax.random.key(0)).descriptors)


def test_penalties_lower_the_objective_and_feed_the_memory(domain, evaluate):
    latents = 3.0 * np.asarray(domain.sample(domain.params, jax.random.key(5), 8))
    plain = evaluate(latents).fitnesses
    penalties = {"norm_penalty": 0.5, "uniqueness": 0.2}
    other = load_domain(settings(RUN, objective=penalties))
    state = other.init_state()
    evaluation = jax.jit(other.evaluate)(other.params, state, latents, jax.random.key(0))
    assert np.all(evaluation.fitnesses < plain)
    good = evaluation._replace(extra={**evaluation.extra, "loss": np.zeros(8, np.float32)})
    assert jax.jit(other.observe)(state, good, jax.random.key(1)).written == 1


def test_the_embedded_clip_understands_prompts_of_ones_own(clip):
    model, tokenizer = clip
    count = 240

    @nnx.jit
    def drawn(model):
        keys = jax.random.split(jax.random.key(11), 4)
        shape = jax.random.randint(keys[0], (count,), 0, len(SHAPES))
        colour = jax.random.randint(keys[1], (count,), 0, len(COLOURS))
        pose = random_pose(keys[2], count, (0.18, 0.36), 0.1)
        none, plain = jnp.zeros(count), jnp.zeros(count, jnp.int32)
        scene = Scene(shape, colour, colour, none, plain, *pose, none)
        images = model.preprocess(render(scene, keys[3], model.cfg.image_size))
        return shape, colour, normalize(model.embed_images(images))

    shape, colour, embeds = drawn(model)
    words = [*(f"{word} shape" for word in COLOURS), *SHAPES]
    prompts = [PromptPair((f"somebody put a {word} there",), ("paint",)) for word in words]
    pairs = embed_prompts(model, tokenizer, prompts)
    texts = np.concatenate([pair.positive for pair in pairs])
    texts /= np.linalg.norm(texts, axis=-1, keepdims=True)
    likeness = np.asarray(embeds) @ texts.T
    assert np.mean(likeness[:, : len(COLOURS)].argmax(axis=-1) == colour) >= 0.9
    assert np.mean(likeness[:, len(COLOURS) :].argmax(axis=-1) == shape) >= 0.9


def test_a_text_is_embedded_once_wherever_it_stands(clip):
    model, tokenizer = clip
    asked = []

    def counting(texts, **options):
        asked.extend(texts)
        return tokenizer(texts, **options)

    pairs = [PromptPair(("a red shape", "a star"), ("a square",)), PromptPair(("a star",), ("a",))]
    first, second = embed_prompts(model, counting, pairs)
    assert asked == ["a red shape", "a star", "a square", "a"]
    assert first.positive.shape == (2, model.cfg.embed_dim)
    assert first.negative.shape == (1, model.cfg.embed_dim)
    np.testing.assert_array_equal(first.positive[1], second.positive[0])
    (alone,) = embed_prompts(model, tokenizer, pairs[1:])
    np.testing.assert_allclose(alone.positive, second.positive, atol=1e-5)


def test_a_prompt_that_is_too_long_is_named(clip):
    long = "a red shape " * 20
    with pytest.raises(ValueError, match=f"{long!r} has .* tokens, this CLIP takes"):
        embed_prompts(*clip, [PromptPair(("a star",), (long,))])


@pytest.mark.parametrize("name", ["embedded:shapes-vae", "embedded:nothing"])
def test_a_checkpoint_of_another_kind_is_refused(name):
    with pytest.raises(CheckpointError, match=r"not 'clip'|no weights"):
        load_clip(name)


def test_a_clip_without_a_tokenizer_is_refused(tmp_path):
    folder = tmp_path / "clip"
    shutil.copytree(ASSETS / "shapes-clip", folder)
    for file in folder.glob("*token*"):
        file.unlink()
    with pytest.raises(CheckpointError, match="has no tokenizer"):
        load_clip(str(folder))


@pytest.mark.parametrize("file", ["vocab.json", "merges.txt"])
def test_half_a_tokenizer_is_refused(file, tmp_path):
    folder = tmp_path / "clip"
    shutil.copytree(ASSETS / "shapes-clip", folder)
    (folder / "tokenizer.json").unlink()
    (folder / file).write_text("{}")
    with pytest.raises(CheckpointError, match=r"both vocab\.json and merges\.txt"):
        load_clip(str(folder))


@pytest.mark.parametrize("name", ["shapes-vae", "shapes-clip"])
def test_embedded_weights_say_where_they_come_from(name):
    card = (ASSETS / name / "README.md").read_text()
    for word in ("Data:", "Command:", "Wall time:", "--seed"):
        assert word in card
    json.loads((ASSETS / name / "config.json").read_text())
    assert sum(f.stat().st_size for f in ASSETS.rglob("*") if f.is_file()) < 16_000_000


MOVES = {
    ("a red shape", "a blue shape"): True,
    ("a regular triangle", "a regular square"): True,
    ("a small shape", "a large shape"): True,
    ("a green shape", "a yellow shape"): False,
    ("a yellow shape", "an orange shape"): False,
    ("a dog", "a cat"): False,
}
ONE_SIDED = {("a red shape", "a green shape"): "first", ("a green shape", "a red shape"): "second"}


@pytest.fixture(scope="module")
def spreads(domain, clip):
    """How far measures reach, of which the first stands there twice."""
    pairs = [*MOVES, *ONE_SIDED]
    axes = embed_prompts(*clip, [PromptPair((one,), (two,)) for one, two in [*pairs, pairs[0]]])
    params = domain.params.replace(targets=domain.params.targets.replace(measures=axes))
    *found, again = domain.spread(params, jax.random.key(21))
    assert again == found[0]
    return dict(zip(pairs, found, strict=True))


@pytest.mark.parametrize("pair", MOVES, ids=" - ".join)
def test_a_measure_that_the_generator_cannot_draw_hardly_moves(spreads, pair):
    spread = spreads[pair]
    assert spread.hardly_moves != MOVES[pair]
    assert spread.low < spread.high
    if MOVES[pair]:
        assert spread.warning() is None
        assert 0 < spread.margin < spread.std
    else:
        assert spread.warning().startswith("hardly moves over the generator's own images (")


@pytest.mark.parametrize(
    ("ends", "told"),
    [
        ((-0.6, 0.6), None),
        ((-1.0, 3.0), None),
        ((-50.0, 50.0), "about 1 of the 40 cells of its range [-50, 50]"),
        ((2.0, 3.0), "outside its range [2, 3]"),
        ((-3.0, -2.0), "outside its range [-3, -2]"),
    ],
)
def test_a_range_is_judged_by_what_the_generator_draws(ends, told):
    spread = MeasureSpread(-0.4, 0.4, std=0.3, noise=0.01)
    warning = spread.range_warning(*ends, 40)
    assert warning is None if told is None else told in warning
    assert told is None or "a range of [-0.8, 0.8]" in warning


@pytest.mark.parametrize("pair", ONE_SIDED, ids=" - ".join)
def test_a_measure_that_never_reaches_one_of_its_prompts_is_one_sided(spreads, pair):
    side = ONE_SIDED[pair]
    assert spreads[pair].warning().startswith(f"is near its {side} prompt for nearly all")
