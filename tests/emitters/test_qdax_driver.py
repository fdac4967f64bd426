"""Our emitters and archive inside QDax's own MAPElites, unchanged."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from qdax.core.containers.mapelites_repertoire import MapElitesRepertoire
from qdax.core.emitters.multi_emitter import MultiEmitter
from qdax.core.map_elites import MAPElites

from qdgs_jax.archive import GridArchive
from qdgs_jax.emitters import (
    DominatedNoveltyEmitter,
    EvoJaxEmitter,
    EvolutionStrategyEmitter,
    GaussianEmitter,
    GradientArborescenceEmitter,
    IsoLineEmitter,
    OMGMegaEmitter,
    RandomEmitter,
    SquadEmitter,
)
from qdgs_jax.emitters.optimizer import Optimizer

DIMS, RANGES = (8, 8), ((-2.0, 2.0), (-2.0, 2.0))

# With JAX_ENABLE_X64 QDax's own containers scatter doubles into tables of single precision.
pytestmark = pytest.mark.filterwarnings("default:scatter inputs:FutureWarning")


def score(genotypes, key):
    """A sphere around (1, 1, ...) whose measures are the first two components."""
    return 10 - jnp.sum((genotypes - 1) ** 2, axis=-1), genotypes[:, :2], {}


def jacobian(latents):
    objective = -2 * (latents - 1)
    measures = jnp.broadcast_to(jnp.eye(2, latents.shape[1]), (len(latents), 2, latents.shape[1]))
    return jnp.concatenate([objective[:, None], measures], axis=1)


EMITTERS = {
    "gaussian": GaussianEmitter(16, 0.3),
    "iso_line": IsoLineEmitter(16, 0.1),
    "cma_me": EvolutionStrategyEmitter(2, 8, ranking="2imp", restart="no_improvement"),
    "cma_me_rd": EvolutionStrategyEmitter(2, 8, ranking="2rd"),
    "omg_mega": OMGMegaEmitter(2, 7, 2, jacobian_function=jacobian),
    "cma_mega": GradientArborescenceEmitter(
        2, 7, 2, 0.5, Optimizer("adam", 0.1), ranking="2imp", jacobian_function=jacobian
    ),
    "random": RandomEmitter(16, 4),
    "dns": DominatedNoveltyEmitter(16, population=32, iso_sigma=0.1),
    "squad": SquadEmitter(16, population=32, jacobian_function=jacobian),
    "evojax": EvoJaxEmitter("CMA_ES_JAX", 16, 4),
}


def run(emitter, repertoire_init, steps=40):
    centroids = GridArchive.create(np.zeros(4), dims=DIMS, ranges=RANGES).centroids
    loop = MAPElites(score, emitter, lambda repertoire: {}, repertoire_init)

    @jax.jit
    def whole(centroids):
        key, start = jax.random.split(jax.random.key(0))
        repertoire, state, _ = loop.init(jnp.zeros((2, 4)), centroids, start)
        carry, _ = jax.lax.scan(loop.scan_update, (repertoire, state, key), length=steps)
        return carry[:2]

    return whole(centroids)


INITS = {
    "QDax's repertoire": MapElitesRepertoire.init,
    "our archive": functools.partial(GridArchive.init, dims=DIMS, ranges=RANGES),
}


@pytest.mark.parametrize(
    ("name", "init"),
    [
        ("gaussian", "QDax's repertoire"),
        ("iso_line", "our archive"),
        ("cma_me", "our archive"),
        ("cma_me_rd", "QDax's repertoire"),
        ("omg_mega", "QDax's repertoire"),
        ("cma_mega", "our archive"),
        ("random", "our archive"),
        ("dns", "QDax's repertoire"),
        ("squad", "QDax's repertoire"),
        ("evojax", "our archive"),
    ],
)
def test_emitters_run_in_map_elites(name, init):
    emitter = EMITTERS[name]
    repertoire, state = run(emitter, INITS[init])
    occupied = np.isfinite(np.asarray(repertoire.fitnesses))[:, 0]
    assert occupied.sum() > 12
    assert np.asarray(repertoire.fitnesses)[occupied].max() > 6.5  # the start latents have 6
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(state))
    if name.endswith("mega"):
        x, _ = jax.jit(emitter.emit)(repertoire, state, jax.random.key(0))
        x = np.asarray(x)
        assert x.shape[0] == emitter.batch_size == 16
        np.testing.assert_array_equal(x[:2], state.theta)


def test_adaptive_emitters_say_that_multi_emitter_cuts_their_scores():
    emitter = MultiEmitter((EMITTERS["cma_me"], EMITTERS["cma_mega"]))
    with pytest.raises(ValueError, match="MultiEmitter cuts"):
        jax.eval_shape(lambda: run(emitter, INITS["our archive"]))
