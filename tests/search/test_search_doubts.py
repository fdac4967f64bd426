"""A search that can come to nothing says so, at the start and at the end."""

import warnings

import jax
import jax.numpy as jnp
import pytest
from small_search import objective_and_measures

from qdgs_jax.emitters import GaussianEmitter
from qdgs_jax.runs.driver import SearchTask, run_search
from qdgs_jax.runs.folder import RunFolder
from qdgs_jax.search import Search
from qdgs_jax.search_doubts import SearchWarning

KEY = jax.random.key(0)
START = jnp.arange(12.0).reshape(4, 3) / 10


def not_finite(latents):
    return jnp.nan * latents[:, 0], latents[:, :2]


def often_not_finite(latents):
    return jnp.sqrt(0.5 - latents[:, 0]), latents[:, :2]


def out_of_range(latents):
    return latents[:, 0], jnp.stack([latents[:, 0], 5.0 + latents[:, 1]], axis=-1)


OUT = "the measure {} of all elites is 5.4 to 6, outside its range [-1, 1]"
LOST = "{} latents evaluated were rejected, as their objective, a measure or a gradient is not"


def search_of(function):
    emitter = GaussianEmitter(8, 0.1)
    grid = {"dims": (4, 4), "ranges": ((-1, 1), (-1, 1))}
    return Search.from_function(function, 3, emitter, chunk=2, **grid)


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (not_finite, LOST.format("all 4")),
        (often_not_finite, LOST.format("2 of 4")),
        (out_of_range, OUT.format(1)),
    ],
)
def test_the_start_warns(function, message):
    with pytest.warns(SearchWarning) as told:
        search_of(function).init(START, KEY)
    assert message in str(told[0].message)
    assert told[0].filename == __file__
    assert len(told) == 1


def test_a_sound_start_and_one_below_jit_warn_of_nothing():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        search_of(objective_and_measures).init(START, KEY)
        jax.jit(search_of(not_finite).init)(START, KEY)


def test_a_run_warns_at_its_start_and_at_its_end(tmp_path):
    search = search_of(out_of_range)
    task = SearchTask(search, (), lambda: START, 4, KEY, 2, 8, 2, measures=("red", "big"))
    folder, told = RunFolder(tmp_path), []
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert run_search(folder, task, warn=told.append)
    assert OUT.format("'big'") in told[0]
    assert len(told) == 2
    assert "'big'" in told[1]
