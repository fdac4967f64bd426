"""The search loop: one state, one program, the same numbers however it is driven."""

import dataclasses
import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from qdax.core.emitters.emitter import Emitter, EmitterState
from qdax.core.emitters.omg_mega_emitter import OMGMEGAEmitter

from qdgs_jax.archive import GridArchive
from qdgs_jax.archive.cvt import CVTArchive, cvt_centroids
from qdgs_jax.emitters import GaussianEmitter, GradientArborescenceEmitter, OMGMegaEmitter
from qdgs_jax.problem import FunctionProblem, Problem
from qdgs_jax.runs.checkpoint import restore_state, save_state
from qdgs_jax.search import Search
from qdgs_jax.search_doubts import SearchWarning

DIM, WEIGHTS = 6, 5000
GRID = {"dims": (10, 10), "ranges": ((-2, 2), (-2, 2)), "learning_rate": 0.1, "threshold_min": 0.0}
METRICS = {"step", "evaluations", "coverage", "qd_score", "norm_qd_score", "best", "mean"}
METRICS |= {"num_elites", "rejected"}
traces = []


def score(params, latents):
    """A sphere around 0.5; the two measures are sums, turned by the weights."""
    traces.append(latents.shape)
    objective = 10 - jnp.sum((latents - 0.5) ** 2, axis=-1)
    halves = latents.reshape(-1, 2, DIM // 2).sum(-1)
    return objective, halves * (1 + 0.1 * jnp.mean(params))


class ClimberState(EmitterState):
    """Parents Float[2, D], and steps survived without progress."""

    theta: jax.Array
    patience: jax.Array


class Climber(Emitter):
    """Branches two parents along random mixtures of their gradients; compiles fast."""

    num_parents, batch_size = 2, 6

    def init(self, key, repertoire, genotypes, fitnesses, descriptors, extra_scores):
        return ClimberState(genotypes[:2], jnp.zeros(2, jnp.int32))

    def parents(self, state):
        return state.theta

    def emit(self, repertoire, state, key, jacobian):
        steps = 0.3 * jax.random.normal(key, (2, 3, 3)) @ jnp.nan_to_num(jacobian)
        return (state.theta[:, None] + steps).reshape(6, DIM), {}

    def state_update(
        self, emitter_state, repertoire, genotypes, fitnesses, descriptors, extra_scores
    ):
        best = extra_scores["value"].reshape(2, 3).argmax(-1) + jnp.asarray([0, 3])
        stuck = (extra_scores["status"].reshape(2, 3) == 0).all(-1)
        elites = repertoire.sample_elites(extra_scores["key"], 2)
        return emitter_state.replace(
            theta=jnp.where(stuck[:, None], elites, genotypes[best]),
            patience=jnp.where(stuck, 0, emitter_state.patience + 1),
        )


def start():
    return 0.1 * np.random.default_rng(0).standard_normal((4, DIM), np.float32)


@pytest.fixture(scope="module")
def params():
    return jnp.linspace(-1, 1, WEIGHTS)


@pytest.fixture(scope="module")
def search():
    return Search.from_function(score, DIM, Climber(), **GRID, has_params=True)


@pytest.fixture(scope="module")
def reference(search, params):
    """The state after 7 steps in one call, on the host, and its metrics."""
    state = search.init(start(), jax.random.key(1), params=params)
    return jax.device_get(search.run(state, 7, params=params))


def test_any_division_into_calls_gives_the_same_state(search, params, reference):
    state = search.init(start(), jax.random.key(1), params=params)
    traces.clear()
    state, _ = search.run(state, 3, params=params)
    state, first = search.run(state, 0, params=params)
    state, metrics = search.run(state, 4, params=params)
    assert traces == []  # one program serves every number of steps
    assert_same(state, reference[0])
    assert_same(metrics, reference[1])
    assert first["step"] == 3


@pytest.mark.parametrize("chunk", [1, 3])
def test_chunks_leave_no_trace(search, params, reference, chunk):
    chunked = Search.from_function(score, DIM, Climber(), **GRID, has_params=True, chunk=chunk)
    state = search.init(start(), jax.random.key(1), params=params)
    state, metrics = chunked.run(state, 7, params=params)
    assert_same(state, reference[0])
    assert_same(metrics, reference[1])


def test_steps_driven_by_hand_give_the_same_state(search, params, reference):
    state = search.init(start(), jax.random.key(1), params=params)
    scanned = jax.jit(lambda *carry: jax.lax.scan(search.scan_update, carry, length=7))
    (_, state), metrics = scanned(params, state)
    assert_close(state, reference[0])
    assert metrics["step"].tolist() == [1, 2, 3, 4, 5, 6, 7]
    assert_close(jax.tree.map(lambda x: x[-1], metrics), reference[1])


def test_a_search_continues_from_its_checkpoint_bit_for_bit(search, params, reference, tmp_path):
    state = search.init(start(), jax.random.key(1), params=params)
    state, _ = search.run(state, 3, params=params)
    save_state(tmp_path / "step3", state)
    like = jax.eval_shape(search.init, start(), jax.random.key(1), params=params)
    state, metrics = search.run(restore_state(tmp_path / "step3", like), 4, params=params)
    assert_same(state, reference[0])
    assert_same(metrics, reference[1])


def test_seeds_side_by_side_are_the_seeds_alone(search, params, reference):
    latents, keys = start(), jax.vmap(jax.random.key)(np.asarray([9, 1, 5]))
    states = jax.jit(jax.vmap(lambda key: search.init(latents, key, params=params)))(keys)
    run = jax.vmap(lambda state: search.run(state, 7, params=params))
    states, metrics = jax.device_get(run(states))
    assert_close(jax.tree.map(lambda x: x[1], states), reference[0])
    assert metrics["qd_score"].shape == (3,)
    assert len(set(metrics["qd_score"].tolist())) == 3


def test_metrics_count_every_evaluation(search, reference):
    state, metrics = reference
    assert set(metrics) == METRICS
    # 4 start latents, then 2 parents and 6 branches a step.
    assert (metrics["step"], metrics["evaluations"], metrics["rejected"]) == (7, 4 + 7 * 8, 0)
    assert metrics["num_elites"] == np.isfinite(state.archive.fitnesses).sum() > 4
    assert metrics["coverage"] == pytest.approx(metrics["num_elites"] / 100)
    assert metrics["norm_qd_score"] == pytest.approx(metrics["qd_score"] / 100)
    assert metrics["best"] == state.archive.fitnesses.max()


def test_weights_are_arguments_and_the_archive_exists_once(search, params):
    state = search.init(start(), jax.random.key(1), params=params)
    lowered = search.lower(state, params=params)
    constants = re.findall(r"stablehlo.constant .*tensor<([\dx]*)x[a-z]+\d+>", lowered.as_text())
    assert all(np.prod([int(n) for n in shape.split("x")]) < 200 for shape in constants)
    memory = lowered.compile().memory_analysis()
    size = sum(x.nbytes for x in jax.tree.leaves(state))
    assert memory.alias_size_in_bytes == size
    archive = sum(x.nbytes for x in jax.tree.leaves(state.archive))
    assert memory.temp_size_in_bytes < archive + 4 * params.size


@dataclasses.dataclass(frozen=True)
class Moody(FunctionProblem):
    """Counts what it sees; NaN, infinite measures and broken Jacobians in places."""

    def init_state(self):
        return jnp.int32(0)

    def evaluate(self, params, state, latents, key):
        evaluation = super().evaluate(params, state, latents, key)
        row = jnp.arange(len(latents))
        return evaluation._replace(
            fitnesses=jnp.where(row % 3 == 1, jnp.nan, evaluation.fitnesses),
            descriptors=jnp.where((row % 3 == 2)[:, None], jnp.inf, evaluation.descriptors),
        )

    def evaluate_with_jacobian(self, params, state, latents, key):
        evaluation, jacobian = super().evaluate_with_jacobian(params, state, latents, key)
        return evaluation, jacobian.at[1, 2, 0].set(jnp.nan)

    def observe(self, state, evaluation, key):
        return state + len(evaluation.fitnesses)


def test_what_is_not_finite_is_rejected_and_counted():
    problem = Moody(lambda x: score(0.0, x), DIM, 2)
    search = Search(problem, Climber(), **GRID)
    with pytest.warns(SearchWarning, match="2 of 4 latents"):
        state = search.init(start(), jax.random.key(1))
    state, metrics = search.run(state, 5)
    # Of 4 start latents two are broken, of 2 parents one, of 6 branches four.
    assert metrics["rejected"] == 2 + 5 * (1 + 4)
    assert metrics["evaluations"] == state.problem == 4 + 5 * 8
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(state.emitter))
    assert np.isfinite(metrics["qd_score"])
    assert metrics["num_elites"] > 2


