"""Generators of the user's own: the documented example, and what is refused."""

from __future__ import annotations

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from domain_settings import settings

from qdgs_jax.domains import load_domain
from qdgs_jax.domains.external import make_generator
from qdgs_jax.emitters.registry import build_emitter
from qdgs_jax.runs.config import SearchConfig
from qdgs_jax.search import Search

EXAMPLES = Path(__file__).parents[2] / "examples"
RUN = (EXAMPLES / "external_generator.toml").read_text()

GENERATOR = """
import jax, jax.numpy as jnp

class Plain:
    latent_dim = 3
    params = {"weights": jnp.full((3, 24), 0.1)}

    def decode(self, params, latents):
        return jax.nn.sigmoid(latents @ params["weights"]).reshape(-1, 2, 4, 3)

    def sample(self, params, key, count):
        return 2 + jax.random.normal(key, (count, 3)) * params["weights"][:, 0]

def make(**changes):
    made = Plain()
    for name, value in changes.items():
        setattr(made, name, eval(value))
    return made
"""


@pytest.fixture(scope="module")
def example():
    fewer = {"emitters": 4, "start_batches": 4, "start_batch_size": 8}
    return load_domain(settings(RUN, domain={"folder": str(EXAMPLES)}, search=fewer))


def test_the_documented_example_is_searched(example):
    emitter = build_emitter("cma_maega", SearchConfig(emitters=4, branches=8, step_size=0.1), 5, 2)
    ranges = ((-0.65, 0.65), (-0.55, 0.55))
    search = Search(
        example, emitter, dims=(20, 20), ranges=ranges, learning_rate=0.02, threshold_min=0.0
    )
    start = example.start_latents(example.params, jax.random.key(1))
    state = search.init(start, jax.random.key(2))
    found = int(search.metrics(state)["num_elites"])
    state, metrics = search.run(state, 8)
    assert metrics["num_elites"] > found + 10
    assert metrics["rejected"] == 0
    pictures = example.pictures(example.params, np.asarray(state.archive.elites().latents[:4]))
    assert pictures.shape == (4, 48, 48, 3)


def test_the_example_is_measured_by_what_it_draws(example):
    @jax.jit
    def measured(params):
        latents = example.sample(params, jax.random.key(3), 64)
        return latents, example.evaluate(params, (), latents, jax.random.key(0)).descriptors

    latents, measures = map(np.asarray, measured(example.params))
    for measure, name in enumerate(("hue", "form")):
        assert np.corrcoef(measures[:, measure], latents[:, measure])[0, 1] > 0.5, name


def external(folder: Path, text: str = GENERATOR, name: str = "plain", **changes):
    """The settings of a run whose generator is written beside it."""
    (folder / f"{name}.py").write_text(text)
    domain = {"generator": f"{name}:make", "folder": str(folder), "arguments": changes}
    return settings(RUN, domain=domain)


@pytest.fixture
def refused(tmp_path):
    """The message with which a changed generator is refused."""

    def message(text=GENERATOR, **changes):
        with pytest.raises(ValueError) as caught:
            load_domain(external(tmp_path, text, tmp_path.name, **changes))
        return str(caught.value)

    return message


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"latent_dim": "2.5"}, "latent_dim is 2.5: give the length of a latent, an int"),
        ({"latent_dim": "True"}, "latent_dim is True"),
        ({"latent_dim": "0"}, "latent_dim is 0"),
        ({"latent_dim": "4"}, "sample(params, key, 2) gives shape [2, 3]: give [2, 4]"),
        ({"params": "{'name': 'x'}"}, "params failed: TypeError"),
        ({"sample": "lambda params, key: 0"}, "sample(params, key, 2) failed: "),
        ({"decode": "lambda p, z: z"}, "gives shape [2, 3]: give [2, H, W, 3]"),
        ({"decode": "lambda p, z: jnp.zeros((2, 4, 4, 1))"}, "gives shape [2, 4, 4, 1]"),
        ({"decode": "lambda p, z: jnp.zeros((2, 4, 4, 3), 'uint8')"}, "gives uint8: give float32"),
        ({"decode": "lambda p, z: 2 * jnp.ones((2, 4, 4, 3)) - 1.5"}, None),
        (
            {"decode": "lambda p, z: -jnp.ones((2, 4, 4, 3))"},
            "pixels from -1 to -1: give values in",
        ),
        ({"decode": "lambda p, z: jnp.full((2, 4, 4, 3), jnp.nan)"}, "are not finite"),
        ({"decode": "lambda p, z: float(z.sum())"}, "decode(params, latents) failed: Concretiz"),
        ({"decode": "lambda p, z: 'image'"}, "decode(params, latents) failed: TypeError"),
        (
            {"prepare_weights": "lambda p: {'weights': 2 * p['weights']}"},
            "decode(prepare_weights(params), latents) gives other pixels than decode(params, ",
        ),
        ({"prepare_weights": "3"}, "decode(prepare_weights(params), latents) failed: TypeError"),
    ],
)
def test_what_a_generator_does_wrong_is_said(refused, tmp_path, change, words):
    if words is None:  # in range: nothing to say
        load_domain(external(tmp_path, name="fine", **change))
    else:
        assert words in refused(**change)


