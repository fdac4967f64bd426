"""Kill a search of drawn faces and the drawing of its people, and compare with undisturbed ones.

    python scripts/benchmarks/faces_resume.py
    python scripts/benchmarks/faces_resume.py --kills 20 --seed 1

`qdgs search drawn-faces.toml --baseline` and `qdgs generate`, with a small budget and small files,
make two runs. The first is left alone. The second is killed (SIGKILL) at random moments, half of
them in the search and half while people are drawn, and gone on with by the commands that the
documentation names. Archives, metrics (but for their seconds), shards and manifests of both must be
the same to the bit. The program must not be changed meanwhile.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import json
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from same_files import tell_sameness

from qdgs_jax.cli.init import packaged_run

CHANGES = {
    "evaluations": 3000,
    "chunk": 1,
    "checkpoint_seconds": 0.0,
    "images": 240,
    "shard_size": 100,
}
LATER = 0.3  # seconds at most from the progress that a kill waits for to the kill
QDGS = (sys.executable, "-c", "from qdgs_jax.cli import main; main()")


def run_file(folder: Path) -> Path:
    """The packaged run with a small budget, and a checkpoint after each step."""
    text = packaged_run("drawn-faces")
    for name, value in CHANGES.items():
        text, found = re.subn(rf"(?m)^{name} = [^#\n]*", f"{name} = {value} ", text)
        if found != 1:
            raise ValueError(f"drawn-faces.toml has {found} lines {name} = ...: mend CHANGES.")
    file = folder / "drawn-faces.toml"
    file.write_text(text)
    return file


def steps(run: Path) -> int:
    """Rows of metrics that a search and its baseline have written."""
    files = [run / "metrics.csv", run / "random" / "metrics.csv"]
    return sum(file.read_text().count("\n") for file in files if file.exists())


def shards(run: Path) -> int:
    """Files that `qdgs generate` has written for a run and its baseline."""
    return len(list(run.glob("data/*.parquet"))) + len(list(run.glob("random/data/*.parquet")))


def finished(command: list[str]) -> None:
    """Let a command end.

    Raises:
        RuntimeError: it failed.
    """
    done = subprocess.run([*QDGS, *command], capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"qdgs {' '.join(command)} ended with {done.returncode}: {done.stderr}")


def killed(
    command: Callable[[], list[str]],
    run: Path,
    progress: Callable[[Path], int],
    moments: list[tuple[int, float]],
) -> list[str]:
    """Kill a command at each moment, progress and a pause after it; rows of a table."""
    rows = []
    for moment, pause in moments:
        begun = progress(run)
        called = command()
        process = subprocess.Popen(
            [*QDGS, *called], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        while progress(run) < moment and process.poll() is None:
            time.sleep(0.01)
        time.sleep(pause)
        process.send_signal(signal.SIGKILL)
        process.wait()
        ended = process.returncode == 0
        how = "had ended" if ended else "killed"
        rows.append(f"| {called[0]} | {begun} | {progress(run)} | {how} |")
        if ended:
            return rows
    finished(command())
    return rows


def digests(run: Path) -> dict[str, str]:
    """What a run found and drew, as SHA-256; metrics without their seconds."""
    found = {}
    for root in (run, run / "random"):
        files = [root / "archive.parquet", *sorted(root.glob("data/*"))]
        for file in files:
            found[str(file.relative_to(run))] = hashlib.sha256(file.read_bytes()).hexdigest()
        with (root / "metrics.csv").open() as metrics:
            table = [{**row, "seconds": ""} for row in csv.DictReader(metrics)]
        text = json.dumps(table).encode()
        found[f"{root.name} metrics"] = hashlib.sha256(text).hexdigest()
    return {name.replace(run.name, "run"): digest for name, digest in found.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    args = parser.parse_args()
    chance = random.Random(args.seed)
    with tempfile.TemporaryDirectory() as scratch:
        file = run_file(Path(scratch))
        alone, disturbed = (Path(scratch) / name for name in ("undisturbed", "killed"))
        finished(["search", str(file), "--out", str(alone), "--baseline"])
        finished(["generate", str(alone)])

        def search() -> list[str]:
            if (disturbed / "run.toml").is_file():
                return ["search", "--resume", str(disturbed)]
            shutil.rmtree(disturbed, ignore_errors=True)
            return ["search", str(file), "--out", str(disturbed), "--baseline"]

        def moments(total: int, count: int) -> list[tuple[int, float]]:
            chosen = sorted(chance.choices(range(total), k=count))
            return [(moment, chance.uniform(0.0, LATER)) for moment in chosen]

        in_search = args.kills // 2
        rows = killed(search, disturbed, steps, moments(steps(alone), in_search))
        drawing = moments(shards(alone), args.kills - in_search)
        rows += killed(lambda: ["generate", str(disturbed)], disturbed, shards, drawing)
        wanted, found = digests(alone), digests(disturbed)
        print(f"{steps(alone)} rows of metrics and {shards(alone)} shards, undisturbed\n")
    print("| killed in | rows or shards before | after | |")
    print("| --- | ---: | ---: | --- |")
    print("\n".join(rows))
    tell_sameness(wanted, found)


if __name__ == "__main__":
    main()
