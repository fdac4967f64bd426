"""The faces domain: codes and their statistics, scores against the published program, refusals."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from domain_settings import settings
from faces_run import RUN, port_generator, write_clip
from flax import nnx
from synthetic import error, load_reference

from qdgs_jax.domains import load_domain, prompted
from qdgs_jax.domains.faces import load_code_generator, load_faces
from qdgs_jax.domains.memory import MEMORY_SIZE, Memory
from qdgs_jax.domains.prompted import PromptedDomain
from qdgs_jax.domains.protocol import DomainParams, LatentStatistics
from qdgs_jax.domains.scoring import PromptAxis, Targets
from qdgs_jax.models.clip import CLIPConfig, TowerConfig
from qdgs_jax.models.stylegan2 import Generator, StyleGAN2Config
from qdgs_jax.ports.errors import CheckpointError
from qdgs_jax.ports.model_folder import save_model
from qdgs_jax.runs.plan import count_operations

GOLDEN = Path(__file__).parents[1] / "data" / "qdgs" / "scoring.npz"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return port_generator(tmp_path_factory.mktemp("faces"))


@pytest.fixture(scope="module")
def loaded(folder):
    return load_code_generator(str(folder))


@pytest.fixture(scope="module")
def domain(folder):
    chosen = {"generator": str(folder), "clip": str(write_clip(folder.parent))}
    small = {"emitters": 2, "start_batches": 4, "start_batch_size": 4}
    return load_domain(settings(RUN, domain=chosen, search=small))


# Codes


def test_images_of_normalised_codes_are_the_original_programs(tmp_path):
    generator, weights, statistics = load_code_generator(str(port_generator(tmp_path, 32)))
    reference = load_reference("stylegan2", "stylegan2_small")
    ws = jnp.asarray(reference["ws_psi07"]).reshape(4, -1)
    assert ws.shape[1] == generator.latent_dim == 8 * 64
    q = statistics.normalise(ws)
    images = jax.jit(generator.decode)(weights, statistics.restore(q))
    wanted = (reference["image_const"].transpose(0, 2, 3, 1) + 1) / 2
    assert error(images, wanted) < 1e-4


def test_statistics_make_codes_alike_and_bound_half_their_norm(folder, loaded):
    statistics = loaded[2]
    generator, weights, _ = load_code_generator(str(folder), truncation=1.0)
    w = generator.sample(weights, jax.random.key(0), 10_000)
    q = np.asarray(statistics.normalise(w), np.float64)
    std, centred = q.std(axis=0), q - q.mean(axis=0)
    excess = np.mean(centred**4, axis=0) / std**4 - 1  # what a deviation's own error follows from
    assert np.all(np.abs(std - 1) < 4 * np.sqrt(excess / 4 * (2 / 10_000)))
    np.testing.assert_allclose(
        np.linalg.norm(q, axis=1).mean() / 2, statistics.norm_bound, rtol=0.02
    )


def test_samples_are_truncated_towards_the_average_code(loaded):
    generator, weights, statistics = loaded
    key = jax.random.key(1)
    found = statistics.normalise(generator.sample(weights, key, 3))
    z = jax.random.normal(key, (3, generator.cfg.z_dim))
    whole = nnx.merge(generator.graph, weights).mapping(z).reshape(3, -1)
    np.testing.assert_allclose(found, 0.7 * statistics.normalise(whole), atol=1e-4)
    layers = np.asarray(found).reshape(3, generator.cfg.num_ws, -1)
    np.testing.assert_array_equal(layers, np.broadcast_to(layers[:, :1], layers.shape))


# Scores


class Published(PromptAxis):
    """An axis of the published program, which sums over the texts of a side."""

    def distance(self, embeds):
        near, far = self.sides(embeds)
        return near * len(self.positive) - far * len(self.negative)


class Still:
    """A generator of black images."""

    latent_dim = 1

    def decode(self, params, latents):
        return jnp.zeros((len(latents), 4, 4, 3))


@pytest.mark.parametrize(
    ("variant", "norm_weight", "uniqueness_weight", "remembered"),
    [
        ("prompt_only", 0.0, 0.0, 0),
        ("with_reg", 0.5, 0.0, 0),
        ("with_uniqueness_empty", 0.5, 0.2, 0),
        ("with_uniqueness_memory", 0.5, 0.2, 37),
    ],
)
def test_objective_and_measures_are_the_published_ones(
    variant, norm_weight, uniqueness_weight, remembered, monkeypatch
):
    with np.load(GOLDEN) as data:
        golden = {name: jnp.asarray(array) for name, array in data.items()}

    def axis(name):
        return Published(golden[f"{name}_pos"], golden[f"{name}_neg"])

    targets = Targets(axis("objective"), tuple(axis(f"measure{j}") for j in range(3)))
    statistics = LatentStatistics(jnp.zeros(1), jnp.ones(1), golden["q_norm"])
    tower = TowerConfig(width=4, layers=1, heads=1, mlp_width=4)
    scored = PromptedDomain(
        Still(),
        None,
        CLIPConfig(tower, tower, 4, 4, 8, 4, 512),
        DomainParams((), None, targets, statistics),
        cutouts=1,
        norm_weight=norm_weight,
        uniqueness_weight=uniqueness_weight,
    )
    monkeypatch.setattr(prompted, "embed_images", lambda *_: golden["image_embeds"])
    state = Memory.of(golden["memory"][:remembered]) if uniqueness_weight else ()
    norms = golden["solution_norms"][:, None]  # only norms enter the penalty
    found = jax.jit(scored.evaluate)(scored.params, state, norms, jax.random.key(0))
    np.testing.assert_allclose(found.descriptors, golden["measures"], atol=1e-4)
    loss = (100.0 - found.fitnesses) / 50.0
    np.testing.assert_allclose(loss, golden[f"loss_{variant}"], atol=1e-4)
    np.testing.assert_allclose(
        found.fitnesses, golden[f"objective_{variant}"], rtol=1e-4, atol=5e-3
    )


def test_the_memory_fills_and_the_jacobian_is_the_slope(domain):
    latents = domain.sample(domain.params, jax.random.key(0), 2)
    state, key = domain.init_state(), jax.random.key(1)
    assert state.embeds.shape[0] == MEMORY_SIZE == 100
    evaluate = jax.jit(domain.evaluate)
    state = domain.observe(state, evaluate(domain.params, state, 0 * latents, key), key)
    assert int(state.written) == 1

    run = jax.jit(domain.evaluate_with_jacobian)
    evaluation, jacobian = run(domain.params, state, latents, key)
    assert jacobian.shape == (2, 5, domain.latent_dim)
    direction = jacobian[:, 0] / jnp.linalg.norm(jacobian[:, 0], axis=1, keepdims=True)
    ends = [evaluate(domain.params, state, latents + s * direction, key) for s in (0.1, -0.1)]
    slope = (ends[0].fitnesses - ends[1].fitnesses) / 0.2
    np.testing.assert_allclose(slope, jnp.linalg.norm(jacobian[:, 0], axis=1), rtol=0.02)
    assert np.all(np.asarray(evaluation.fitnesses) < ends[0].fitnesses)


def test_start_latents_are_judged_by_the_prompts_alone(domain):
    start = domain.start_latents(domain.params, jax.random.key(2))
    assert start.shape == (2, domain.latent_dim)
    plain = PromptedDomain(domain.generator, domain.clip_graph, domain.clip_config, domain.params)
    score = jax.jit(plain.evaluate)
    found = score(domain.params, (), start, jax.random.key(0)).fitnesses
    others = domain.sample(domain.params, jax.random.key(3), 32)
    assert found.mean() > score(domain.params, (), others, jax.random.key(0)).fitnesses.mean()


def test_weights_are_arguments_of_the_compiled_program(domain):
    latents = jnp.zeros((2, domain.latent_dim))
    arguments = (domain.params, domain.init_state(), latents, jax.random.key(0))
    for function in (domain.evaluate_with_jacobian, domain.evaluate):
        constants = jax.make_jaxpr(function)(*arguments).consts
        assert sum(map(np.size, constants)) < 1000
    sampled = jax.make_jaxpr(domain.sample, static_argnums=2)(domain.params, jax.random.key(0), 2)
    assert sum(map(np.size, sampled.consts)) < 1000


def test_operations_are_counted_whatever_the_batch(domain):
    config = settings(RUN, search={"emitters": 2})
    batched = dataclasses.replace(domain, computation=domain.computation._replace(batch=1))
    wanted = count_operations(config, domain)
    assert min(wanted) > 1e5
    assert count_operations(config, batched) == wanted


# What is refused


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c.pop("latent_statistics"), "no statistics of its codes.*qdgs port stylegan2"),
        (lambda c: c["latent_statistics"].update(w_std=[1.0] * 7), "of 7 numbers.* w_dim = 5"),
        (lambda c: c["latent_statistics"]["w_std"].__setitem__(3, 0.0), "is 0.0: .*Port"),
        (lambda c: c["latent_statistics"].pop("mean_norm"), "a table of mean_norm, samples, w_std"),
        (lambda c: c["latent_statistics"].update(w_std=1.0), "w_std is a float"),
        (lambda c: c.update(w_dim=6), "does not fit the model"),
        (lambda c: c.update(kind="vae"), "of kind 'vae', not 'stylegan2'"),
    ],
)
def test_a_folder_that_cannot_be_searched_is_refused(change, message, folder, tmp_path):
    other = tmp_path / "other"
    shutil.copytree(folder, other)
    header = json.loads((other / "config.json").read_text())
    change(header["config"])
    (other / "config.json").write_text(json.dumps(header))
    with pytest.raises(CheckpointError, match=message):
        load_code_generator(str(other))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"c_dim": 3, "embed_dim": 4}, "a generator of 3 classes"),
        ({"img_channels": 1}, "images of 1 channels"),
    ],
)
def test_a_generator_of_other_images_is_refused(fields, message, tmp_path):
    cfg = StyleGAN2Config(4, (4,), z_dim=4, w_dim=4, mapping_layers=1, **fields)
    shapes = nnx.state(nnx.eval_shape(lambda: Generator(cfg, rngs=nnx.Rngs(0))))
    params = jax.tree.map(lambda leaf: np.ones(leaf.shape, leaf.dtype), nnx.to_pure_dict(shapes))
    save_model(tmp_path / "other", {"kind": "stylegan2", **cfg.to_dict()}, params)
    with pytest.raises(CheckpointError, match=message):
        load_code_generator(str(tmp_path / "other"))


def test_settings_of_another_kind_are_refused():
    shapes = settings(RUN.replace("truncation = 0.7", ""), domain={"kind": "shapes"})
    with pytest.raises(ValueError, match='no truncation: give that of kind = "faces"'):
        load_faces(shapes)
