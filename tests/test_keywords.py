"""A keyword that nobody knows is told with the nearest one and all there are."""

import functools
import inspect

import jax
import jax.numpy as jnp
import pytest

import qdgs_jax
from qdgs_jax import GridArchive, SearchConfig, build_emitter, cvt_centroids, emitters
from qdgs_jax.keywords import UnknownKeywordError

EMITTERS = [getattr(emitters, name) for name in emitters.__all__ if name.endswith("Emitter")]
CREATE = functools.partial(GridArchive.create, jnp.zeros(2), dims=(2,))


@pytest.mark.parametrize("emitter", EMITTERS, ids=lambda emitter: emitter.__name__)
def test_every_emitter_names_what_it_takes(emitter):
    names = list(inspect.signature(emitter).parameters)
    assert "self" not in names
    typo = names[0][:-1]
    with pytest.raises(UnknownKeywordError) as told:
        emitter(**{typo: 3})
    assert f"{emitter.__name__} has no {typo!r}: did you mean {names[0]}?" in str(told.value)
    assert f"It takes {', '.join(names)}." in str(told.value)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (
            lambda: GridArchive(solution_dim=10, dims=(2, 2), ranges=((0, 1),)),
            "GridArchive.create has no 'solution_dim': It takes genotype, dims, ranges, learning",
        ),
        (lambda: CREATE(range=((0, 1),)), "create has no 'range': did you mean ranges? It takes"),
        (
            lambda: qdgs_jax.CVTArchive.create(jnp.zeros(2), centroid=jnp.zeros((2, 2))),
            "CVTArchive.create has no 'centroid': did you mean centroids?",
        ),
        (
            lambda: CREATE(ranges=((0, 1),)).replace(threshold=1),
            "has no 'threshold'",
        ),
        (lambda: cvt_centroids(jax.random.key(0), num_cell=3), "did you mean num_cells?"),
        (
            lambda: build_emitter("cma_me", SearchConfig(), 3, num_measure=2),
            "build_emitter has no 'num_measure': did you mean num_measures? It takes name, setting",
        ),
        (
            lambda: qdgs_jax.Search.from_function(len, 2, None, dim=(2,)),
            "a grid archive has no 'dim': did you mean dims? It takes dims, ranges, learning_rate",
        ),
    ],
)
def test_the_nearest_and_all_are_named(call, words):
    with pytest.raises(UnknownKeywordError) as told:
        call()
    assert words in str(told.value)
    assert told.value.__suppress_context__ or told.value.__context__ is None
    assert isinstance(told.value, TypeError)
    assert isinstance(told.value, ValueError)


def test_tables_of_a_run_file_are_checked_in_the_same_words_as_the_file():
    with pytest.raises(ValueError) as told:
        SearchConfig(emiters=5, branches="x")
    lines = str(told.value).splitlines()
    assert 'SearchConfig: emiters: unknown field; did you mean "emitters"?' in lines
    assert 'SearchConfig: branches = "x": must be an integer' in lines
    assert lines[-1].startswith("SearchConfig takes algorithm, evaluations, emitters, branches")


def test_what_is_missing_or_wrong_inside_stays_as_it_is():
    with pytest.raises(TypeError, match="missing"):
        emitters.GaussianEmitter()
    with pytest.raises(ValueError, match="dims is"):
        CREATE(ranges=((0, 1),), dims=(0,))
