"""Kill a training of a face network, let it go on, and compare it with one that was left alone.

    python scripts/benchmarks/recognition_resume.py
    python scripts/benchmarks/recognition_resume.py --kills 20 --seed 1

`qdgs train DATA --config recognition.toml` learns drawn people twice. The first training is left
alone. The second is killed (SIGKILL) at random moments and started again with the same command,
until it ends. Both leave parameters, running statistics and the optimiser's momenta after the last
step, one file each, and the model's `config.json`, which has checksums of its parameters (the rest
of the model folder tells the time); the files' SHA-256 must be the same. The program must not be
changed meanwhile.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import random
import re
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from same_files import tell_sameness

PEOPLE, PICTURES, SIDE, EPOCHS, BATCH = 40, 8, 32, 16, 16
STEPS = EPOCHS * (PEOPLE * PICTURES // BATCH)
LATER = 0.1  # seconds at most from the step that a kill waits for to the kill
RECIPE = f"""
seed = 3
[network]
depth = 10
input_size = {SIDE}
embed_dim = 32
widths = [8, 16, 32, 64]
[optimizer]
epochs = {EPOCHS}
batch_size = {BATCH}
milestones = [8, 12]
[data]
window = 64
[checkpoints]
seconds = 0.0
"""


def train(data: str, recipe: str, out: str, kept: str) -> None:
    """`qdgs train`, in a process of its own, which tells its steps and leaves its last state.

    Args:
        data: shards.
        recipe: TOML file.
        out: model folder.
        kept: folder for the file `steps`, a byte more for each step begun, the file `from`, the
            step that the training went on from, and the last state, a file for each array.
    """
    import jax

    from qdgs_jax.cli import main as qdgs
    from qdgs_jax.train.faces import fit

    folder = Path(kept)
    step, network, newest = fit.compiled_step, fit.trained_network, fit._newest
    told = os.open(folder / "steps", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)

    def counted(*given: Any) -> Any:
        os.write(told, b".")
        return step(*given)

    def begun(*given: Any) -> Any:
        state, written = newest(*given)
        (folder / "from").write_text(str(written or 0))
        return state, written

    def shown(training: fit.Training, state: fit.LearnerState) -> Any:
        for path, leaf in jax.tree_util.tree_flatten_with_path(state)[0]:
            name = re.sub(r"\W+", "-", jax.tree_util.keystr(path)).strip("-")
            np.save(folder / f"{name}.npy", np.asarray(leaf))
        return network(training, state)

    fit.compiled_step, fit.trained_network, fit._newest = counted, shown, begun
    sys.argv = ["qdgs", "train", data, "--config", recipe, "--out", out]
    qdgs()


def digests(root: Path) -> dict[str, str]:
    """SHA-256 of every array of the last state, and of the model's config and recipe."""
    files = [*root.glob("kept/*.npy"), root / "model/config.json", root / "model/recognition.toml"]
    return {
        str(file.relative_to(root)): hashlib.sha256(file.read_bytes()).hexdigest() for file in files
    }


def begin(data: Path, recipe: Path, root: Path) -> subprocess.Popen[str]:
    """Start a training, or go on with it."""
    for name in ("steps", "from"):
        (root / "kept" / name).unlink(missing_ok=True)
    given = (data, recipe, root / "model", root / "kept")
    program = [sys.executable, __file__, "--train", *map(str, given)]
    return subprocess.Popen(program, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)


def steps_of(root: Path) -> tuple[int, int]:
    """The step that the newest process went on from, and those it began since."""
    begun, steps = root / "kept" / "from", root / "kept" / "steps"
    first = begun.read_text() if begun.exists() else ""
    return int(first or 0), steps.stat().st_size if steps.exists() else 0


def ended(process: subprocess.Popen[str]) -> None:
    """Wait for a training's end.

    Raises:
        RuntimeError: it failed.
    """
    _, errors = process.communicate()
    if process.returncode:
        raise RuntimeError(f"a training ended with code {process.returncode}:\n{errors}")


def killed(data: Path, recipe: Path, root: Path, moments: list[tuple[int, float]]) -> list[str]:
    """Kill a training at each moment, a step and a pause after it; rows of a table."""
    rows = []
    for number, (moment, pause) in enumerate(moments, 1):
        process = begin(data, recipe, root)
        while sum(steps_of(root)) < moment and process.poll() is None:
            time.sleep(0.001)
        time.sleep(pause)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        first, done = steps_of(root)
        how = "killed" if process.returncode == -signal.SIGKILL else "ended before"
        rows.append(f"| {number} | {first} | {first + done} | {how} |")
    ended(begin(data, recipe, root))
    rows.append(f"| end | {steps_of(root)[0]} | {sum(steps_of(root))} | finished |")
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    parser.add_argument("--train", nargs=4, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.train:
        train(*args.train)
        return
    from qdgs_jax.train.faces.drawn import draw_trained, write_faces

    chance = random.Random(args.seed)
    steps = sorted(chance.sample(range(STEPS), args.kills))
    moments = [(step, chance.uniform(0.0, LATER)) for step in steps]
    with tempfile.TemporaryDirectory() as scratch:
        data, recipe = Path(scratch) / "data", Path(scratch) / "recognition.toml"
        write_faces(draw_trained(0, PEOPLE, PICTURES, SIDE), data, shard_size=100)
        recipe.write_text(RECIPE)
        roots = [Path(scratch) / name for name in ("undisturbed", "killed")]
        for root in roots:
            (root / "kept").mkdir(parents=True)
        ended(begin(data, recipe, roots[0]))
        rows = killed(data, recipe, roots[1], moments)
        wanted, found = map(digests, roots)
    print(f"{PEOPLE * PICTURES} pictures of {PEOPLE} people, {STEPS} steps of {BATCH}\n")
    print("| kill | went on from step | steps begun | |")
    print("| ---: | ---: | ---: | --- |")
    print("\n".join(rows))
    tell_sameness(wanted, found)


if __name__ == "__main__":
    main()
