"""Quality and speed of the quality-diversity algorithms on the literature's benchmark domains.

    python scripts/benchmarks/qd.py                       # paper settings: minutes per algorithm
    python scripts/benchmarks/qd.py --problems sphere --algorithms cma_maega --checkpoints 100,1000
    python scripts/benchmarks/qd.py --peers --write       # beside pyribs (extra `peers`) and QDax

The settings are those of Fontaine & Nikolaidis 2022 (arXiv:2205.10752): 15 emitters of 36
candidates, 100 x 100 cells, start at the origin, annealing with learning rate 0.01. A gradient
algorithm's parent counts as one of its 36 candidates. QD-scores are those of the elites, divided by
the number of cells. Compilation (with one chunk of steps) is timed apart.
"""

from __future__ import annotations

import argparse
import dataclasses
import platform
import statistics
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from qd_peers import INSERTION_DIMS, INSERTION_RANGES, PEERS, insertion_batch

from qdgs_jax.archive import GridArchive
from qdgs_jax.benchmark_problems import PROBLEMS, Benchmark, load_benchmark
from qdgs_jax.compiler_options import compile_long
from qdgs_jax.emitters import (
    EvolutionStrategyEmitter,
    GaussianEmitter,
    GradientArborescenceEmitter,
    IsoLineEmitter,
    OMGMegaEmitter,
)
from qdgs_jax.emitters.optimizer import Optimizer
from qdgs_jax.search import Search

DOCS = Path(__file__).parents[2] / "docs" / "benchmarks.md"
CELLS = 100  # per measure
ANNEALED = {"learning_rate": 0.01, "threshold_min": 0.0}
# QD-score / coverage after 5.4 million evaluations, n = 100: the best known of the paper, of pyribs
# 0.12 and of QDax 0.5.
REFERENCES = {
    ("sphere", "map_elites"): "41.6 / 50.8",
    ("sphere", "map_elites_line"): "49.1 / 60.4",
    ("sphere", "cma_me"): "46.0 / 56.3",
    ("sphere", "cma_me_single"): "55.4 / 68.4",
    ("sphere", "cma_mae"): "64.9 / 83.3",
    ("sphere", "cma_mega"): "75.3 / 100",
    ("sphere", "cma_maega"): "75.4 / 100",
    ("rastrigin", "map_elites"): "31.4 / 47.9",
    ("rastrigin", "map_elites_line"): "38.3 / 56.5",
    ("rastrigin", "cma_me"): "39.6 / 55.5",
    ("rastrigin", "cma_mae"): "52.7 / 80.5",
    ("rastrigin", "cma_mega"): "63.1 / 100",
    ("rastrigin", "cma_maega"): "63.1 / 100",
    ("plateau", "map_elites"): "47.1 / 47.1",
    ("plateau", "map_elites_line"): "52.2 / 52.2",
    ("plateau", "cma_me"): "34.5 / 34.5",
    ("plateau", "cma_mae"): "79.3 / 79.3",
    ("plateau", "cma_mega"): "100 / 100",
    ("plateau", "cma_maega"): "100 / 100",
    ("arm", "map_elites"): "71.4 / 74.1",
    ("arm", "map_elites_line"): "74.6 / 75.6",
    ("arm", "cma_me"): "75.8 / 75.9",
    ("arm", "cma_mae"): "79.0 / 79.2",
    ("arm", "cma_mega"): "75.7 / 75.7",
    ("arm", "cma_maega"): "79.4 / 79.5",
}


@dataclasses.dataclass(frozen=True)
class Shape:
    """Candidates of a step."""

    emitters: int
    batch: int

    @property
    def evaluations(self) -> int:
        """Evaluations of a step."""
        return self.emitters * self.batch


@dataclasses.dataclass
class Run:
    """What one run gave at its checkpoints."""

    scores: dict[int, tuple[float, float]]  # iteration -> QD-score, coverage in percent
    compile_seconds: float
    evaluations_per_second: float


def _strategy(ranking: str, **settings: Any) -> Callable[[Benchmark, Shape], Any]:
    def build(bench: Benchmark, shape: Shape) -> Any:
        return EvolutionStrategyEmitter(
            shape.emitters,
            shape.batch,
            bench.sigma0,
            ranking=ranking,
            form="full" if bench.problem.latent_dim < 1000 else "separable",
            **settings,
        )

    return build


