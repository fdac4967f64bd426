"""Speed of one step of training face recognition at full size, beside PyTorch, and of its input.

    python scripts/benchmarks/recognition.py
    python scripts/benchmarks/recognition.py --torch ~/torch/bin/python  # a Python with PyTorch
    python scripts/benchmarks/recognition.py --input  # the rate of reading shards

A step augments its images, embeds them with IR-50 in training mode, takes AdaFace's loss over so
many identities as CASIA-WebFace has, and moves the parameters; PyTorch's step gets its images
augmented and as floats. Weights and images are drawn at random, sizes are the true ones. PyTorch
runs in a process of its own and waits while it is not its turn; steps of both, and products of
matrices, the machine's ceiling, are timed in turns. Seconds of processor time are told beside those
of the clock: other programs of a busy machine move them less.
"""

from __future__ import annotations

import argparse
import importlib.util
import itertools
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import jax
import numpy as np
from shapes import matmul_ceiling

from qdgs_jax import keys
from qdgs_jax.datasets.real_faces import write_identities
from qdgs_jax.train.faces.budget import training_cost
from qdgs_jax.train.faces.fit import compiled_step
from qdgs_jax.train.faces.learner import begin
from qdgs_jax.train.faces.recipe import NetworkTable, OptimizerTable, Recipe
from qdgs_jax.train.faces.stream import FaceOrder, FaceShards, batches

IDENTITIES = 10572  # of CASIA-WebFace
PEER = Path(__file__).with_name("recognition_torch.py")
Seconds = tuple[float, float]  # by the clock, and of all cores


def our_steps(recipe: Recipe, identities: int) -> Iterator[Seconds]:
    """Seconds of one step after another."""
    batch, size = recipe.optimizer.batch_size, recipe.network.input_size
    key = keys.root(0)
    head = recipe.head.config(recipe.network.embed_dim, identities)
    training, state = begin(recipe, head, key, 1000)
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (batch, size, size, 3), np.uint8)
    labels = np.arange(batch, dtype=np.int32) % identities
    while True:
        began = time.perf_counter(), time.process_time()
        state, loss = compiled_step(training, state, images, labels, key)
        jax.block_until_ready((state, loss))
        yield time.perf_counter() - began[0], time.process_time() - began[1]


