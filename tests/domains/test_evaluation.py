"""What the table [evaluation] changes, and what it leaves alone."""

from __future__ import annotations

import functools
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from domain_settings import settings
from flax import nnx

from qdgs_jax.domains import load_domain
from qdgs_jax.domains.batches import in_batches
from qdgs_jax.domains.evaluation import Computation
from qdgs_jax.domains.memory import Memory
from qdgs_jax.domains.prompted import PromptedDomain, _sampled
from qdgs_jax.domains.protocol import DomainParams, LatentStatistics
from qdgs_jax.domains.scoring import PromptAxis, Targets
from qdgs_jax.domains.shapes import VAEGenerator
from qdgs_jax.domains.start import StartSettings
from qdgs_jax.domains.weights import ASSETS
from qdgs_jax.models.clip import CLIPConfig, TowerConfig, VisionTower
from qdgs_jax.models.vae import Decoder, VAEConfig

RUN = (ASSETS / "shapes.toml").read_text()
TOWER = TowerConfig(width=32, layers=1, heads=2, mlp_width=64)
CLIP = CLIPConfig(TOWER, TOWER, 16, 4, vocab_size=9, context_length=4, embed_dim=16)
VAE = VAEConfig(latent_dim=3, image_size=32, channels=(4, 4, 4))
KEY = jax.random.key(5)


@functools.cache
def networks(**how):
    """CLIP's tower and a decoder, their random weights by one program instead of dozens."""

    @nnx.jit
    def make():
        tower = VisionTower(CLIP, rngs=nnx.Rngs(1), **how)
        return tower, Decoder(VAE, rngs=nnx.Rngs(0), **how)

    return tuple(nnx.split(network) for network in make())


def small_domain(start=None, penalties=(0.0, 0.0), **computation):
    """A domain with small networks of random weights, the same whatever is computed how."""
    computation = Computation(**computation)
    how = {"dtype": computation.dtype, "remat": computation.remat}
    (clip_graph, tower), (graph, weights) = networks(**how)
    texts = np.random.default_rng(2).standard_normal((6, 1, CLIP.embed_dim), np.float32)
    axes = [PromptAxis(texts[i], texts[i + 1]) for i in (0, 2, 4)]
    params = DomainParams(
        weights, tower, Targets(axes[0], tuple(axes[1:])), LatentStatistics.standard(3)
    )
    return PromptedDomain(
        VAEGenerator(graph, 3),
        clip_graph,
        CLIP,
        params,
        computation,
        cutouts=2,
        norm_weight=penalties[0],
        uniqueness_weight=penalties[1],
        start=start or StartSettings(),
    )


@pytest.fixture(scope="module")
def latents():
    return np.random.default_rng(4).standard_normal((20, 3), np.float32)


@pytest.fixture(scope="module")
def differentiated(latents):
    """The compiled program of the Jacobian, and what it computes, for each way to compute."""

    @functools.cache
    def run(**computation):
        domain = small_domain(**computation)
        arguments = domain.params, domain.init_state(), latents, jax.random.key(3)
        program = jax.jit(domain.evaluate_with_jacobian).lower(*arguments).compile()
        return program, *program(*arguments)

    return run


@pytest.fixture(scope="module")
def whole(differentiated):
    return differentiated()


def assert_same(result, wanted, atol):
    for got, want in zip(jax.tree.leaves(result), jax.tree.leaves(wanted), strict=True):
        np.testing.assert_allclose(got, want, atol=atol)


def test_latents_in_batches_score_as_all_together(latents):
    memory = np.random.default_rng(6).standard_normal((30, CLIP.embed_dim), np.float32)
    key, state = jax.random.key(1), Memory.of(memory)
    domains = [small_domain(penalties=(0.5, 0.2), batch=batch) for batch in (0, 8)]
    plain, split = (jax.jit(d.evaluate)(d.params, state, latents, key) for d in domains)
    np.testing.assert_allclose(split.fitnesses, plain.fitnesses, atol=1e-4)
    np.testing.assert_allclose(split.descriptors, plain.descriptors, atol=1e-4)
    assert_same(split.extra, plain.extra, 1e-4)


def test_what_a_run_says_reaches_the_domain():
    penalties = {"norm_penalty": 0.5, "uniqueness": 0.2}
    evaluation = {"batch": 8, "dtype": "float32", "precision": "high", "remat": True}
    domain = load_domain(
        settings(RUN, domain={"cutouts": 2}, objective=penalties, evaluation=evaluation)
    )
    assert domain.computation == Computation(**evaluation)
    assert (domain.cutouts, domain.norm_weight, domain.uniqueness_weight) == (2, 0.5, 0.2)


@pytest.mark.parametrize("batch", [1, 5, 8])
def test_jacobians_in_batches_are_those_of_all_together(whole, differentiated, batch):
    _, *wanted = whole
    _, *result = differentiated(batch=batch)
    assert_same(result, wanted, 1e-4)


def test_a_batch_as_large_as_all_is_all_at_once(latents):
    def traced(batch):
        domain = small_domain(batch=batch)
        arguments = domain.params, (), latents, jax.random.key(0)
        return str(jax.make_jaxpr(domain.evaluate_with_jacobian)(*arguments))

    whole = traced(0)
    assert traced(20) == traced(64) == whole
    assert traced(19) != whole


def test_batches_need_less_memory(whole, differentiated):
    def temporary(program):
        return program.memory_analysis().temp_size_in_bytes

    quarter = differentiated(batch=5)[0]
    assert temporary(quarter) < 0.4 * temporary(whole[0])