def _arborescence(ranking: str, **settings: Any) -> Callable[[Benchmark, Shape], Any]:
    def build(bench: Benchmark, shape: Shape) -> Any:
        return GradientArborescenceEmitter(
            shape.emitters,
            shape.batch - 1,
            bench.problem.num_measures,
            bench.sigma_gradient,
            Optimizer("ascent", 1.0),
            ranking=ranking,
            **settings,
        )

    return build


ALGORITHMS: dict[str, tuple[Callable[[Benchmark, Shape], Any], dict[str, float]]] = {
    "map_elites": (lambda b, s: GaussianEmitter(s.evaluations, b.sigma0), {}),
    "map_elites_line": (lambda b, s: IsoLineEmitter(s.evaluations, b.sigma0, 0.2), {}),
    "cma_me": (_strategy("2imp"), {}),
    "cma_me_single": (_strategy("2imp", parent_rule="all", restart="no_improvement"), {}),
    "cma_mae": (_strategy("imp"), ANNEALED),
    "omg_mega": (
        lambda b, s: OMGMegaEmitter(s.emitters, s.batch - 1, 2, b.sigma_gradient),
        {},
    ),
    "cma_mega": (_arborescence("2imp"), {}),
    "cma_maega": (_arborescence("imp"), ANNEALED),
    # Not in the paper. It restarts degenerate strategies only: some also give up where nothing is
    # accepted. Its gradients have unit length: some are orthonormal.
    "cma_mega_no_improvement": (_arborescence("2imp", restart="no_improvement"), {}),
    "cma_maega_no_improvement": (_arborescence("imp", restart="no_improvement"), ANNEALED),
    "cma_mega_orthonormal": (_arborescence("2imp", normalization="orthonormal"), {}),
    "cma_maega_orthonormal": (_arborescence("imp", normalization="orthonormal"), ANNEALED),
}


def build_search(bench: Benchmark, algorithm: str, shape: Shape) -> Search:
    """An algorithm as the literature sets it up for a problem."""
    build, archive = ALGORITHMS[algorithm]
    dims = (CELLS, CELLS)
    return Search(bench.problem, build(bench, shape), dims=dims, ranges=bench.ranges, **archive)