class TorchSteps:
    """Steps of PyTorch's process, its seconds one after another."""

    def __init__(self, python: str, *options: str) -> None:
        self._process = subprocess.Popen(
            [python, str(PEER), *options], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.version = self._answer()

    def __iter__(self) -> Iterator[Seconds]:
        return self

    def __next__(self) -> Seconds:
        assert self._process.stdin is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        clock, cores = map(float, self._answer().split())
        return clock, cores

    def _answer(self) -> str:
        assert self._process.stdout is not None
        answer = self._process.stdout.readline().strip()
        if not answer:
            raise RuntimeError(f"{PEER.name} ended with code {self._process.wait()}")
        return answer

    def close(self) -> None:
        """End the process."""
        self._process.communicate()


def steps_beside(args: argparse.Namespace) -> None:
    """Print images/s of a step, ours and PyTorch's, and what share of the ceiling each reaches."""
    network = NetworkTable(depth=args.depth, input_size=args.size)
    recipe = Recipe(network=network, optimizer=OptimizerTable(batch_size=args.batch))
    runs: dict[str, Iterator[Seconds]] = {"ours": our_steps(recipe, args.identities)}
    peers = []
    sizes = {"depth": args.depth, "batch": args.batch, "identities": args.identities}
    options = [f"--{name}={value}" for name, value in (*sizes.items(), ("size", args.size))]
    if args.torch or importlib.util.find_spec("torch") is not None:
        for name, more in (("PyTorch", []), ("PyTorch, channels last", ["--channels-last"])):
            peers.append(TorchSteps(args.torch or sys.executable, *options, *more))
            runs[f"{name}, {peers[-1].version}"] = peers[-1]
    else:
        print("PyTorch is not installed (extra `crosscheck`): our figures alone.\n")
    taken: dict[str, list[Seconds]] = {name: [] for name in runs}
    found: list[float] = []
    for turn in range(args.rounds + 1):  # the first one compiles
        found.append(matmul_ceiling(repeats=3))
        for name, step in runs.items():
            seconds = np.median(list(itertools.islice(step, args.steps)), axis=0)
            if turn:
                taken[name].append((float(seconds[0]), float(seconds[1])))
    for peer in peers:
        peer.close()
    cost = training_cost(network.config(), args.identities, dtype=np.float32)
    print(
        f"IR-{args.depth}, {args.size} x {args.size}, batch {args.batch}, {args.identities:,} "
        f"identities: {cost.train_flop / 1e9:.1f} GFLOP an image; matrix products "
        f"{statistics.median(found) / 1e9:.0f} GFLOP/s\n"
    )
    print_steps(taken, args.batch, cost.train_flop * args.batch / statistics.median(found))


def print_steps(taken: dict[str, list[Seconds]], batch: int, least: float) -> None:
    """Print a row for each program: its seconds, and ratios to ours of the same rounds.

    Args:
        taken: seconds of every round.
        batch: images of a step.
        least: seconds of a step at the machine's ceiling.
    """
    print("| step | s | images/s | share of the ceiling | ours is faster | s of all cores | ours |")
    print("| --- | ---: | ---: | ---: | ---: | ---: | ---: |")
    for name, rounds in taken.items():
        clock, cores = np.median(rounds, axis=0)
        ratios = np.median(np.divide(rounds, taken["ours"]), axis=0)
        print(
            f"| {name} | {clock:.2f} | {batch / clock:.2f} | {100 * least / clock:.0f} % | "
            f"{ratios[0]:.2f} | {cores:.2f} | {ratios[1]:.2f} |"
        )


def input_rate(args: argparse.Namespace) -> None:
    """Print images/s of reading, decoding and batching shards of pictures as noisy as photos."""
    rng = np.random.default_rng(0)
    size, count = args.size, args.pictures
    coarse = rng.integers(0, 256, (count, -(-size // 8), -(-size // 8), 3))
    smooth = coarse.repeat(8, axis=1).repeat(8, axis=2)[:, :size, :size]
    noise = rng.normal(0.0, 6.0, smooth.shape)
    pictures = np.clip(smooth + noise, 0, 255).astype(np.uint8)
    with tempfile.TemporaryDirectory() as scratch:
        people = np.arange(count) // 10
        write_identities(scratch, pictures, people, source={"format": "noise"}, shard_size=1000)
        files = sum(file.stat().st_size for file in Path(scratch).rglob("*.parquet"))
        order = FaceOrder(FaceShards(scratch), 0, args.batch, args.rounds, 16384)
        began, shown = time.perf_counter(), 0
        for batch in batches(order, args.batch, 0):
            shown += len(batch["image"])
        seconds = time.perf_counter() - began
    print(
        f"{shown:,} pictures of {size} x {size} ({files / count / 1e3:.1f} kB each) in "
        f"{seconds:.1f} s: {shown / seconds:,.0f} images/s"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--depth", type=int, default=50)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--identities", type=int, default=IDENTITIES)
    parser.add_argument("--size", type=int, default=112)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=2, help="of each in a round")
    parser.add_argument("--torch", help="a Python that has PyTorch, if this one has not")
    parser.add_argument("--input", action="store_true", help="rate of the input instead")
    parser.add_argument("--pictures", type=int, default=2000, help="for --input")
    args = parser.parse_args()
    print(f"{jax.devices()[0].device_kind}, jax {jax.__version__}\n")
    if args.input:
        input_rate(args)
    else:
        steps_beside(args)


if __name__ == "__main__":
    main()
