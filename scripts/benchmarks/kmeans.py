"""k-means of latents into subjects: inertia beside scikit-learn's, time and memory at true size.

    python scripts/benchmarks/kmeans.py inertia --peer PYTHON   # a Python that has scikit-learn
    python scripts/benchmarks/kmeans.py round --clusters 5000   # one round at 50,000 x 7,168
    python scripts/benchmarks/kmeans.py whole                   # 25,000 clusters, to the end

`inertia` clusters 5,000 x 512 numbers into 2,500 clusters, without structure and in groups of about
four, and asks for the same of scikit-learn with n_init=1. `round` times a round of assignment and a
round of means, and tells the peak memory of the process. `whole` clusters both kinds of numbers at
true size until no point changes its cluster.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from qdgs_jax import kmeans

PEER = """
import sys, time
import numpy as np
from sklearn.cluster import KMeans
began = time.monotonic()
found = KMeans(int(sys.argv[2]), n_init=1, random_state=0).fit(np.load(sys.argv[1]))
print(found.inertia_, found.n_iter_, time.monotonic() - began)
"""


def drawn(count: int, dim: int) -> Iterator[tuple[str, np.ndarray]]:
    """Numbers without structure, then the same around centres, Float32[count, dim]."""
    rng = np.random.default_rng(0)
    centres = rng.standard_normal((count // 4, dim), np.float32)
    apart = rng.standard_normal((count, dim), np.float32)
    yield "without structure", apart
    apart *= 0.5
    apart += centres[rng.integers(0, len(centres), count)]
    yield "in groups", apart


def measure_inertia(args: argparse.Namespace) -> None:
    count, dim, clusters = args.points or 5000, args.dim or 512, args.clusters or 2500
    for name, points in drawn(count, dim):
        began = time.monotonic()
        found = kmeans.cluster(jnp.asarray(points), clusters, jax.random.key(0))
        seconds = time.monotonic() - began
        print(f"{name}: inertia {found.inertia:.6g}, {found.rounds} rounds, {seconds:.1f} s")
        if args.peer is not None:
            with tempfile.TemporaryDirectory() as folder:
                np.save(Path(folder) / "points.npy", points)
                command = [args.peer, "-c", PEER, f"{folder}/points.npy", str(clusters)]
                inertia, rounds, seconds = map(float, subprocess.check_output(command).split())
            print(f"  scikit-learn: {inertia:.6g}, {rounds:.0f} rounds, {seconds:.1f} s")
            print(f"  ours / theirs: {found.inertia / inertia:.4f}")


def measure_round(args: argparse.Namespace) -> None:
    count, dim, clusters = args.points or 50_000, args.dim or 7168, args.clusters or 25_000
    points = jax.random.normal(jax.random.key(0), (count, dim))
    centroids = jax.block_until_ready(points[:clusters] + 0.0)
    work = 2e-12 * count * dim * clusters
    began = time.monotonic()
    labels, _ = jax.block_until_ready(kmeans._assign(points, centroids, None))
    seconds = time.monotonic() - began
    print(f"{count:,} x {dim:,} into {clusters:,}: assignment {seconds:.1f} s", end=", ")
    print(f"{1e3 * work / seconds:.0f} GFLOP/s")
    began = time.monotonic()
    jax.block_until_ready(kmeans._move(points, labels, centroids))
    print(f"means {time.monotonic() - began:.1f} s, {peak_memory()}")


def measure_whole(args: argparse.Namespace) -> None:
    count, dim, clusters = args.points or 50_000, args.dim or 7168, args.clusters or 25_000
    for name, points in drawn(count, dim):
        began = time.monotonic()

        def told(_: int, rounds: int, inertia: float, began: float = began) -> None:
            seconds = time.monotonic() - began
            print(f"{seconds:8.1f} s: round {rounds}, inertia {inertia:.6g}", flush=True)

        found = kmeans.cluster(jnp.asarray(points), clusters, jax.random.key(0), told=told)
        seconds = time.monotonic() - began
        sizes = np.bincount(found.labels, minlength=clusters)
        print(f"{name}, {count:,} x {dim:,} into {clusters:,}: {seconds:.0f} s", end=", ")
        print(f"{found.rounds} rounds, inertia {found.inertia:.6g}", end=", ")
        print(f"clusters of {sizes.min()} to {sizes.max()} points")
    print(peak_memory())


def peak_memory() -> str:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    return f"peak memory {peak:.2f} GiB"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("what", choices=("inertia", "round", "whole"))
    parser.add_argument("--points", type=int)
    parser.add_argument("--dim", type=int)
    parser.add_argument("--clusters", type=int)
    parser.add_argument("--peer", help="a Python that has scikit-learn")
    args = parser.parse_args()
    measures = {"inertia": measure_inertia, "round": measure_round, "whole": measure_whole}
    measures[args.what](args)


if __name__ == "__main__":
    main()
