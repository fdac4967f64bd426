"""Time and peak memory of verification pairs: a list imported, read back and verified.

    python scripts/benchmarks/verification_pairs.py
    python scripts/benchmarks/verification_pairs.py --pairs 924000 --pictures 20000

A table as BFW's is made, of pairs of JPEG pictures of 112 x 112 pixels. The command `qdgs import
verification` and a verification with a small network of random weights are processes of their own,
whose memory is told in full, with the interpreter and the libraries.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

SIDE, EACH = 112, 10  # pixels; pictures of a person
GROUPS = ("asian_females", "black_females", "black_males", "white_males")


def make(place: Path, pairs: int, pictures: int) -> None:
    """Write pictures and a table of pairs of them, half of one person."""
    rng = np.random.default_rng(0)
    (place / "images").mkdir()
    for number in range(pictures):
        coarse = Image.fromarray(rng.integers(0, 256, (14, 14, 3), np.uint8))
        smooth = np.asarray(coarse.resize((SIDE, SIDE), Image.Resampling.BICUBIC), np.float64)
        noisy = np.clip(smooth + rng.normal(0, 6, smooth.shape), 0, 255).astype(np.uint8)
        Image.fromarray(noisy).save(place / "images" / f"{number}.jpg", quality=90)
    people = np.arange(pictures) // EACH
    first = rng.integers(0, pictures, pairs)
    alike = np.minimum(people[first] * EACH + rng.integers(0, EACH, pairs), pictures - 1)
    other = (first + EACH * rng.integers(1, len(set(people)), pairs)) % pictures
    same = rng.random(pairs) < 0.5
    second = np.where(same, alike, other)
    lines = ["p1,p2,label,att1,att2"]
    for a, b in zip(first, second, strict=True):
        groups = [GROUPS[people[each] % len(GROUPS)] for each in (a, b)]
        lines.append(f"{a}.jpg,{b}.jpg,{int(people[a] == people[b])},{groups[0]},{groups[1]}")
    (place / "bfw.csv").write_text("\n".join(lines) + "\n")


def imported(place: Path) -> dict[str, object]:
    """Import the table."""
    from qdgs_jax.cli import app

    command = ["import", "verification", str(place / "bfw.csv"), str(place / "bfw")]
    app([*command, "--images", str(place / "images")], standalone_mode=False)
    size = sum(file.stat().st_size for file in (place / "bfw").rglob("*") if file.is_file())
    return {"MB on disk": round(size / 1e6)}


def verified(place: Path) -> dict[str, object]:
    """Verify its pairs."""
    from flax import nnx

    from qdgs_jax.datasets.face_pairs import read_pairs
    from qdgs_jax.models.iresnet import IResNet, IResNetConfig
    from qdgs_jax.train.faces.embed import verify_pairs

    start = time.monotonic()
    pairs = read_pairs(place / "bfw")
    read = time.monotonic()
    network = IResNet(IResNetConfig(10, widths=(4, 4, 8, 8)), rngs=nnx.Rngs(0))
    result = verify_pairs(network, pairs)
    return {
        "s to read": round(read - start, 1),
        "folds": [round(each, 6) for each in result.folds.accuracies.tolist()],
        "groups": [] if result.groups is None else [g.accuracy for g in result.groups.groups],
    }


STAGES = {"import": imported, "verify": verified}


def main() -> None:
    """Run both stages, each in a process of its own."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pairs", type=int, default=100_000)
    parser.add_argument("--pictures", type=int, default=2_000)
    parser.add_argument("--stage", choices=STAGES, help=argparse.SUPPRESS)
    parser.add_argument("--place", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.stage:
        told = STAGES[args.stage](args.place)
        used = resource.getrusage(resource.RUSAGE_SELF)
        cores = round(used.ru_utime + used.ru_stime, 1)
        print(
            json.dumps({"s of all cores": cores, "peak GB": round(used.ru_maxrss / 1e6, 2), **told})
        )
        return
    with tempfile.TemporaryDirectory() as scratch:
        place = Path(scratch)
        make(place, args.pairs, args.pictures)
        for stage in STAGES:
            start = time.monotonic()
            command = [sys.executable, __file__, "--stage", stage, "--place", scratch]
            environment = {**os.environ, "JAX_PLATFORMS": "cpu"}
            done = subprocess.run(
                command, env=environment, stdout=subprocess.PIPE, text=True, check=True
            )
            took = round(time.monotonic() - start, 1)
            print(f"{stage}: {took} s, {done.stdout.splitlines()[-1]}", flush=True)


if __name__ == "__main__":
    main()
