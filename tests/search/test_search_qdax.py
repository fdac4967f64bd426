"""QDax's own emitters in our search, and our archive in QDax's own loop, unchanged."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from qdax.core.emitters.cma_improvement_emitter import CMAImprovementEmitter
from qdax.core.emitters.cma_mega_emitter import CMAMEGAEmitter
from qdax.core.emitters.cma_pool_emitter import CMAPoolEmitter
from qdax.core.emitters.multi_emitter import MultiEmitter
from qdax.core.emitters.mutation_operators import isoline_variation
from qdax.core.emitters.omg_mega_emitter import OMGMEGAEmitter
from qdax.core.emitters.standard_emitters import MixingEmitter
from qdax.core.map_elites import MAPElites

from qdgs_jax.archive import GridArchive
from qdgs_jax.emitters import GaussianEmitter, SquadEmitter
from qdgs_jax.problem import value_and_jacobian
from qdgs_jax.search import Search

# With JAX_ENABLE_X64 QDax's own containers scatter doubles into tables of single precision.
pytestmark = pytest.mark.filterwarnings("default:scatter inputs:FutureWarning")

# Its CMA emitters begin in double precision then, and go on in that of the archive's latents.
SINGLE_ONLY = pytest.mark.xfail(
    jax.config.jax_enable_x64, raises=TypeError, strict=True, reason="QDax mixes precisions"
)

DIM, BATCH = 4, 8
GRID = {"dims": (6, 6), "ranges": ((-2.0, 2.0), (-2.0, 2.0))}
START = np.full((2, DIM), 0.1, np.float32)
CENTROIDS = GridArchive.create(np.zeros(DIM), **GRID).centroids


def score(latents):
    return 10 - jnp.sum((latents - 0.5) ** 2, axis=-1), latents[:, :2]


def qdax_score(genotypes, key):
    """Scores with the gradients that QDax's CMA-MEGA wants."""
    fitnesses, descriptors, jacobian = value_and_jacobian(score, genotypes)
    rows = jacobian / (jnp.linalg.norm(jacobian, axis=-1, keepdims=True) + 1e-8)
    return fitnesses, descriptors, {"normalized_grads": jnp.swapaxes(rows, 1, 2)}


def mixing():
    vary = functools.partial(isoline_variation, iso_sigma=0.3, line_sigma=0.1)
    return MixingEmitter(lambda x, key: (x, key), vary, 1.0, BATCH)


def improvement():
    return CMAImprovementEmitter(BATCH, DIM, CENTROIDS, 0.5, min_count=1)


EMITTERS = {
    "cma_me_pool": lambda: CMAPoolEmitter(3, improvement()),
    "cma_mega": lambda: CMAMEGAEmitter(qdax_score, BATCH, 0.5, 2, CENTROIDS, 0.5),
    "omg_mega": lambda: OMGMEGAEmitter(BATCH, 0.5, 2, CENTROIDS),
    "several": lambda: MultiEmitter((mixing(), improvement(), GaussianEmitter(BATCH, 0.3))),
}


@pytest.mark.parametrize(
    "name",
    [name if name == "omg_mega" else pytest.param(name, marks=SINGLE_ONLY) for name in EMITTERS],
)
def test_qdax_emitters_run_in_our_search(name):
    emitter = EMITTERS[name]()
    search = Search.from_function(
        score, DIM, emitter, **GRID, candidate_gradients=name == "omg_mega", chunk=30
    )
    state = search.init(START, jax.random.key(0))
    state, metrics = search.run(state, 30)
    assert metrics["evaluations"] == 2 + 30 * emitter.batch_size
    assert metrics["num_elites"] > 10
    assert metrics["best"] > 9
    # Donating the state took nothing from the emitter: another search starts from it.
    search.init(START, jax.random.key(0))


@pytest.mark.parametrize(
    "emitter",
    [
        pytest.param(mixing, id="mixing"),
        pytest.param(EMITTERS["cma_mega"], id="cma_mega", marks=SINGLE_ONLY),
    ],
)
def test_our_archive_runs_in_qdax_map_elites(emitter):
    loop = MAPElites(
        qdax_score,
        emitter(),
        lambda repertoire: {"qd_score": repertoire.qd_score},
        functools.partial(GridArchive.init, **GRID),
    )
    key, first = jax.random.key(0), jax.random.key(1)
    repertoire, state, _ = jax.jit(loop.init)(START, CENTROIDS, first)
    scan = jax.jit(lambda carry: jax.lax.scan(loop.scan_update, carry, length=30))
    (repertoire, _, _), metrics = scan((repertoire, state, key))
    assert isinstance(repertoire, GridArchive)
    assert repertoire.num_elites == np.isfinite(np.asarray(repertoire.fitnesses)).sum() > 10
    assert (np.diff(metrics["qd_score"]) >= 0).all()


def test_squad_differentiates_by_itself_as_if_the_search_did():
    jacobian = lambda latents: value_and_jacobian(score, latents)[2]  # noqa: E731
    states = []
    for function in (None, jacobian):
        emitter = SquadEmitter(4, population=BATCH, jacobian_function=function)
        search = Search.from_function(score, DIM, emitter, **GRID)
        state = search.init(START, jax.random.key(0))
        states.append(search.run(state, 12)[0].emitter)
    np.testing.assert_allclose(states[1].genotypes, states[0].genotypes, rtol=1e-4, atol=1e-5)


def test_ask_and_tell():
    search = Search.from_function(score, DIM, mixing(), **GRID)
    begin = jax.jit(lambda x, *rest: search.init_ask_tell(x, *score(x), *rest))
    repertoire, state, _ = begin(START, CENTROIDS, jax.random.key(0))
    offspring, extra = jax.jit(search.ask)(repertoire, state, jax.random.key(1))

    @jax.jit
    def tell(offspring, repertoire, state, extra):
        return search.tell(offspring, *score(offspring), repertoire, state, None, extra)

    told, _, metrics = tell(offspring, repertoire, state, extra)
    assert metrics["num_elites"] == told.num_elites >= repertoire.num_elites == 1
