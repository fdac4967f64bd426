"""pyribs and QDax on the same problems and budgets, for scripts/benchmarks/qd.py.

Both are optional; a missing one is reported as such. pyribs runs the paper's settings; QDax runs
its single CMA-ME and CMA-MEGA emitters, which need as many sequential steps as we have emitters.
"""

from __future__ import annotations

import importlib.util
import time
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from qdgs_jax.benchmark_problems import Benchmark, load_benchmark

CELLS = 100
INSERTION_DIMS = (50, 25, 5, 25)
INSERTION_RANGES = ((-0.1, 0.1),) * 4
Batch = tuple[jax.Array, jax.Array, jax.Array]
Scores = dict[int, tuple[float, float]]


class Peer:
    """What the two have in common."""

    name: str
    module: str
    algorithms: tuple[str, ...]

    @property
    def installed(self) -> bool:
        """Whether the library is there."""
        return importlib.util.find_spec(self.module) is not None

    def run(
        self, algorithm: str, bench: Benchmark, shape: Any, checkpoints: list[int]
    ) -> tuple[Scores, float]:
        """Scores at the checkpoints, and evaluations per second."""
        raise NotImplementedError

    def rows(self, problem: str, dim: int, shape: Any, checkpoints: list[int]) -> Iterator[str]:
        """Markdown rows of this peer."""
        if not self.installed:
            yield f"| {self.name} | not installed |" + " |" * (len(checkpoints) + 2)
            return
        bench = load_benchmark(problem, dim)
        for algorithm in self.algorithms:
            scores, speed = self.run(algorithm, bench, shape, checkpoints)
            cells = " | ".join(f"{scores[k][0]:.2f} / {scores[k][1]:.2f}" for k in checkpoints)
            yield f"| {self.name} {algorithm} (seed 1) | {cells} | {speed:,.0f} | | |"

    def insertion_times(self, batches: list[Batch], settings: dict[str, float]) -> list[float]:
        """Seconds of insertions into a prefilled archive; none where it lacks the settings."""
        raise NotImplementedError


class Pyribs(Peer):
    """pyribs' GridArchive and emitters, problems evaluated by our jitted functions."""

    name = "pyribs"
    module = "ribs"
    algorithms = ("cma_me", "cma_mae", "cma_mega", "cma_maega")

    def run(
        self, algorithm: str, bench: Benchmark, shape: Any, checkpoints: list[int]
    ) -> tuple[Scores, float]:
        """Scores at the checkpoints, and evaluations per second."""
        evaluate, differentiate = _jitted(bench)

        def step(scheduler: Any) -> None:
            if algorithm.endswith("ga"):
                x = scheduler.ask_dqd()
                # Copies, because it works in place.
                scheduler.tell_dqd(*map(np.array, differentiate(x)))
            x = scheduler.ask()
            scheduler.tell(*map(np.array, evaluate(x)))

        warm_up, _ = self._scheduler(algorithm, bench, shape)
        for _ in range(3):
            step(warm_up)
        scheduler, elites = self._scheduler(algorithm, bench, shape)
        scores, began = {}, time.perf_counter()
        for iteration in range(1, checkpoints[-1] + 1):
            step(scheduler)
            if iteration in checkpoints:
                stats = elites.stats
                scores[iteration] = (float(stats.norm_qd_score), 100 * float(stats.coverage))
        seconds = time.perf_counter() - began
        return scores, checkpoints[-1] * shape.evaluations / seconds

    def _scheduler(self, algorithm: str, bench: Benchmark, shape: Any) -> tuple[Any, Any]:
        """A scheduler at the start, and the archive of its elites."""
        from ribs.archives import GridArchive
        from ribs.emitters import EvolutionStrategyEmitter, GradientArborescenceEmitter
        from ribs.schedulers import Scheduler

        dim, annealed = bench.problem.latent_dim, algorithm in ("cma_mae", "cma_maega")
        common: dict[str, Any] = {
            "solution_dim": dim,
            "dims": [CELLS, CELLS],
            "ranges": list(bench.ranges),
        }
        annealing = {"learning_rate": 0.01, "threshold_min": 0.0} if annealed else {}
        archive, elites = GridArchive(**common, **annealing), GridArchive(**common)
        rules = {
            "selection_rule": "mu",
            "restart_rule": "basic",
            "ranker": "imp" if annealed else "2imp",
        }
        emitters = [
            GradientArborescenceEmitter(
                archive,
                x0=np.zeros(dim),
                sigma0=bench.sigma_gradient,
                lr=1.0,
                seed=seed,
                grad_opt="gradient_ascent",
                batch_size=shape.batch - 1,
                **rules,
            )
            if algorithm.endswith("ga")
            else EvolutionStrategyEmitter(
                archive,
                x0=np.zeros(dim),
                sigma0=bench.sigma0,
                seed=seed,
                batch_size=shape.batch,
                **rules,
            )
            for seed in range(shape.emitters)
        ]
        return Scheduler(archive, emitters, result_archive=elites), elites

    def insertion_times(self, batches: list[Batch], settings: dict[str, float]) -> list[float]:
        """Seconds of insertions into a prefilled archive."""
        from ribs.archives import GridArchive

        archive = GridArchive(
            solution_dim=64, dims=INSERTION_DIMS, ranges=INSERTION_RANGES, **settings
        )
        times = []
        for solutions, measures, objectives in batches:
            batch = [np.asarray(x) for x in (solutions, objectives, measures)]
            began = time.perf_counter()
            archive.add(*batch)
            times.append(time.perf_counter() - began)
        return times[30:]


