r"""The paper's face experiment as one program: search, people, trainings, verification, tables.

    python scripts/reproduce_faces.py --dry-run                  # the plan; nothing is written
    python scripts/reproduce_faces.py faces.toml --out runs/paper --real data/casia \
        --benchmark lfw=data/lfw --benchmark agedb_30=data/agedb_30 \
        --skin dark=data/rfw-african --skin light=data/rfw-caucasian
    python scripts/reproduce_faces.py --smoke --out runs/smoke   # all of it, tiny, true networks

`faces.toml` is a run file (`qdgs init faces faces.toml`); `--real` and the pairs are folders that
`qdgs import` wrote. In the order of the paper: a search and random sampling; 15,000 and 50,000
latents of each as people (QD15, QD50, Rand15, Rand50); IR-101 pretrained with AdaFace on each, and
then trained on the real faces, as it is without pretraining (none); accuracies by data set and by
skin tone. A stage whose result is there is passed over, and one that was stopped goes on where it
was, so the same command continues the experiment however it ended.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

SIZES = {"15": 15_000, "50": 50_000}  # latents, as the paper's names have them
KINDS = {"Rand": "random", "QD": "."}  # folders of the runs that people come from, in the search's
NONE = "none"


@dataclasses.dataclass(frozen=True)
class Paths:
    """Inputs and outputs.

    Attributes:
        out: folder of everything that is made.
        run_file: of the search.
        real: shards of real faces.
        benchmarks: shards of pairs by the name of their column.
        skin: shards of pairs by skin tone.
        recipe: of the trainings; None for the packaged one, the paper's.
        seeds: of the trainings.
        sizes: latents by the names of the arms' sizes.
    """

    out: Path
    run_file: Path
    real: Path
    benchmarks: Mapping[str, Path]
    skin: Mapping[str, Path]
    recipe: Path | None = None
    seeds: Sequence[int] = (0,)
    sizes: Mapping[str, int] = dataclasses.field(default_factory=lambda: dict(SIZES))

    @property
    def arms(self) -> dict[str, tuple[Path, int] | None]:
        """For each arm the run that its people come from, and how many latents; None for none."""
        run = self.out / "run"
        found: dict[str, tuple[Path, int] | None] = {NONE: None}
        for size, latents in self.sizes.items():
            found |= {f"{kind}{size}": (run / place, latents) for kind, place in KINDS.items()}
        return found

    def people(self, arm: str) -> Path:
        """Folder of an arm's people."""
        return self.out / "people" / arm

    def model(self, arm: str, seed: int, pretrained: bool = False) -> Path:
        """Folder of an arm's network, after its first or its second training."""
        return self.out / "models" / f"{arm}-{seed}{'-people' if pretrained else ''}"

    def result(self, arm: str, seed: int) -> Path:
        """What verification of a network gave."""
        return self.out / "results" / f"{arm}-{seed}.json"

    def recipe_of(self, seed: int) -> Path:
        """The recipe of a seed's trainings."""
        return self.out / "recipes" / f"seed-{seed}.toml"


@dataclasses.dataclass(frozen=True)
class Stage:
    """A part of the experiment.

    Attributes:
        name: what it does, in words.
        done: whether its result is there.
        run: does it, or goes on with it.
    """

    name: str
    done: Callable[[], bool]
    run: Callable[[], None]


def qdgs(*words: object) -> None:
    """Do what the command line does with these words."""
    from qdgs_jax.cli import app

    print("$ qdgs", *words, flush=True)
    app([str(word) for word in words], standalone_mode=False)


