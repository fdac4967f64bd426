"""pyribs and QDax on the same problems and budgets, for scripts/benchmark_qd.py.

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

from qdgs_jax.benchmarks import Benchmark, load_benchmark

CELLS = 100
Scores = dict[int, tuple[float, float]]


class Pyribs:
    """pyribs' GridArchive and emitters, problems evaluated by our jitted functions."""

    name = "pyribs"
    module = "ribs"
    algorithms = ("cma_me", "cma_mae", "cma_mega", "cma_maega")

    def run(
        self, algorithm: str, bench: Benchmark, shape: Any, checkpoints: list[int]
    ) -> tuple[Scores, float]:
        """Scores at the checkpoints, and evaluations per second."""
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
        ranker = "imp" if annealed else "2imp"
        gradients = algorithm.endswith("ga")
        rules = {"selection_rule": "mu", "restart_rule": "basic", "ranker": ranker}
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
            if gradients
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
        scheduler = Scheduler(archive, emitters, result_archive=elites)
        evaluate, differentiate = _jitted(bench)
        scores, began = {}, time.perf_counter()
        for iteration in range(1, checkpoints[-1] + 1):
            if gradients:
                x = scheduler.ask_dqd()
                scheduler.tell_dqd(*map(np.asarray, differentiate(x)))
            x = scheduler.ask()
            scheduler.tell(*map(np.asarray, evaluate(x)))
            if iteration in checkpoints:
                stats = elites.stats
                scores[iteration] = (float(stats.norm_qd_score), 100 * float(stats.coverage))
        seconds = time.perf_counter() - began
        return scores, checkpoints[-1] * shape.evaluations / seconds

    def rows(self, problem: str, dim: int, shape: Any, checkpoints: list[int]) -> Iterator[str]:
        """Markdown rows of this peer."""
        yield from _rows(self, problem, dim, shape, checkpoints)


class QDax:
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
            return objectives, measures, {"gradients": jnp.nan_to_num(rows)}

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

    def rows(self, problem: str, dim: int, shape: Any, checkpoints: list[int]) -> Iterator[str]:
        """Markdown rows of this peer."""
        yield from _rows(self, problem, dim, shape, checkpoints)


PEERS = (Pyribs(), QDax())


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


def _rows(
    peer: Pyribs | QDax, problem: str, dim: int, shape: Any, checkpoints: list[int]
) -> Iterator[str]:
    if importlib.util.find_spec(peer.module) is None:
        yield f"| {peer.name} | not installed |" + " |" * (len(checkpoints) + 2)
        return
    bench = load_benchmark(problem, dim)
    for algorithm in peer.algorithms:
        scores, speed = peer.run(algorithm, bench, shape, checkpoints)
        cells = " | ".join(f"{scores[k][0]:.2f} / {scores[k][1]:.2f}" for k in checkpoints)
        yield f"| {peer.name} {algorithm} (seed 1) | {cells} | {speed:,.0f} | | |"
