"""What a checkpoint costs at the size of the faces domain: time, memory and bytes.

A search in an archive of 156,250 cells x 7,168 floats, 30 % of them occupied, goes on while its
state is written. Printed are the seconds that it stands still, how much slower its steps are
meanwhile, the host's memory beyond the state, and what all this makes of a search's time with the
default settings: a checkpoint every two minutes, or every 20 times as long as one takes.

    python scripts/benchmarks/checkpoints.py  # needs 8 GB of memory and 4 GB of disk
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from qdgs_jax.archive import GridArchive
from qdgs_jax.emitters.registry import build_emitter
from qdgs_jax.runs.checkpoint import restore_state, rows_nbytes
from qdgs_jax.runs.checkpoint_writer import REST, CheckpointWriter, find_checkpoints
from qdgs_jax.runs.tables import SearchConfig
from qdgs_jax.search import Search, SearchState

BATCH = 2048  # elites put into the archive together
CHUNK = 25  # steps


class PeakMemory:
    """Watches how much of the host's memory this process uses, in bytes."""

    def __init__(self) -> None:
        self.before = self.peak = _resident()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def _watch(self) -> None:
        while not self._ended.wait(0.01):
            self.peak = max(self.peak, _resident())

    def end(self) -> int:
        """Bytes at the peak beyond those at the beginning."""
        self._ended.set()
        self._thread.join()
        return self.peak - self.before


def _resident() -> int:
    status = Path("/proc/self/status").read_text()
    return 1024 * int(next(line for line in status.splitlines() if "VmRSS" in line).split()[1])


def sphere(latents: jax.Array) -> tuple[jax.Array, jax.Array]:
    """An objective of next to no cost; the measures leave the number of occupied cells as it is."""
    return -jnp.sum(latents**2, axis=-1), jnp.full((len(latents), 2), 0.5)


def filled(search: Search, dims: tuple[int, int], dim: int, share: float) -> SearchState:
    """A state whose archive has the given share of its cells occupied by random latents."""
    state = search.init(jnp.zeros((1, dim)), jax.random.key(0))
    cells = np.random.default_rng(0).permutation(dims[0] * dims[1])
    cells = cells[: int(share * len(cells)) // BATCH * BATCH].reshape(-1, BATCH)

    def put(archive: GridArchive, key: jax.Array, cells: jax.Array) -> GridArchive:
        latents = jax.random.normal(key, (BATCH, dim))
        return archive.add(latents, archive.centroids[cells], jnp.zeros(BATCH))

    put = jax.jit(put, donate_argnums=0)
    archive = state.archive
    for number, batch in enumerate(cells):
        archive = put(archive, jax.random.key(number), batch)
    return state.replace(archive=archive)


def steps_while(
    going_on: Callable[[], bool], search: Search, state: SearchState
) -> tuple[SearchState, float]:
    """Search chunk by chunk as long as `going_on()` says; returns seconds per chunk, the median."""
    taken = []
    while going_on() or not taken:
        began = time.perf_counter()
        state, metrics = search.run(state, CHUNK)
        jax.block_until_ready(metrics)
        taken.append(time.perf_counter() - began)
    return state, float(np.median(taken))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--dims", type=int, nargs=2, default=(250, 625))
    parser.add_argument("--latent-dim", type=int, default=7168)
    parser.add_argument("--share", type=float, default=0.3)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--interval", type=float, default=120.0)
    parser.add_argument(
        "--pause", type=float, default=10.0, help="seconds between checkpoints here"
    )
    parser.add_argument("--folder", type=Path, default=None)
    args = parser.parse_args()

    settings = SearchConfig(emitters=16)
    emitter = build_emitter("map_elites", settings, args.latent_dim, 2)
    search = Search.from_function(
        sphere, args.latent_dim, emitter, dims=args.dims, ranges=((0.0, 1.0),) * 2
    )
    state = filled(search, tuple(args.dims), args.latent_dim, args.share)
    elites = int(state.archive.num_elites)
    rows = rows_nbytes(state, elites)
    device = jax.devices()[0]
    print(f"{device.platform} {device.device_kind}, {elites:,} elites, {rows / 1e9:.3f} GB of rows")

    folder = Path(tempfile.mkdtemp(dir=args.folder, prefix="checkpoints-"))
    try:
        state, _ = steps_while(lambda: False, search, state)  # compiles
        until = time.perf_counter() + 5
        state, alone = steps_while(lambda: time.perf_counter() < until, search, state)
        memory = PeakMemory()
        writer = CheckpointWriter(folder, args.pause, {}, rest=0)
        costs = []
        for number in range(args.rounds):
            before = writer.stood_still
            while writer.stood_still == before:
                state, _ = steps_while(lambda: False, search, state)
                writer.offer(number, state, elites)
            began = time.perf_counter()
            state, beside = steps_while(lambda: writer.busy, search, state)
            seconds = time.perf_counter() - began
            still = writer.stood_still - before
            costs.append((still, max(0.0, seconds * (1 - alone / beside)), seconds))
            print(
                f"stood still {still:.3f} s; written, synced and read back in {seconds:.2f} s, "
                f"a chunk taking {1000 * beside:.0f} ms instead of {1000 * alone:.0f}"
            )
        writer.wait()
        extra = memory.end()
        newest = find_checkpoints(folder)[0][1]
        written = sum(file.stat().st_size for file in newest.rglob("*"))
        print(f"bytes written: {written / 1e9:.3f} GB, {written / rows:.3f} x the occupied rows")
        print(f"peak memory beyond the state: {extra / 1e9:.3f} GB, {extra / rows:.2f} x the rows")
        still, slowed, wrote = np.mean(costs, axis=0)
        interval = max(args.interval, REST * wrote)
        print(
            f"share of a search's time with one every {interval:.0f} s: "
            f"{100 * (still + slowed) / interval:.2f} %"
        )
        like = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), state)
        del state
        began = time.perf_counter()
        jax.block_until_ready(restore_state(newest, like))
        print(f"restored in {time.perf_counter() - began:.2f} s")
    finally:
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