def distance(x):
    """NaN gradients at 0, where reverse differentiation loses those of the measures, too."""
    return -jnp.linalg.norm(x, axis=-1), jnp.linalg.norm(x[:, :, None], axis=-1)[:, :2] - 1


def steps(x):
    """Nothing to differentiate anywhere."""
    return -jnp.abs(jnp.round(4 * x)).sum(-1), jnp.round(4 * x[:, :2]) / 4


@pytest.mark.parametrize("emitter", [GradientArborescenceEmitter, OMGMegaEmitter])
def test_a_start_without_gradients_is_left(emitter):
    either = lambda first, x: jax.lax.cond(first, distance, steps, x)  # noqa: E731
    search = Search.from_function(either, DIM, emitter(2, 8, 2), **GRID, has_params=True)
    for first in np.asarray([True, False]):
        state = search.init(np.zeros((1, DIM)), jax.random.key(0), params=first)
        _, metrics = search.run(state, 50, params=first)
        assert metrics["num_elites"] > 20, first


COPIED = Search.from_function(lambda x: (x.sum(-1), x[:, :2]), DIM, GaussianEmitter(8, 0.5), **GRID)


@pytest.mark.parametrize(
    "start",
    [np.zeros((1, DIM), int), np.zeros((1, DIM), jnp.bfloat16), [[0] * DIM]],
    ids=["integers", "bfloat16", "list"],
)
def test_latents_are_kept_in_single_precision_whatever_they_start_from(start):
    state, _ = COPIED.run(COPIED.init(start, jax.random.key(0)), 5)
    archive = jax.device_get(state.archive)
    full = np.isfinite(archive.fitnesses[:, 0])
    assert archive.latents.dtype == jnp.float32
    np.testing.assert_array_equal(archive.latents[full, :2], archive.descriptors[full])