def test_recomputing_changes_no_number(whole, differentiated, latents):
    _, *wanted = whole
    _, *result = differentiated(remat=True)
    assert_same(result, wanted, 1e-4)
    domain = small_domain(remat=True)
    arguments = domain.params, (), latents, jax.random.key(0)
    text = str(jax.make_jaxpr(domain.evaluate_with_jacobian)(*arguments))
    assert text.count("checkpoint") + text.count("remat") >= CLIP.vision.layers + 3


def test_bfloat16_keeps_weights_and_scores_in_float32(whole, differentiated):
    domain = small_domain(dtype="bfloat16")
    assert {leaf.dtype for leaf in jax.tree.leaves(domain.params)} == {jnp.dtype("float32")}
    _, evaluation, jacobian = differentiated(dtype="bfloat16")
    for array in (evaluation.fitnesses, evaluation.descriptors, jacobian):
        assert array.dtype == jnp.float32
    _, wanted, slopes = whole
    moved = np.abs(evaluation.descriptors - wanted.descriptors)
    assert 0 < moved.max() < 0.02
    parallel = np.vdot(jacobian, slopes) / np.linalg.norm(jacobian) / np.linalg.norm(slopes)
    assert parallel > 0.99


@pytest.mark.parametrize("precision", ["default", "high", "highest"])
def test_products_have_the_precision_asked_for(latents, precision):
    domain = small_domain(precision=precision)
    arguments = domain.params, (), latents, jax.random.key(0)
    text = str(jax.make_jaxpr(domain.evaluate_with_jacobian)(*arguments))
    assert ("HIGH" in text) == (precision != "default")
    assert ("HIGHEST" in text) == (precision == "highest")


@pytest.mark.parametrize("backend", ["cpu", "gpu", "tpu", "another"])
def test_auto_is_resolved_for_every_backend(backend):
    table = settings(RUN).evaluation
    computation = Computation.of(table, backend)
    assert computation.dtype == "float32"
    assert (computation.precision == "high") == (backend == "tpu")
    assert not computation.splits(10**6)


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        ("dtype", "float16", "dtype is 'float16': give one of auto, float32, bfloat16"),
        ("precision", "low", "precision is 'low': give one of auto, default"),
        ("batch", -1, "batch is -1: give 0"),
    ],
)
def test_settings_out_of_range_are_refused(field, value, words):
    table = SimpleNamespace(batch=0, dtype="auto", precision="auto", remat=False)
    setattr(table, field, value)
    with pytest.raises(ValueError, match=words):
        Computation.of(table)


def test_a_look_at_the_generators_samples_takes_no_more_than_a_batch_at_a_time():
    def traced(at_once, batch):
        domain = small_domain(StartSettings(batch_size=at_once), batch=batch)
        return str(jax.make_jaxpr(_sampled, static_argnums=0)(domain, domain.params, KEY))

    assert traced(at_once=16, batch=4) == traced(at_once=4, batch=0)
    assert traced(at_once=4, batch=16) == traced(at_once=4, batch=0)
    assert traced(at_once=16, batch=0) != traced(at_once=4, batch=0)


@pytest.mark.parametrize("batch", [0, 1, 3, 4, 7, 8])
def test_batches_keep_the_order_of_rows(batch):
    rows = np.arange(14, dtype=np.float32).reshape(7, 2)
    cut = jax.jit(lambda rows: in_batches(lambda x: (x[:, 0], 2 * x), rows, batch))
    first, doubled = cut(rows)
    np.testing.assert_array_equal(first, rows[:, 0])
    np.testing.assert_array_equal(doubled, 2 * rows)


@pytest.mark.parametrize("batch", [0, 8])
def test_pictures_are_the_decoded_images_rounded(latents, batch):
    domain = small_domain(batch=batch)
    pictures = domain.pictures(domain.params, latents)
    assert pictures.dtype == jnp.uint8
    images = jax.jit(domain.decode)(domain.params, latents)
    np.testing.assert_allclose(np.asarray(pictures) / 255.0, images, atol=0.51 / 255)


def test_latents_are_searched_normalised(latents):
    domain = small_domain()
    decode = jax.jit(domain.decode)
    mean, std = np.arange(3, dtype=np.float32), np.array([1, 2, 4], np.float32)
    statistics = LatentStatistics(mean, std, np.ones((), np.float32))
    params = domain.params.replace(statistics=statistics)
    drawn = np.asarray(domain.generator.sample(params.generator, jax.random.key(0), 20))
    searched = np.asarray(domain.sample(params, jax.random.key(0), 20))
    np.testing.assert_allclose(searched * std + mean, drawn, atol=1e-6)
    np.testing.assert_allclose(decode(params, searched), decode(domain.params, drawn), atol=1e-5)


def test_the_bound_of_the_norm_is_half_the_mean_of_the_prior():
    drawn = np.random.default_rng(5).standard_normal((20_000, 6))
    mean_norm = np.linalg.norm(drawn, axis=1).mean()
    standard = LatentStatistics.standard(6)
    assert standard.norm_bound == pytest.approx(0.5 * float(mean_norm), rel=0.01)
    measured = LatentStatistics.standard(6, mean_norm)
    assert measured.norm_bound == pytest.approx(0.5 * float(mean_norm))


def test_more_start_latents_than_samples_are_refused():
    domain = small_domain(StartSettings(batches=2, batch_size=4, count=9))
    with pytest.raises(ValueError, match=r"emitters = 9, but .* 2 x 4 = 8 samples"):
        domain.start_latents(domain.params, jax.random.key(0))
    all_of_them = small_domain(StartSettings(batches=2, batch_size=4, count=8))
    found = all_of_them.start_latents(all_of_them.params, jax.random.key(0))
    assert len(np.unique(np.asarray(found), axis=0)) == 8