@pytest.mark.parametrize("attribute", ["latent_dim", "decode", "sample", "params"])
def test_a_missing_attribute_is_named(refused, attribute):
    text = f"{GENERATOR}\n\ndel Plain.{attribute}\n"
    assert f"made a Plain without {attribute}: a generator has latent_dim" in refused(text)


@pytest.mark.parametrize(
    ("generator", "words"),
    [
        ("nowhere_to_be_found:make", "which is neither in .* nor where Python looks"),
        ("external_generator:make_nothing", "external_generator.py has no function 'make_nothing'"),
        ("external_generator", 'give "module:factory"'),
        ("external_generator:", 'give "module:factory"'),
    ],
)
def test_a_factory_that_is_not_there_is_said(generator, words):
    with pytest.raises(ValueError, match=words):
        make_generator(generator, {}, EXAMPLES)


def test_a_module_or_factory_that_fails_says_where(refused, tmp_path):
    assert "failed: ModuleNotFoundError: No module named 'not_there'" in refused("import not_there")
    with pytest.raises(ValueError, match=r"make_generator\(sise=3\) failed: TypeError"):
        make_generator("external_generator:make_generator", {"sise": 3}, EXAMPLES)


def test_two_modules_of_one_name_are_not_confused(tmp_path):
    (tmp_path / "external_generator.py").write_text("def make(): pass")
    make_generator("external_generator:make_generator", {}, EXAMPLES)
    with pytest.raises(ValueError, match="is in use under this name already"):
        make_generator("external_generator:make", {}, tmp_path)


def test_oblong_images_are_scored_and_the_bound_follows_the_prior(tmp_path):
    domain = load_domain(external(tmp_path, name="oblong"))

    @jax.jit
    def scored(params):
        latents = domain.sample(params, jax.random.key(0), 5)
        return latents, domain.evaluate(params, (), latents, jax.random.key(1))

    latents, evaluation = scored(domain.params)
    assert np.isfinite(evaluation.fitnesses).all()
    assert domain.pictures(domain.params, latents).shape == (5, 2, 4, 3)
    # Latents around (2, 2, 2) with a deviation of 0.1.
    assert domain.params.statistics.norm_bound == pytest.approx(0.5 * 12**0.5, rel=0.01)


def test_a_generator_may_prepare_its_weights_for_a_search(tmp_path):
    marked = "lambda params: {**params, 'prepared': jnp.ones(())}"
    domain = load_domain(external(tmp_path, name="preparing", prepare_weights=marked))
    assert domain.prepare_weights(domain.params).generator["prepared"] == 1.0
    plain = load_domain(external(tmp_path, name="not_preparing"))
    found = plain.prepare_weights(plain.params)
    np.testing.assert_allclose(found.generator["weights"], 0.1)
    latents = jnp.ones((2, 3))
    np.testing.assert_array_equal(plain.decode(found, latents), plain.decode(plain.params, latents))


def test_no_weight_is_a_constant_of_a_search_by_random_sampling(tmp_path):
    codes = "{**Plain.params, 'codes': jax.random.normal(jax.random.key(0), (3000, 3))}"
    sample = "lambda p, key, n: p['codes'][jax.random.randint(key, (n,), 0, 3000)]"
    domain = load_domain(external(tmp_path, name="weighty", params=codes, sample=sample))
    emitter = build_emitter("random", SearchConfig(emitters=2), 3, 2, domain.sample)
    search = Search(domain, emitter, dims=(4, 4), ranges=((-1, 1), (-1, 1)))
    state = search.init(jnp.ones((2, 3)), jax.random.key(0))
    lines = search.lower(state).as_text().splitlines()
    assert max(len(line) for line in lines if "stablehlo.constant" in line) < 1000
    (signature,) = (line for line in lines if "@main(" in line)
    assert "tensor<3000x3xf32>" in signature
