"""Cost of the engine alone on an accelerator, as its compiler estimates it.

    python scripts/benchmarks/engine_targets.py            # n = 100, E = 15, for one TPU v5e
    python scripts/benchmarks/engine_targets.py --dims 7168 --emitters 512 --target tpu:v6e:2x2
    python scripts/benchmarks/engine_targets.py --only cma_maega map_elites

A step of each algorithm on the sphere with a linear projection, whose evaluation costs next to
nothing, into a grid of 100 x 100 cells: what is left is emitting, inserting and adapting. Nothing
is executed; it needs the extra `tpu-compiler`, or `cuda-compiler`.
"""

from __future__ import annotations

import argparse
import functools
import itertools
import os
import sys

os.environ.setdefault("JAX_PLATFORMS", "cpu")

import jax

from qdgs_jax import keys
from qdgs_jax.algorithms import archive_settings
from qdgs_jax.archive import GridArchive
from qdgs_jax.benchmark_problems import load_benchmark
from qdgs_jax.emitters.registry import build_emitter
from qdgs_jax.runs.driver import SearchTask
from qdgs_jax.runs.tables import SearchConfig
from qdgs_jax.search import Search
from qdgs_jax.targets.chips import Target
from qdgs_jax.targets.estimate import Estimate, estimate
from qdgs_jax.targets.programs import search_work

ALGORITHMS = ("cma_me", "cma_mae", "cma_mega", "cma_maega", "map_elites")
BRANCHES = 35  # with the parent 36 evaluations per emitter, as in the literature
CELLS = (100, 100)


def no_start() -> jax.Array:
    raise RuntimeError("an engine that is compiled alone has no start latents.")


def engine_task(algorithm: str, dim: int, emitters: int) -> SearchTask:
    """A step of an algorithm on a problem that costs next to nothing."""
    bench = load_benchmark("sphere", dim)
    settings = SearchConfig(algorithm=algorithm, emitters=emitters, branches=BRANCHES)
    emitter = build_emitter(algorithm, settings, dim, bench.problem.num_measures)
    make = functools.partial(
        GridArchive.create,
        dims=CELLS,
        ranges=bench.ranges,
        **archive_settings(algorithm, 0.02, 0.0),
    )
    search = Search(bench.problem, emitter, create_archive=make, chunk=1)
    return SearchTask(
        search=search,
        params=(),
        start_latents=no_start,
        num_start=emitters,
        key=keys.stream(keys.root(0), "search"),
        steps=1,
        step_evaluations=settings.step_evaluations,
        chunk=1,
    )


def engine_estimate(algorithm: str, dim: int, emitters: int, target: Target) -> Estimate:
    """Compile a step of an algorithm for a target."""
    task = engine_task(algorithm, dim, emitters)
    work = search_work(
        task,
        target,
        unit="evaluation",
        units=task.step_evaluations,
        words=f"a step of {algorithm}, n = {dim}, {emitters} emitters",
        flop=0.0,
    )
    return estimate(work, target)


def row(found: Estimate, algorithm: str, dim: int, emitters: int) -> str:
    """A row of the table in markdown."""
    costs = found.costs
    cost = costs.cycles if costs.cycles is not None else costs.moved or 0.0
    dear = ", ".join(f"{name} {100 * share:.0f} %" for name, share in list(costs.kinds.items())[:3])
    untold = ", ".join(f"{count} {name}" for name, count in costs.without_estimate.items()) or "-"
    return (
        f"| {algorithm} | {dim:,} | {emitters} | {cost / 1e3:,.0f} | "
        f"{cost / found.units:,.1f} | {1e6 * found.step_seconds:,.0f} | {dear} | {untold} | "
        f"{found.memory['code'] / 1e6:.1f} | {found.processor:.0f} |"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--target", default="tpu:v5e:2x2")
    parser.add_argument("--dims", type=int, nargs="+", default=[100])
    parser.add_argument("--emitters", type=int, nargs="+", default=[15])
    parser.add_argument("--only", choices=ALGORITHMS, nargs="+", default=ALGORITHMS)
    args = parser.parse_args()
    target = Target.parse(args.target)
    unit = "cycles" if target.backend == "tpu" else "bytes"
    print(
        f"| algorithm | n | E | thousand {unit} a step | {unit} an evaluation | µs a step "
        "| dearest | without an estimate | code, MB | compile, CPU s |"
    )
    print("| --- |" + " ---: |" * 5 + " --- | --- | ---: | ---: |")
    for dim, emitters, algorithm in itertools.product(args.dims, args.emitters, args.only):
        found = engine_estimate(algorithm, dim, emitters, target)
        print(row(found, algorithm, dim, emitters), flush=True)
        for line in found.lines():
            print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
