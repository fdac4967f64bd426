"""What a driver may rely on, for every algorithm: keys, weights, and what is compiled."""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental.key_reuse._core import check_key_reuse
from small_search import SETTINGS, objective_and_measures

from qdgs_jax.algorithms import archive_settings
from qdgs_jax.archive import GridArchive
from qdgs_jax.emitters import RandomEmitter
from qdgs_jax.emitters.protocol import GradientEmitter, PriorEmitter
from qdgs_jax.emitters.registry import ALGORITHMS, build_emitter
from qdgs_jax.problem import value_and_jacobian
from qdgs_jax.search import Search

DIM = 40  # beyond what a CMA-ES factorises in every step
STRATEGIES = ("cma_me", "cma_me_opt", "cma_me_rd", "cma_mae")  # over latents


@functools.cache
def search_of(name):
    return Search.from_function(
        objective_and_measures,
        DIM,
        build_emitter(name, SETTINGS, DIM, 2),
        dims=(10, 10),
        ranges=((-1, 1), (-1, 1)),
        **archive_settings(name, 0.1, 0.0),
    )


@functools.cache
def lowered(name):
    search = search_of(name)
    state = jax.eval_shape(lambda: search.init(jnp.zeros((2, DIM)), jax.random.key(0)))
    return jax.jit(search.update).lower(state).as_text()


@pytest.mark.parametrize("name", ALGORITHMS)
def test_a_step_branches_only_around_large_factorisations(name):
    branches = re.findall(r"stablehlo\.(?:case|if)\b", lowered(name))
    # EvoJAX's CMA-ES decides by itself when to factorise.
    assert len(branches) == (name in STRATEGIES or name == "evojax:CMA_ES_JAX")


@pytest.mark.parametrize("name", ALGORITHMS)
def test_a_step_never_calls_the_host(name):
    targets = re.findall(r"custom_call @(\w+)", lowered(name))
    assert not [target for target in targets if "callback" in target or "python" in target]


@pytest.mark.parametrize("name", ALGORITHMS)
def test_no_key_is_used_twice(name):
    emitter = build_emitter(name, SETTINGS, 4, 2)
    archive = GridArchive.create(jnp.zeros(4), dims=(10, 10), ranges=((-1, 1), (-1, 1)))

    def steps(start, emit, adapt):
        latents = jnp.zeros((2, 4))
        fitnesses, measures = objective_and_measures(latents)
        found, info = archive.add_with_info(latents, measures, fitnesses)
        state = emitter.init(start, found, latents, fitnesses, measures, {})
        for handed in ({"key": adapt}, {}):  # by our search, then with the key of the state
            wanted = {}
            if isinstance(emitter, GradientEmitter):
                parents = emitter.parents(state)
                wanted["jacobian"] = value_and_jacobian(objective_and_measures, parents)[2]
            draw, emit = jax.random.split(emit)
            latents, extra = emitter.emit(found, state, draw, **wanted)
            fitnesses, measures = objective_and_measures(latents)
            found, info = found.add_with_info(latents, measures, fitnesses)
            told = {**extra, "status": info.status, "value": info.value, **handed}
            state = emitter.state_update(state, found, latents, fitnesses, measures, told)
        return found.num_elites

    keys = jax.random.split(jax.random.key(0), 3)
    check_key_reuse(steps, *keys)  # follows the program without running it


def test_the_checker_of_keys_sees_a_key_that_is_used_twice():
    def twice(key):
        return jax.random.normal(key) + jax.random.normal(jax.random.split(key)[0])

    with pytest.raises(jax.errors.KeyReuseError):
        check_key_reuse(twice, jax.random.key(0))


def test_the_weights_of_a_prior_are_arguments_of_the_search():
    def prior(params, key, count):
        return params["mean"] + jax.random.normal(key, (count, DIM))

    def scores(params, latents):
        return -((latents - params["mean"]) ** 2).sum(-1), latents[:, :2]

    search = Search.from_function(
        scores,
        DIM,
        RandomEmitter(4, DIM, prior),
        has_params=True,
        dims=(4, 4),
        ranges=((-1e3, 1e3), (-1e3, 1e3)),
    )
    found = []
    for mean in (7.0, 100.0):
        params = {"mean": jnp.full(DIM, mean)}
        state = search.init(jnp.zeros((1, DIM)), jax.random.key(0), params=params)
        state, metrics = search.run(state, 3, params=params)
        assert metrics["best"] > -100
        found.append(metrics["best"])
    # The same draws around another mean, by the program that was compiled for the first.
    np.testing.assert_allclose(found[0], found[1], rtol=1e-3)
    lowered = search.lower(state, params=params).as_text()
    assert not re.search(rf"dense<.*> : tensor<{DIM}xf32>", lowered)


@pytest.mark.parametrize("name", ALGORITHMS)
def test_emitters_say_what_they_want_of_emit(name):
    emitter = build_emitter(name, SETTINGS, 4, 2)
    assert isinstance(emitter, GradientEmitter) == name.endswith(("mega", "maega", "squad"))
    assert isinstance(emitter, PriorEmitter) == (name == "random")
