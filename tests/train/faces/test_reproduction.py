"""The paper's experiment as one program: what it does in which order, and that it goes on."""

from __future__ import annotations

import itertools
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from labelled_rows import labelled

from qdgs_jax.cli.init import packaged_run
from qdgs_jax.datasets.shards import write_shards
from qdgs_jax.runs.config import baseline_of, parse_run
from qdgs_jax.runs.folder import RunFolder

SCRIPTS = Path(__file__).parents[3] / "scripts"


@pytest.fixture(scope="module")
def program() -> Iterator[ModuleType]:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(SCRIPTS))
        import reproduce_faces

        yield reproduce_faces
        for name in ("reproduce_faces", "faces_plan", "faces_smoke"):
            sys.modules.pop(name, None)


class Power:
    """Commands that write what theirs would, until the power fails."""

    def __init__(self, paths: object, lasts: int) -> None:
        self.paths, self.left, self.said = paths, lasts, list[tuple[str, ...]]()

    def qdgs(self, *words: object) -> None:
        texts = tuple(map(str, words))
        self.spend()
        self.said.append(texts)
        options = dict(itertools.pairwise(texts))
        if texts[0] == "search":
            run = RunFolder(self.paths.out / "run")
            config = parse_run(packaged_run("faces"))
            for each, its in ((run, config), (run.baseline, baseline_of(config))):
                if not each.exists:
                    each.create(its)
            for each in (run, run.baseline):
                each.archive_file.touch()
        elif texts[0] == "generate":
            rows = labelled(np.zeros(4, int), np.zeros((4, 1)), subjects=np.arange(4) // 2)
            names = {"label_names": ("?",), "measure_names": ("skin",)}
            source = {"latents": 4, "subjects": 2}
            pictures = [np.zeros((4, 8, 8, 3), np.uint8)]
            write_shards(Path(options["--out"]) / "data", rows, pictures, source=source, **names)
        else:
            assert Path(options.get("--start", options["--config"])).exists()
            model = Path(options["--out"])
            model.mkdir(parents=True)
            (model / "config.json").touch()

    def verify(self, paths: object, arm: str, seed: int) -> None:
        self.spend()
        self.said.append(("verify", arm, str(seed)))
        groups = [
            {"name": name, "pairs": 20, "accuracy": value, "fmr": 0.1, "fnmr": 0.2}
            for name, value in (("dark", 0.8), ("light", 0.9))
        ]
        found = {"sets": {"lfw": 0.9 + 0.01 * seed}, "groups": {"groups": groups, "threshold": 1.0}}
        target = paths.result(arm, seed)
        target.parent.mkdir(exist_ok=True)
        target.write_text(json.dumps(found))

    def spend(self) -> None:
        if self.left == 0:
            raise KeyboardInterrupt
        self.left -= 1


@pytest.fixture
def paths(program: ModuleType, tmp_path: Path) -> object:
    run_file = tmp_path / "faces.toml"
    run_file.write_text(packaged_run("faces"))
    return program.Paths(
        out=tmp_path / "out",
        run_file=run_file,
        real=tmp_path / "real",
        benchmarks={"lfw": tmp_path / "lfw"},
        skin={"dark": tmp_path / "dark", "light": tmp_path / "light"},
        seeds=(0, 1),
        sizes={"15": 2, "50": 4},
    )


def run(program: ModuleType, paths: object, patch: pytest.MonkeyPatch, lasts: int = -1) -> Power:
    power = Power(paths, lasts)
    patch.setattr(program, "qdgs", power.qdgs)
    patch.setattr(program, "verify", power.verify)
    program.reproduce(paths)
    return power


def test_all_is_done_in_order(program, paths, monkeypatch, capsys) -> None:
    said = run(program, paths, monkeypatch).said
    out = str(paths.out)
    assert said[0] == ("search", str(paths.run_file), "--out", f"{out}/run", "--baseline")
    assert said[1:5] == [
        ("generate", f"{out}/run{place}", "--images", number, "--out", f"{out}/people/{arm}")
        for arm, place, number in (
            ("Rand15", "/random", "2"),
            ("QD15", "", "2"),
            ("Rand50", "/random", "4"),
            ("QD50", "", "4"),
        )
    ]
    config = ("--config", f"{out}/recipes/seed-0.toml")
    assert said[5:7] == [
        ("train", str(paths.real), *config, "--out", f"{out}/models/none-0"),
        ("verify", "none", "0"),
    ]
    first = f"{out}/models/Rand15-0-people"
    assert said[7:9] == [
        ("train", f"{out}/people/Rand15", *config, "--out", first),
        (
            *("train", str(paths.real), *config, "--out", f"{out}/models/Rand15-0"),
            *("--start", first),
        ),
    ]
    assert len(said) == 1 + 4 + 2 * (2 + 4 * 3)
    rows = (paths.out / "tables" / "sets.csv").read_text().splitlines()
    assert [row.split(",")[0] for row in rows[1:]] == ["none", "Rand15", "QD15", "Rand50", "QD50"]
    assert "90.50 ± 0.50" in capsys.readouterr().out


@pytest.mark.parametrize("lasts", [0, 1, 3, 5, 6, 7, 8, 20, 32])
def test_stopped_between_stages_it_does_the_rest_and_nothing_twice(
    program, paths, monkeypatch, lasts: int
) -> None:
    first: list[tuple[str, ...]] = []
    with pytest.raises(KeyboardInterrupt):
        power = Power(paths, lasts)
        first = power.said
        monkeypatch.setattr(program, "qdgs", power.qdgs)
        monkeypatch.setattr(program, "verify", power.verify)
        program.reproduce(paths)
    second = run(program, paths, monkeypatch).said
    assert len(first) == lasts
    assert len(set(first + second)) == len(first) + len(second) == 33
    assert run(program, paths, monkeypatch).said == []


def test_a_search_that_was_stopped_goes_on(program, paths, monkeypatch) -> None:
    config = parse_run(packaged_run("faces"))
    RunFolder(paths.out / "run").create(config)
    said = run(program, paths, monkeypatch).said
    assert said[0] == ("search", f"{paths.out}/run", "--resume", "--baseline")


def test_other_settings_are_refused_and_other_pairs_verified(program, paths, monkeypatch) -> None:
    run(program, paths, monkeypatch)
    paths.run_file.write_text(packaged_run("faces").replace("seed = 0", "seed = 1"))
    with pytest.raises(SystemExit, match="begun with another run file"):
        run(program, paths, monkeypatch)
    paths.run_file.write_text(packaged_run("faces"))
    paths.benchmarks["agedb_30"] = paths.real
    said = run(program, paths, monkeypatch).said
    assert [words[0] for words in said] == ["verify"] * 10


def test_options_name_folders(program) -> None:
    assert program.named(["lfw=a/b=c"]) == {"lfw": Path("a/b=c")}
    with pytest.raises(SystemExit, match="'lfw' is no NAME=FOLDER"):
        program.named(["lfw"])


def test_the_plan_counts_every_training(program, monkeypatch) -> None:
    import faces_plan

    from qdgs_jax.train.faces.budget import TrainingCost
    from qdgs_jax.train.faces.recipe import default_recipe

    def cost(flop: float) -> TrainingCost:
        return TrainingCost(flop, 2.0, parameters=10, head=5, activations=7)

    recipe = default_recipe()
    costs = {20: cost(3.0), 60: cost(4.0), 50: cost(5.0)}
    rows = faces_plan.training_rows(recipe, (1000, 50), ((180, 20), (600, 60)), costs, 2)
    assert [(row.times, row.images, row.epochs) for row in rows] == [
        (4, 180, 26),  # QD and Rand, two seeds
        (4, 600, 26),
        (10, 1000, 26),  # and none
        (10, 4 * faces_plan.PAIRS, 1),
    ]
    assert [row.flop for row in rows[:3]] == [
        4 * 26 * 180 * 3.0,
        4 * 26 * 600 * 4.0,
        10 * 26 * 1000 * 5.0,
    ]
    assert rows[3].flop == 10 * 4 * faces_plan.PAIRS * 2.0
    config = parse_run(packaged_run("faces"))
    made, sizes = faces_plan.people_rows(config, faces_plan.SearchCost(1.0, 1.0, 1e12, 1.0))
    assert sizes == [(135_000, 7_500), (450_000, 25_000)]
    assert made[0].flop > 2 * 135_000 * 1e12
