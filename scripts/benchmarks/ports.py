"""Time and peak memory of `qdgs port` on checkpoints, each in a process of its own.

Command: `python scripts/benchmarks/ports.py KIND=CHECKPOINT ...`, for example
`python scripts/benchmarks/ports.py clip=ViT-B-32.pt stylegan2=ffhq.pkl`. It prints a line per
checkpoint: wall and processor seconds from the start of the interpreter, peak resident memory, and
that memory over the size of the checkpoint.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

_PORT = """
import sys
from qdgs_jax.ports import convert
summary = convert(sys.argv[1], sys.argv[2], sys.argv[3])
if any(name.partition(".")[0] == "torch" for name in sys.modules):
    raise SystemExit("torch was imported")
with open("/proc/self/status") as status:
    peak = next(line.split()[1] for line in status if line.startswith("VmHWM"))
print(summary.parameters, 1024 * int(peak))
"""


def measure(kind: str, source: Path) -> str:
    """A line of figures for one checkpoint."""
    files = [path for path in source.rglob("*") if path.is_file()] if source.is_dir() else [source]
    size = sum(path.stat().st_size for path in files)
    with tempfile.TemporaryDirectory() as folder:
        begin, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
        command = [sys.executable, "-c", _PORT, kind, str(source), str(Path(folder) / "model")]
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
        wall, after = time.perf_counter() - begin, resource.getrusage(resource.RUSAGE_CHILDREN)
    parameters, peak = map(int, done.stdout.split()[-2:])
    processor = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return (
        f"{source.name:32} {size / 1e6:7.0f} MB {parameters / 1e6:7.1f} M parameters  "
        f"wall {wall:5.1f} s  processor {processor:5.1f} s  "
        f"peak {peak / 1e6:6.0f} MB = {peak / size:.2f} x file"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("checkpoints", nargs="+", metavar="KIND=CHECKPOINT")
    for entry in parser.parse_args().checkpoints:
        kind, _, source = entry.partition("=")
        print(measure(kind, Path(source)), flush=True)


if __name__ == "__main__":
    main()
