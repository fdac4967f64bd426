"""How balanced the drawn faces become: shares of groups by the oracle, over seeds.

    python scripts/benchmarks/faces_world.py --seeds 0 1 2 3 4 --out runs/faces-world
    python scripts/benchmarks/faces_world.py --seeds 0 --run my.toml --out runs/trial

Per seed it searches the packaged run `drawn-faces` with a baseline of random sampling, generates
both data sets without subjects and has them judged by the oracle, all by the command line. A seed
whose folder is finished is read, not searched again. Shares are those of the images that the oracle
finds clear in what is counted; "unclear" is the share of the others.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
from pathlib import Path

from qdgs_jax import load_run
from qdgs_jax.cli.init import packaged_run
from qdgs_jax.datasets.audit import Attribute, Audit, read_audit

ORACLE = "embedded:faces-oracle"


def qdgs(*words: str) -> None:
    subprocess.run([str(Path(sys.executable).with_name("qdgs")), *words], check=True)


def make(run: Path, seed: int, folder: Path) -> Audit:
    """Search, generate and audit, as far as it has not been done."""
    if not folder.exists():
        qdgs("search", str(run), "--seed", str(seed), "--baseline", "--out", str(folder))
    audit = read_audit(folder / "audit")
    if audit is None:
        qdgs("generate", str(folder), "--plain")
        qdgs("audit", str(folder), "--judge", ORACLE, "--cross", "skin,age")
        audit = read_audit(folder / "audit")
    assert audit is not None
    return audit


def judged(audit: Audit, name: str) -> Attribute:
    """An attribute as the oracle tells it."""
    return next(a for a in audit.attributes if a.name == name and a.by == "oracle")


def figures(audit: Audit, number: int, folder: Path) -> dict[str, float]:
    """What is asked of one data set, shares in per cent."""
    found: dict[str, float] = {}
    for name in ("skin", "age"):
        attribute = judged(audit, name)
        tally = attribute.tallies[number]
        assert tally is not None
        for group, count in zip(attribute.groups, tally.counts, strict=True):
            found[group] = 100 * count / max(sum(tally.counts), 1)
    product = next(a for a in audit.attributes if a.product and a.by == "oracle")
    tally = product.tallies[number]
    assert tally is not None
    shares = [100 * count / max(sum(tally.counts), 1) for count in tally.counts]
    found["rarest of skin x age"] = min(shares)
    found["dark and old"] = shares[-1]
    found["unclear"] = 100 * tally.unclear_share
    last = load_run(folder).metrics.iloc[-1]
    return found | {"coverage": 100 * float(last["coverage"]), "QD-score": float(last["qd_score"])}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--run", type=Path, help="run file; the packaged drawn-faces if absent")
    parser.add_argument("--out", type=Path, required=True, help="folder for the runs")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    run = args.run
    if run is None:
        run = args.out / "drawn-faces.toml"
        run.write_text(packaged_run("drawn-faces"), encoding="utf-8")
    rows: dict[str, list[dict[str, float]]] = {"QDGS": [], "random": []}
    for seed in args.seeds:
        folder = args.out / f"seed-{seed}"
        audit = make(run, seed, folder)
        rows["QDGS"].append(figures(audit, 0, folder))
        rows["random"].append(figures(audit, 1, folder / "random"))
    print(f"| | {' | '.join(rows['QDGS'][0])} |")
    print("| --- |" + " ---: |" * len(rows["QDGS"][0]))
    for name, seeds in rows.items():
        cells = []
        for key in seeds[0]:
            values = [each[key] for each in seeds]
            error = statistics.stdev(values) / len(values) ** 0.5 if len(values) > 1 else 0.0
            cells.append(f"{statistics.mean(values):,.1f} ± {error:.1f}")
        print(f"| {name} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