def stages(paths: Paths) -> list[Stage]:
    """All parts of the experiment, in order."""
    from qdgs_jax.datasets.manifest import DATA, MANIFEST
    from qdgs_jax.runs.folder import RunFolder

    run = RunFolder(paths.out / "run")

    def whole(folder: Path, name: str) -> Callable[[], bool]:
        return lambda: (folder / name).is_file()

    def search() -> None:
        if run.exists:
            qdgs("search", run.path, "--resume", *([] if run.baseline.exists else ["--baseline"]))
        else:
            qdgs("search", paths.run_file, "--out", run.path, "--baseline")

    def train(arm: str, seed: int, pretrained: bool) -> None:
        data = paths.people(arm) if pretrained else paths.real
        start = [] if pretrained or arm == NONE else ["--start", paths.model(arm, seed, True)]
        out = paths.model(arm, seed, pretrained)
        qdgs("train", data, "--config", write_recipe(paths, seed), "--out", out, *start)

    found = [Stage("search", lambda: run.finished and run.baseline.finished, search)]
    for arm, source in paths.arms.items():
        if source is not None:
            place, latents = source
            words = ("generate", place, "--images", latents, "--out", paths.people(arm))
            done = whole(paths.people(arm) / DATA, MANIFEST)
            found.append(Stage(f"people of {arm}", done, lambda words=words: qdgs(*words)))
    for seed in paths.seeds:
        for arm, source in paths.arms.items():
            for pretrained in (True, False) if source is not None else (False,):
                kind = "pretraining" if pretrained else "training"
                found.append(
                    Stage(
                        f"{kind} of {arm}, seed {seed}",
                        whole(paths.model(arm, seed, pretrained), "config.json"),
                        lambda arm=arm, pretrained=pretrained, seed=seed: train(
                            arm, seed, pretrained
                        ),
                    )
                )
            found.append(
                Stage(
                    f"verification of {arm}, seed {seed}",
                    lambda arm=arm, seed=seed: verified(paths, arm, seed),
                    lambda arm=arm, seed=seed: verify(paths, arm, seed),
                )
            )
    return found


def write_recipe(paths: Paths, seed: int) -> Path:
    """Write the recipe of a seed's trainings."""
    from qdgs_jax.files import write_atomically
    from qdgs_jax.train.faces.recipe import default_recipe, read_recipe, recipe_to_toml

    recipe = default_recipe() if paths.recipe is None else read_recipe(paths.recipe)
    target = paths.recipe_of(seed)
    target.parent.mkdir(parents=True, exist_ok=True)
    text = recipe_to_toml(recipe.model_copy(update={"seed": seed}))
    write_atomically(target, text.encode())
    return target


def verified(paths: Paths, arm: str, seed: int) -> bool:
    """Whether a network has verified all pairs that are asked for."""
    if not paths.result(arm, seed).is_file():
        return False
    found = json.loads(paths.result(arm, seed).read_text(encoding="utf-8"))
    groups = [] if found["groups"] is None else [g["name"] for g in found["groups"]["groups"]]
    return set(found["sets"]) == set(paths.benchmarks) and set(groups) == set(paths.skin)


def verify(paths: Paths, arm: str, seed: int) -> None:
    """Verify all pairs with a network, and keep what came of it."""
    import numpy as np

    from qdgs_jax.datasets.face_pairs import read_pairs
    from qdgs_jax.files import write_atomically
    from qdgs_jax.models.iresnet import IResNet
    from qdgs_jax.ports.loading import load
    from qdgs_jax.train.faces.embed import embed_faces, verify_pairs
    from qdgs_jax.train.faces.fairness import verify_groups
    from qdgs_jax.train.faces.verification import pair_distances

    network = load(paths.model(arm, seed), IResNet)
    sets = {
        name: verify_pairs(network, read_pairs(place)).accuracy
        for name, place in paths.benchmarks.items()
    }
    distances, same, groups = [], [], []
    for name, place in paths.skin.items():
        pairs = read_pairs(place)
        distances.append(pair_distances(embed_faces(network, pairs.images)[0], pairs.index))
        same.append(pairs.index.same)
        groups += [name] * len(pairs)
    found: Any = None
    if groups:
        found = dataclasses.asdict(
            verify_groups(np.concatenate(distances), np.concatenate(same), groups)
        )
    target = paths.result(arm, seed)
    target.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps({"sets": sets, "groups": found}, indent=1) + "\n"
    write_atomically(target, text.encode())


