"""Several seeds in one call: a run each, taken up by the same call, and one table over all."""

import pytest
from toy_runs import EVALUATIONS, play, qdgs, write_run

from qdgs_jax.runs import driver
from qdgs_jax.runs.folder import COLUMNS, RunFolder

TITLE = "mean ± standard error of 3 seeds"


class Searches:
    """Stands in for `run_search`: a row at the end, and a file for the archive."""

    def __init__(self):
        self.done = []
        self.stopped_in = None

    def __call__(self, folder, task, *listeners):
        if folder.path.name == self.stopped_in:
            return False
        self.done.append(str(folder.path))
        row = dict.fromkeys(COLUMNS, 1)
        folder.append_metrics({**row, "step": task.steps, "evaluations": task.budget})
        folder.archive_file.touch()
        return True


@pytest.fixture(autouse=True)
def searches(tmp_path, monkeypatch):
    searches = Searches()
    monkeypatch.chdir(tmp_path)
    play(monkeypatch)
    monkeypatch.setattr(driver, "run_search", searches)
    return searches


@pytest.fixture
def run_file(tmp_path):
    return write_run(tmp_path / "my.toml", "random")


def folders(*seeds):
    return [RunFolder(f"runs/shapes-seed-{seed}") for seed in seeds]


def test_the_same_call_goes_on_and_tells_of_all_seeds(run_file, searches, capsys):
    given = ("--out", "a b", "--baseline", "--seed", "0,1,2")
    searches.stopped_in = "a b-seed-1"
    assert qdgs("search", run_file, *given) == 130
    shown = capsys.readouterr()
    again = f"stopped: go on with `qdgs search {run_file} --out 'a b' --baseline --seed 0,1,2`"
    assert again in shown.err
    assert TITLE not in shown.out

    searches.stopped_in = None
    assert qdgs("search", run_file, *given) == 0
    shown = capsys.readouterr().out
    assert "a b-seed-0 is finished" in shown
    assert TITLE in shown
    assert shown.count("random: QD-score") == 6  # three seeds, each with its baseline
    wanted = [f"a b-seed-{seed}{part}" for seed in range(3) for part in ("", "/random")]
    assert searches.done == wanted  # each of them once


def test_stopped_before_the_last_seed_began_the_same_call_goes_on(run_file, searches, capsys):
    searches.stopped_in = "shapes-seed-0"
    assert qdgs("search", run_file, "--seed", "0,1", "--evaluations", 1000) == 130
    again = f"`qdgs search {run_file} --seed 0,1 --evaluations 1000`, which passes over"
    assert again in capsys.readouterr().err


def test_further_seeds_and_a_larger_budget_join_those_there(run_file, searches, capsys):
    assert qdgs("search", run_file, "--seed", "3,4") == 0
    assert qdgs("search", run_file, "--seed", "3,4,5", "--evaluations", 1480) == 0
    assert TITLE in capsys.readouterr().out
    ends = [folder.read_metrics()[-1]["evaluations"] for folder in folders(3, 4, 5)]
    assert ends == [1480] * 3


@pytest.mark.parametrize(
    ("changes", "arguments", "message"),
    [
        ({"sigma0 = 0.5": "sigma0 = 0.6"}, (), "search.sigma0 was 0.5 and is 0.6"),
        ({}, ("--evaluations", 900), f"search.evaluations was {EVALUATIONS} and is 900"),
    ],
)
def test_another_run_in_one_of_the_places_is_refused_at_once(
    changes, arguments, message, run_file, tmp_path, capsys
):
    assert qdgs("search", run_file, "--seed", "4,5") == 0
    changed = write_run(tmp_path / "my.toml", "random", **changes)
    assert qdgs("search", changed, "--seed", "6,4", *arguments) == 2
    error = capsys.readouterr().err
    assert f"runs/shapes-seed-4 already holds another run: {message}" in error
    assert not folders(6)[0].path.exists()  # before anything is searched


def test_what_of_a_budget_will_be_run_is_said(run_file, capsys):
    given = ("--evaluations", 1200, "--baseline")
    words = "random: 1,192 of the 1,200 evaluations will be run: the start takes 8"
    assert qdgs("search", run_file, *given, "--seed", 7) == 0
    assert capsys.readouterr().out.count(words) == 2  # of the run and of its baseline
    folder = folders(7)[0]
    assert folder.read_metrics()[-1]["evaluations"] == 1192
    assert qdgs("search", "--resume", folder.path, "--evaluations", 1230) == 0
    assert "1,224 of the 1,230 evaluations" in capsys.readouterr().out
    assert qdgs("search", run_file, "--evaluations", 1192, "--seed", 8) == 0
    assert "will be run" not in capsys.readouterr().out