class Audience(Climber):
    """Remembers which extra scores it was shown, as part of the program."""

    shown = ()

    def init(self, **scores):
        object.__setattr__(self, "shown", (set(scores["extra_scores"]),))
        return super().init(**scores)

    def state_update(self, **scores):
        object.__setattr__(self, "shown", (*self.shown, set(scores["extra_scores"])))
        return super().state_update(**scores)


@dataclasses.dataclass(frozen=True)
class Eloquent(FunctionProblem):
    """Says more than it has to."""

    def evaluate(self, params, state, latents, key):
        evaluation = super().evaluate(params, state, latents, key)
        return evaluation._replace(extra={"transitions": latents, "age": latents[:, 0]})

    def evaluate_with_jacobian(self, params, state, latents, key):
        _, jacobian = super().evaluate_with_jacobian(params, state, latents, key)
        return self.evaluate(params, state, latents, key), jacobian


def test_emitters_and_archives_get_what_a_problem_says_beside_its_scores():
    keep = functools.partial(
        GridArchive.create, dims=(4, 4), ranges=((-2, 2),) * 2, extra_scores={"age": 0.0}
    )
    emitter = Audience()
    search = Search(Eloquent(lambda x: score(0.0, x), DIM, 2), emitter, create_archive=keep)
    state, _ = search.run(search.init(start(), jax.random.key(0)), 3)
    assert len(emitter.shown) >= 2
    assert all({"transitions", "age", "status"} <= names for names in emitter.shown)
    archive = jax.device_get(state.archive)
    full = np.isfinite(archive.fitnesses[:, 0])
    np.testing.assert_array_equal(
        np.float32(archive.extra_scores["age"][full]), archive.latents[full, 0]
    )


def test_qdax_emitters_read_numbers_however_latents_are_stored():
    found = []
    centroids = jax.jit(lambda: GridArchive.create(np.zeros(DIM), **GRID).centroids)()
    for dtype in (jnp.float32, jnp.bfloat16):
        archive = functools.partial(
            GridArchive.create, dims=(10, 10), ranges=((-2, 2),) * 2, dtype=dtype
        )
        emitter = OMGMEGAEmitter(8, 0.5, 2, centroids)
        search = Search.from_function(
            lambda x: score(0.0, x),
            DIM,
            emitter,
            create_archive=archive,
            candidate_gradients=True,
        )
        _, metrics = search.run(search.init(start(), jax.random.key(0)), 20)
        found.append(int(metrics["num_elites"]))
    assert abs(found[1] - found[0]) < 0.2 * found[0]


def test_counts_stay_at_the_largest_integer(search, params):
    state = search.init(start(), jax.random.key(0), params=params)
    largest = np.iinfo(np.int32).max
    state = state.replace(evaluations=jnp.int32(largest - 3), step=jnp.int32(5))
    _, metrics = search.run(state, 2, params=params)
    assert metrics["evaluations"] == largest