def write_tables(paths: Paths) -> None:
    """Gather the results of all networks, write the tables and print them."""
    from qdgs_jax.experiments.recognition import seed_tables, write_results
    from qdgs_jax.train.faces.comparison_result import Comparison, read_arm

    arms = {}
    for arm, source in paths.arms.items():
        seeds = [
            json.loads(paths.result(arm, seed).read_text(encoding="utf-8")) for seed in paths.seeds
        ]
        arms[arm] = read_arm(
            {
                **counted(None if source is None else paths.people(arm)),
                "groups": [seed["groups"] for seed in seeds if seed["groups"] is not None],
                "sets": [seed["sets"] for seed in seeds],
            }
        )
    found = Comparison(arms)
    write_results(paths.out / "tables", found)
    for table in seed_tables(found).values():
        print(table.to_text())


def counted(people: Path | None) -> dict[str, int]:
    """How much an arm was pretrained on."""
    from qdgs_jax.datasets.manifest import read_manifest

    if people is None:
        return {"latents": 0, "people": 0, "images": 0}
    manifest = read_manifest(people)
    source = manifest.source
    return {
        "latents": int(source["latents"]),
        "people": int(source["subjects"]),
        "images": manifest.count,
    }


def check_same(paths: Paths) -> None:
    """Keep what the results follow from, or refuse a folder whose results follow from others."""
    from qdgs_jax.files import write_atomically

    given = {
        "run file": paths.run_file.read_text(encoding="utf-8"),
        "recipe": "" if paths.recipe is None else paths.recipe.read_text(encoding="utf-8"),
        "real faces": str(paths.real.resolve()),
        "sizes": dict(paths.sizes),
    }
    kept = paths.out / "experiment.json"
    if not kept.is_file():
        paths.out.mkdir(parents=True, exist_ok=True)
        write_atomically(kept, (json.dumps(given, indent=1) + "\n").encode())
    for name, value in json.loads(kept.read_text(encoding="utf-8")).items():
        if given[name] != value:
            raise SystemExit(
                f"{paths.out} was begun with another {name}: give that again, or another --out."
            )


def reproduce(paths: Paths) -> None:
    """Do all stages that are not done."""
    check_same(paths)
    began = time.monotonic()
    todo = stages(paths)
    for number, stage in enumerate(todo, 1):
        said = f"[{time.monotonic() - began:6.0f} s] {number} of {len(todo)}: {stage.name}"
        if stage.done():
            print(f"{said}: done before", flush=True)
            continue
        print(said, flush=True)
        stage.run()
    write_tables(paths)


def named(texts: Sequence[str]) -> dict[str, Path]:
    """Read NAME=FOLDER of options."""
    for text in texts:
        if "=" not in text:
            raise SystemExit(f"{text!r} is no NAME=FOLDER, such as lfw=data/lfw.")
    return {name: Path(place) for name, _, place in (text.partition("=") for text in texts)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("run_file", nargs="?", type=Path, help="of `qdgs init faces`")
    parser.add_argument("--out", type=Path, help="folder of everything that is made")
    parser.add_argument("--real", type=Path, help="shards of real faces, of `qdgs import`")
    parser.add_argument("--benchmark", action="append", default=[], metavar="NAME=FOLDER")
    parser.add_argument("--skin", action="append", default=[], metavar="TONE=FOLDER")
    parser.add_argument("--recipe", type=Path, help="recognition.toml; the paper's if absent")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0], help="of the trainings")
    parser.add_argument("--dry-run", action="store_true", help="say what it would cost")
    parser.add_argument("--utilisation", type=float, default=0.4, help="of a device's peak")
    parser.add_argument("--smoke", action="store_true", help="tiny counts, true networks")
    args = parser.parse_args()
    if args.dry_run:
        from faces_plan import plan

        plan(args.run_file, args.real, len(args.seeds), args.utilisation, args.recipe)
        return
    if args.out is None:
        parser.error("--out: give a folder for everything that is made")
    if args.smoke:
        from faces_smoke import smoke_inputs, with_few_samples

        paths = smoke_inputs(args.out)
        with with_few_samples():
            reproduce(paths)
        return
    if args.run_file is None or args.real is None or not (args.benchmark or args.skin):
        parser.error("give a run file, --real, and pairs by --benchmark or --skin")
    reproduce(
        Paths(
            out=args.out,
            run_file=args.run_file,
            real=args.real,
            benchmarks=named(args.benchmark),
            skin=named(args.skin),
            recipe=args.recipe,
            seeds=args.seeds,
        )
    )


if __name__ == "__main__":
    main()