def run(
    problem: str,
    algorithm: str,
    dim: int,
    shape: Shape,
    seed: int,
    checkpoints: list[int],
    clock: Callable[[], float] = time.perf_counter,
) -> Run:
    """One run of our implementation, timed by a clock."""
    # One emitter needs as many sequential steps as there are emitters otherwise.
    turns = shape.emitters if algorithm.endswith("single") else 1
    bench = load_benchmark(problem, dim)
    search = build_search(bench, algorithm, Shape(shape.emitters // turns, shape.batch))
    state = search.init(jnp.zeros((1, dim)), jax.random.key(seed))
    began = clock()
    # Both programs of `run`: a chunk of steps, and one step.
    jax.block_until_ready(search.run(jax.tree.map(jnp.copy, state), search.chunk + 1))
    compiled = clock() - began
    scores, seconds, done = {}, 0.0, 0
    for iteration in checkpoints:
        began = clock()
        state, metrics = jax.block_until_ready(search.run(state, turns * (iteration - done)))
        seconds += clock() - began
        done = iteration
        scores[iteration] = (float(metrics["norm_qd_score"]), 100 * float(metrics["coverage"]))
    return Run(scores, compiled, done * shape.evaluations / seconds)


def quality_tables(args: argparse.Namespace) -> Iterator[str]:
    """One Markdown table per problem; progress goes to stderr."""
    shape = Shape(args.emitters, args.batch)
    clock = time.process_time if args.cpu_time else time.perf_counter
    for problem in args.problems:
        yield f"### {problem}, n = {args.dim}, {args.seeds} seeds\n"
        evaluations = [f"{k * shape.evaluations:,}" for k in args.checkpoints]
        yield _row("algorithm", *evaluations, "evaluations/s", "compile s", "reference")
        yield _row("---", *["---"] * len(evaluations), "---:", "---:", "---")
        for algorithm in args.algorithms:
            runs = []
            for seed in range(1, args.seeds + 1):
                runs.append(run(problem, algorithm, args.dim, shape, seed, args.checkpoints, clock))
                last = runs[-1].scores[args.checkpoints[-1]]
                note = f"{problem} {algorithm} seed {seed}: {last[0]:.2f} / {last[1]:.2f}"
                print(f"{note}, {runs[-1].evaluations_per_second:,.0f}/s", file=sys.stderr)
            yield _quality_row(algorithm, runs, args, problem)
        for peer in args.peers:
            yield from peer.rows(problem, args.dim, shape, args.checkpoints)
        yield ""


def _quality_row(algorithm: str, runs: list[Run], args: argparse.Namespace, problem: str) -> str:
    cells = []
    for iteration in args.checkpoints:
        qd, coverage = (statistics.mean(r.scores[iteration][i] for r in runs) for i in (0, 1))
        cells.append(f"{qd:.2f} / {coverage:.2f}")
    speed = statistics.median(r.evaluations_per_second for r in runs)
    compiled = statistics.median(r.compile_seconds for r in runs)
    paper = (args.dim, args.emitters, args.batch) == (100, 15, 36)
    name = algorithm.removesuffix("_no_improvement").removesuffix("_orthonormal")
    reference = REFERENCES.get((problem, name), "") if paper else ""
    return _row(algorithm, *cells, f"{speed:,.0f}", f"{compiled:.1f}", reference)


def step_times(args: argparse.Namespace) -> Iterator[str]:
    """Seconds per step for archives of 10^4 to 10^6 cells, and the memory of a compiled step."""
    bench = load_benchmark("sphere", args.dim)
    yield "### Step time over the number of cells (CMA-MAEGA, 512 evaluations a step)\n"
    yield _row("cells", "ms per step", "archive MB", "temporary MB")
    yield _row(*["---:"] * 4)
    for side in (100, 316, 1000):
        emitter = GradientArborescenceEmitter(16, 31, 2, 10.0, Optimizer("ascent", 1.0))
        search = Search(bench.problem, emitter, dims=(side, side), ranges=bench.ranges, **ANNEALED)
        state = search.init(jnp.zeros((1, args.dim)), jax.random.key(0))
        memory = compile_long(search.lower(state)).memory_analysis()
        archive = sum(leaf.nbytes for leaf in jax.tree.leaves(state.archive))
        state, _ = jax.block_until_ready(search.run(state, 100))
        per_step = []
        for _ in range(5):
            # Two lengths, so that what a call costs once (its metrics are O(cells)) cancels.
            short, state = _timed(search, state, 20)
            long, state = _timed(search, state, 220)
            per_step.append((long - short) / 200)
        megabytes = [f"{size / 1e6:.1f}" for size in (archive, memory.temp_size_in_bytes)]
        yield _row(f"{side**2:,}", f"{1e3 * statistics.median(per_step):.3f}", *megabytes)
    yield ""


def _timed(search: Search, state: Any, steps: int) -> tuple[float, Any]:
    began = time.perf_counter()
    state, _ = jax.block_until_ready(search.run(state, steps))
    return time.perf_counter() - began, state


def insertion(args: argparse.Namespace) -> Iterator[str]:
    """Milliseconds to insert 4,096 candidates of 64 numbers into 50 x 25 x 5 x 25 cells."""
    yield "### Insertion of 4,096 candidates (64 numbers) into 156,250 cells\n"
    yield _row("archive", "ms per batch (median)")
    yield _row("---", "---:")
    annealed = {"learning_rate": 0.02, "threshold_min": 0}
    batches = [insertion_batch(i) for i in range(80)]
    for name, settings in (("elitist", {}), ("annealed", annealed)):
        archive = GridArchive.create(
            jnp.zeros(64), dims=INSERTION_DIMS, ranges=INSERTION_RANGES, **settings
        )
        insert = jax.jit(lambda a, *batch: a.add(*batch), donate_argnums=0)
        times = []
        for batch in batches:
            began = time.perf_counter()
            archive = jax.block_until_ready(insert(archive, *batch))
            times.append(time.perf_counter() - began)
        yield _row(name, f"{1e3 * statistics.median(times[30:]):.3f}")
    for peer in args.peers:
        if not peer.installed:
            yield _row(peer.name, "not installed")
            continue
        for name, settings in (("elitist", {}), ("annealed", annealed)):
            times = peer.insertion_times(batches, settings)
            if times:
                yield _row(f"{peer.name} {name}", f"{1e3 * statistics.median(times):.3f}")
    yield ""


def seeds_at_once(args: argparse.Namespace) -> Iterator[str]:
    """Seconds of eight searches mapped over their seeds, and of one."""
    yield "### Eight seeds in one program (sphere)\n"
    yield _row("algorithm", "one, ms per step", "eight, ms per step", "eight over one")
    yield _row("---", *["---:"] * 3)
    bench, shape = load_benchmark("sphere", args.dim), Shape(args.emitters, args.batch)
    for algorithm in args.algorithms:
        search = build_search(bench, algorithm, shape)
        init = jax.vmap(lambda key, s=search: s.init(jnp.zeros((1, args.dim)), key))
        steps = jax.jit(
            jax.vmap(lambda state, count, s=search: s.run(state, count)[0], (0, None)),
            donate_argnums=0,
        )
        per_step = []
        for seeds in (1, 8):
            states = init(jax.random.split(jax.random.key(0), seeds))
            states = jax.block_until_ready(steps(states, 100))
            times = []
            for _ in range(5):
                began = time.perf_counter()
                states = jax.block_until_ready(steps(states, 100))
                times.append((time.perf_counter() - began) / 100)
            per_step.append(1e3 * statistics.median(times))
        yield _row(algorithm, *(f"{ms:.2f}" for ms in per_step), f"{per_step[1] / per_step[0]:.1f}")
    yield ""


def _row(*cells: str) -> str:
    return "| " + " | ".join(cells) + " |"


def write_section(lines: Iterable[str], path: Path = DOCS) -> None:
    """Replace the section between the markers of docs/benchmarks.md."""
    begin, end = "<!-- benchmark_qd -->", "<!-- /benchmark_qd -->"
    text = path.read_text(encoding="utf-8")
    if text.count(begin) != 1 or text.count(end) != 1:
        raise ValueError(f"{path} needs one {begin} and one {end}: put the markers back.")
    head, _, rest = text.partition(begin)
    tail = rest.partition(end)[2]
    partial = path.with_suffix(".partial")
    partial.write_text(head + begin + "\n" + "\n".join(lines) + end + tail, encoding="utf-8")
    partial.replace(path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--problems", nargs="*", default=list(PROBLEMS), choices=PROBLEMS)
    parser.add_argument("--algorithms", nargs="*", default=list(ALGORITHMS), choices=ALGORITHMS)
    parser.add_argument("--dim", type=int, default=100, help="length of a latent")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--emitters", type=int, default=15)
    parser.add_argument("--batch", type=int, default=36, help="candidates per emitter and step")
    parser.add_argument(
        "--checkpoints",
        default="100,1000,2500,10000",
        type=lambda text: sorted({int(part) for part in text.split(",")}),
        help="iterations at which to report; the last ends a run",
    )
    parser.add_argument(
        "--cpu-time", action="store_true", help="of our runs, for a machine that does other work"
    )
    parser.add_argument(
        "--peers", nargs="*", choices=PEERS, help="also run pyribs and QDax, or those named"
    )
    parser.add_argument("--steps", action="store_true", help="step time over the number of cells")
    parser.add_argument("--insertion", action="store_true", help="time of an insertion")
    parser.add_argument("--at-once", action="store_true", help="time of eight seeds over one")
    parser.add_argument("--write", action="store_true", help="into docs/benchmarks.md")
    args = parser.parse_args()
    args.peers = [PEERS[name] for name in (() if args.peers is None else args.peers or PEERS)]
    device = jax.devices()[0].device_kind
    clock = "CPU time" if args.cpu_time else "wall time"
    lines = [f"Machine: {device}, {platform.machine()}, jax {jax.__version__}; {clock}.\n"]
    print(lines[0])
    parts = [quality_tables(args)]
    parts += [step_times(args)] if args.steps else []
    parts += [insertion(args)] if args.insertion else []
    parts += [seeds_at_once(args)] if args.at_once else []
    for part in parts:
        for line in part:
            print(line, flush=True)
            lines.append(line)
    if args.write:
        write_section(lines)


if __name__ == "__main__":
    main()