def test_other_archives_and_plain_emitters():
    ranges = ((-2, 2), (-2, 2))
    centroids = cvt_centroids(jax.random.key(0), 30, ranges, iterations=2)
    search = Search.from_function(
        lambda x: score(0.0, x),
        DIM,
        GaussianEmitter(8, 0.5),
        create_archive=lambda latent: CVTArchive.create(latent, centroids=centroids, ranges=ranges),
    )
    state, metrics = search.run(search.init(start(), jax.random.PRNGKey(1)), 20)
    assert isinstance(search.problem, Problem)
    assert isinstance(state.archive, CVTArchive)
    assert metrics["evaluations"] == 4 + 20 * 8
    assert metrics["num_elites"] > 10


def plain(x):
    return x[:, 0], x[:, :2]


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: Search(FunctionProblem(plain, 3, 2), Climber()), "no dims and ranges"),
        (
            lambda: Search(
                FunctionProblem(plain, 3, 2), Climber(), dims=(2,), create_archive=GridArchive
            ),
            r"both create_archive and \['dims'\]",
        ),
        (
            lambda: Search(FunctionProblem(plain, 3, 1), Climber(), **GRID),
            "the archive has 2 measures but the problem has 1",
        ),
        (lambda: FunctionProblem(plain, 0, 1), "latent_dim is 0"),
        (lambda: wrong(lambda x: (x, x)), r"shapes \(1, 3\) and \(1, 3\) for 1 latents"),
        (lambda: wrong(plain, jacobian=lambda x: (*plain(x), x)), r"Jacobian has shape \(1, 3\)"),
        (lambda: wrong(plain, latents=np.zeros((1, 4))), r"shape \(1, 4\)"),
        (lambda: wrong(plain, latents=np.zeros((0, 3))), r"shape \(0, 3\).*n >= 1"),
        (lambda: wrong(plain, key=0), r"key is 0: give jax.random.key\(seed\)"),
        (lambda: wrong(plain, key=jax.random.key(0, impl="rbg")), "default"),
        (lambda: Search(plain, Climber(), **GRID), "from_function"),
        (lambda: Search.from_function(plain, 3, Climber()), "no dims and ranges"),
        (lambda: wrong(plain, steps=-1), "num_steps is -1"),
    ],
)
def test_bad_input_is_named(build, message):
    with pytest.raises(ValueError, match=message):
        build()


def wrong(function, jacobian=None, latents=((0.0,) * 3,), steps=1, key=None):
    emitter = Climber()
    search = Search.from_function(function, 3, emitter, jacobian=jacobian, **GRID)
    state = search.init(np.asarray(latents), jax.random.key(0) if key is None else key)
    search.run(state, steps)


def test_checkpoints_that_do_not_fit_are_refused(tmp_path):
    state = {"a": jnp.arange(3), "b": (jnp.zeros((0, 2)), None), "c": jnp.ones(2, jnp.bfloat16)}
    save_state(tmp_path / "one", state)
    assert_same(restore_state(tmp_path / "one", jax.eval_shape(lambda: state)), state)
    assert [x.name for x in tmp_path.iterdir()] == ["one"]
    with pytest.raises(ValueError, match="already exists"):
        save_state(tmp_path / "one", state)
    with pytest.raises(ValueError, match="not a checkpoint"):
        restore_state(tmp_path / "two", state)
    for other, message in (
        ({**state, "d": jnp.zeros(1)}, r"\['d'\] is missing"),
        ({"a": state["a"]}, "is not part of this search.*"),
        ({**state, "a": jnp.arange(4)}, r"int\d\d\[3\] instead of int\d\d\[4\]"),
        ({**state, "a": jnp.arange(3.0)}, r"int\d\d\[3\] instead of float\d\d\[3\]"),
    ):
        with pytest.raises(ValueError, match=message):
            restore_state(tmp_path / "one", other)
    for file in (tmp_path / "one" / "arrays").rglob("*"):
        if file.is_file() and file.stat().st_size > 40:
            file.write_bytes(file.read_bytes()[:-20])
    with pytest.raises(ValueError, match="incomplete or damaged"):
        restore_state(tmp_path / "one", state)


def assert_same(one, other):
    assert jax.tree.structure(one) == jax.tree.structure(other)
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        np.testing.assert_array_equal(np.asarray(a), np.asarray(b))


def assert_close(one, other):
    """Another program may round otherwise, and nothing more."""
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        np.testing.assert_allclose(np.asarray(a), np.asarray(b), rtol=2e-4, atol=2e-4)