class QDax(Peer):
    """QDax's MAPElites with its CMA emitters, one emitter per step."""

    name = "QDax"
    module = "qdax"
    algorithms = ("cma_me", "cma_mega")

    def run(
        self, algorithm: str, bench: Benchmark, shape: Any, checkpoints: list[int]
    ) -> tuple[Scores, float]:
        """Scores at the checkpoints, and evaluations per second."""
        from qdax.core.containers.mapelites_repertoire import compute_euclidean_centroids
        from qdax.core.map_elites import MAPElites

        dim, low, high = bench.problem.latent_dim, *zip(*bench.ranges, strict=True)
        centroids = compute_euclidean_centroids((CELLS, CELLS), low, high)
        evaluate, differentiate = _jitted(bench)

        def score(x: jax.Array, key: jax.Array) -> Any:
            if algorithm == "cma_me":
                return *evaluate(x), {}
            objectives, measures, jacobian = differentiate(x)
            norms = jnp.linalg.norm(jacobian, axis=-1, keepdims=True)
            rows = jnp.swapaxes(jacobian / (norms + 1e-8), 1, 2)
            return objectives, measures, {"normalized_grads": jnp.nan_to_num(rows)}

        emitter = self._emitter(algorithm, bench, shape, centroids, score)
        loop = MAPElites(score, emitter, lambda repertoire: {})
        key = jax.random.key(1)
        repertoire, state, _ = loop.init(jnp.zeros((shape.batch, dim)), centroids, key)

        @jax.jit
        def advance(carry: Any, steps: int) -> Any:
            return jax.lax.fori_loop(0, steps, lambda _, c: loop.scan_update(c, None)[0], carry)

        carry = (repertoire, state, jax.random.key(2))
        jax.block_until_ready(advance(carry, 0))
        scores, began, done = {}, time.perf_counter(), 0
        for iteration in checkpoints:
            carry = jax.block_until_ready(advance(carry, (iteration - done) * shape.emitters))
            done = iteration
            fitnesses = np.asarray(carry[0].fitnesses[:, 0])
            full = np.isfinite(fitnesses)
            scores[iteration] = (fitnesses[full].sum() / full.size, 100 * full.mean())
        return scores, done * shape.evaluations / (time.perf_counter() - began)

    def _emitter(
        self, algorithm: str, bench: Benchmark, shape: Any, centroids: jax.Array, score: Any
    ) -> Any:
        from qdax.core.emitters.cma_improvement_emitter import CMAImprovementEmitter
        from qdax.core.emitters.cma_mega_emitter import CMAMEGAEmitter

        dim = bench.problem.latent_dim
        if algorithm == "cma_me":
            return CMAImprovementEmitter(
                batch_size=shape.batch,
                genotype_dim=dim,
                centroids=centroids,
                sigma_g=bench.sigma0,
                min_count=1,
            )
        return CMAMEGAEmitter(
            scoring_function=score,
            batch_size=shape.batch,
            learning_rate=1.0,
            num_descriptors=2,
            centroids=centroids,
            sigma_g=bench.sigma_gradient,
        )

    def insertion_times(self, batches: list[Batch], settings: dict[str, float]) -> list[float]:
        """Seconds of insertions; it compares with all centroids, so a few must do."""
        from qdax.core.containers.mapelites_repertoire import (
            MapElitesRepertoire,
            compute_euclidean_centroids,
        )

        if settings:
            return []
        low, high = zip(*INSERTION_RANGES, strict=True)
        centroids = compute_euclidean_centroids(INSERTION_DIMS, low, high)
        repertoire = MapElitesRepertoire.init_default(jnp.zeros(64), centroids)
        add = jax.jit(
            lambda r, solutions, measures, objectives: r.add(solutions, measures, objectives),
            donate_argnums=0,
        )
        times = []
        for batch in batches[:4]:
            began = time.perf_counter()
            repertoire = jax.block_until_ready(add(repertoire, *batch))
            times.append(time.perf_counter() - began)
        return times[1:]


PEERS: dict[str, Peer] = {peer.name: peer for peer in (Pyribs(), QDax())}


def insertion_batch(seed: int) -> Batch:
    """4,096 candidates: numbers Float[B, 64], measures Float[B, 4], objectives Float[B]."""
    keys = jax.random.split(jax.random.key(seed), 3)
    batch = (
        jax.random.normal(keys[0], (4096, 64)),
        jax.random.uniform(keys[1], (4096, 4), minval=-0.1, maxval=0.1),
        jax.random.uniform(keys[2], (4096,)) * 100,
    )
    return jax.block_until_ready(batch)


def _jitted(bench: Benchmark) -> tuple[Callable[..., Any], Callable[..., Any]]:
    key, problem = jax.random.key(0), bench.problem

    @jax.jit
    def evaluate(x: jax.Array) -> Any:
        scores = problem.evaluate((), (), jnp.asarray(x, jnp.float32), key)
        return scores.fitnesses, scores.descriptors

    @jax.jit
    def differentiate(x: jax.Array) -> Any:
        scores, jacobian = problem.evaluate_with_jacobian((), (), jnp.asarray(x, jnp.float32), key)
        return scores.fitnesses, scores.descriptors, jacobian

    return evaluate, differentiate
