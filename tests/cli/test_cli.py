"""The command line: quick to answer, clear when something is wrong, whole on a toy domain."""

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from toy_runs import EVALUATIONS, Spread, ToyDomain, play, qdgs, run_program, write_run

from qdgs_jax.cli import console
from qdgs_jax.cli.init import packaged_run
from qdgs_jax.runs.checkpoint_writer import find_checkpoints
from qdgs_jax.runs.folder import RunFolder


@pytest.fixture(autouse=True)
def in_an_empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    play(monkeypatch)


def test_help_imports_nothing_heavy():
    code = """
import sys
from qdgs_jax.cli import app
try:
    app(["--help"])
except SystemExit:
    pass
heavy = {"jax", "numpy", "pandas", "pydantic", "pyarrow", "flax", "PIL", "transformers"}
print("heavy:", sorted(heavy & set(sys.modules)))
"""
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "heavy: []" in shown.stdout
    named = ("demo", "init", "search", "generate", "audit", "train", "report", "port", "import")
    for command in named:
        assert command in shown.stdout


def test_the_whole_way_on_a_toy_domain(tmp_path, capsys, monkeypatch):
    run_file = write_run(tmp_path / "my.toml")
    assert qdgs("search", run_file, "--out", "run", "--baseline") == 0
    shown = capsys.readouterr().out
    assert "cma_maega: QD-score" in shown
    assert "random: QD-score" in shown
    assert "\x1b" not in shown  # no terminal, no control characters

    folder = RunFolder(tmp_path / "run")
    ours, random = (f.read_metrics()[-1] for f in (folder, folder.baseline))
    assert ours["evaluations"] == random["evaluations"]
    assert ours["coverage"] > 2 * random["coverage"]


def test_init_writes_a_run_file_and_overwrites_none(tmp_path, capsys):
    assert qdgs("init", "shapes", "my.toml") == 0
    assert (tmp_path / "my.toml").read_text() == packaged_run("shapes")
    assert qdgs("init", "shapes", "my.toml") == 2
    assert "my.toml exists already" in capsys.readouterr().err
    assert qdgs("init", "shapes", tmp_path / "none" / "my.toml") == 2
    assert "none: make it first" in capsys.readouterr().err
    assert qdgs("init", "drawn-faces") == 0
    assert Path("drawn-faces.toml").read_text() == packaged_run("drawn-faces")
    assert qdgs("init", "shape", "other.toml") == 2
    assert (
        "there are drawn-faces, faces, faces-accelerator, recognition, shapes"
        in capsys.readouterr().err
    )
    assert not (tmp_path / "other.toml").exists()


def test_init_alone_says_what_there_is(capsys):
    assert qdgs("init") == 0
    lines = capsys.readouterr().out.splitlines()
    named = [line.partition(":")[0] for line in lines[:-1]]
    assert named == ["drawn-faces", "faces", "faces-accelerator", "recognition", "shapes"]
    assert lines[-2].startswith("shapes: The shapes domain: a generator whose triangles are mostly")
    assert "`qdgs init NAME`" in lines[-1]


def test_the_run_file_names_every_algorithm():
    from qdgs_jax.emitters.registry import ALGORITHMS

    comment = packaged_run("shapes").partition("# algorithm:")[2].partition("[search]")[0]
    assert set(re.findall(r'"([^"]+)"', comment)) == set(ALGORITHMS)


def test_bad_input_is_one_line_and_exit_code_2(tmp_path, capsys):
    run_file = write_run(tmp_path / "my.toml", **{"sigma0 = 0.5": "sigma = 0.5"})
    assert qdgs("search", run_file) == 2
    error = capsys.readouterr().err
    assert (
        error.strip() == f'error: {run_file}: search.sigma: unknown field; did you mean "sigma0"?'
    )
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("given", "said"),
    [("0", "0 must be at least 1"), ("1e5", "1e5 must be an integer")],
)
def test_an_options_value_is_refused_in_words_of_this_program(given, said, tmp_path, capsys):
    assert qdgs("search", write_run(tmp_path / "my.toml"), "--evaluations", given) == 2
    error = capsys.readouterr().err
    assert said in error
    assert "Input should" not in error


def test_a_budget_too_small_for_a_step_writes_nothing(tmp_path, capsys):
    run_file = write_run(
        tmp_path / "my.toml", **{f"evaluations = {EVALUATIONS}": "evaluations = 530"}
    )
    assert qdgs("search", run_file, "--out", "run") == 2
    assert "give at least 552" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_a_folder_with_another_run_is_refused(tmp_path, capsys):
    run_file = write_run(tmp_path / "my.toml")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "run.toml").write_text("")
    assert qdgs("search", run_file, "--out", "run") == 2
    assert "run already holds a run" in capsys.readouterr().err
    assert (tmp_path / "run" / "run.toml").read_text() == ""


def test_commands_that_need_a_finished_run_say_so(tmp_path, capsys):
    for command in ("generate", "report"):
        assert qdgs(command, "nowhere") == 2
        assert "nowhere does not exist" in capsys.readouterr().err


def test_ctrl_c_keeps_a_checkpoint_and_says_how_to_continue(tmp_path, capsys, monkeypatch):
    run_file = write_run(tmp_path / "my.toml", "random")
    show = console.SearchProgress.show

    def interrupt(progress, row):
        show(progress, row)
        if row["step"] == 12:
            os.kill(os.getpid(), signal.SIGINT)

    with monkeypatch.context() as patched:
        patched.setattr(console.SearchProgress, "show", interrupt)
        assert qdgs("search", run_file, "--out", "run") == 130
    assert "stopped: go on with `qdgs search --resume run`" in capsys.readouterr().err
    folder = RunFolder(tmp_path / "run")
    assert find_checkpoints(folder.checkpoints)[0][0] == 12
    assert not folder.finished
    assert qdgs("report", "run") == 2
    assert "is not finished" in capsys.readouterr().err
    assert qdgs("search", "--resume", "run") == 0
    assert folder.finished


def test_a_failure_of_the_machine_is_one_line_and_exit_code_1(capsys):
    def full():
        raise OSError(28, "No space left on device", "run/metrics.csv")

    assert console.guarded(full) == 1
    assert capsys.readouterr().err.strip() == "error: run/metrics.csv: No space left on device"


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="no folder where files cannot be made")
def test_a_place_that_takes_no_files_is_not_called_missing(capsys):
    assert qdgs("init", "shapes", "/proc/my.toml") == 1
    assert "error: /proc/my.toml: " in capsys.readouterr().err


def test_a_defect_keeps_its_traceback():
    with pytest.raises(ValueError, match="not ours"):
        console.guarded(lambda: exec("raise ValueError('not ours')", {"__name__": "elsewhere"}))


def test_the_compilation_cache_is_on_unless_told_otherwise(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "environ", {"XDG_CACHE_HOME": str(tmp_path)})
    console.set_up_environment()
    assert os.environ["JAX_COMPILATION_CACHE_DIR"] == str(tmp_path / "qdgs-jax" / "compiled")
    monkeypatch.setattr(os, "environ", {"JAX_COMPILATION_CACHE_DIR": "elsewhere"})
    console.set_up_environment()
    assert os.environ["JAX_COMPILATION_CACHE_DIR"] == "elsewhere"


def test_without_a_home_the_compilation_cache_is_off(monkeypatch):
    def nobody():
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(os, "environ", {})
    monkeypatch.setattr(Path, "home", nobody)
    console.set_up_environment()
    assert "JAX_COMPILATION_CACHE_DIR" not in os.environ


def test_a_user_without_an_entry_can_run_commands():
    code = """
import pwd, sys
def nobody(number):
    raise KeyError(number)
pwd.getpwuid = nobody
from qdgs_jax.cli import main
main(sys.argv[1:])
"""
    environment = {k: v for k, v in os.environ.items() if k != "HOME" and "CACHE" not in k}
    shown = subprocess.run(
        [sys.executable, "-c", code, "--version"], capture_output=True, text=True, env=environment
    )
    assert shown.stdout.startswith("qdgs-jax "), shown.stderr


@pytest.fixture
def begun(tmp_path, capsys):
    """A finished run without a baseline."""
    run_file = write_run(tmp_path / "my.toml", "map_elites")
    assert qdgs("search", run_file, "--out", "run") == 0
    capsys.readouterr()
    return RunFolder(tmp_path / "run")


def test_a_finished_run_is_extended_and_gets_a_baseline(begun, capsys):
    assert qdgs("search", "--resume", "run") == 0
    assert "run is finished" in capsys.readouterr().out
    before = begun.last_step
    assert qdgs("search", "--resume", "run", "--evaluations", 1800, "--baseline") == 0
    shown = capsys.readouterr().out
    assert "random: QD-score" in shown
    assert begun.last_step > before
    assert begun.config().search.evaluations == 1800
    rows = [each.read_metrics()[-1] for each in (begun, begun.baseline)]
    assert rows[0]["evaluations"] == rows[1]["evaluations"]
    assert len(begun.elites()) == rows[0]["num_elites"]
    assert qdgs("search", "--resume", "run", "--evaluations", EVALUATIONS) == 2
    assert "less than what was spent already" in capsys.readouterr().err


def test_a_larger_budget_in_the_run_file_of_the_folder_counts(begun):
    before = begun.last_step
    text = begun.run_file.read_text()
    begun.run_file.write_text(text.replace(f"= {EVALUATIONS}", "= 1320"))
    assert qdgs("search", "--resume", "run") == 0
    assert begun.last_step > before


def test_another_change_is_refused_by_name(begun, capsys):
    text = begun.run_file.read_text()
    changed = text.replace("sigma0 = 0.5", "sigma0 = 0.6").replace("seed = 0", "seed = 1")
    begun.run_file.write_text(changed.replace("images = 30", "images = 31"))
    assert qdgs("search", "--resume", "run") == 2
    error = capsys.readouterr().err
    assert "seed was 0 and is 1; search.sigma0 was 0.5 and is 0.6" in error
    assert "images" not in error


def test_several_seeds_make_a_run_each_and_a_summary(tmp_path, capsys):
    run_file = write_run(tmp_path / "my.toml", "random")
    assert qdgs("search", run_file, "--seed", "3,4", "--seed", 5) == 0
    shown = capsys.readouterr().out
    folders = [RunFolder(tmp_path / "runs" / f"shapes-seed-{seed}") for seed in (3, 4, 5)]
    assert [folder.config().seed for folder in folders] == [3, 4, 5]
    found = [set(map(tuple, folder.elites().latents)) for folder in folders]
    assert not found[0] & found[1] | found[1] & found[2]
    assert "mean ± standard error of 3 seeds" in shown
    scores = np.array([folder.read_metrics()[-1]["qd_score"] for folder in folders])
    error = scores.std(ddof=1) / np.sqrt(3)
    assert f"{scores.mean():,.2f} ± {error:,.2f}" in shown
    assert qdgs("search", "--resume", folders[0].path, "--seed", 4) == 2
    assert "leave out --out and --seed" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("1,x", "--seed 1,x: 'x' is no whole number from 0"),
        ("-1", "'-1' is no whole number"),
        ("2147483648", "is no whole number from 0 to 2147483647"),
        ("1,2,1", "--seed gives 1 twice"),
    ],
)
def test_seeds_that_are_none_are_refused(given, message, tmp_path, capsys):
    assert qdgs("search", write_run(tmp_path / "my.toml"), f"--seed={given}") == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()


def test_ctrl_c_during_the_first_look_leaves_no_folder(tmp_path, capsys, monkeypatch):
    def interrupted(self, params, key):
        raise KeyboardInterrupt

    monkeypatch.setattr(ToyDomain, "spread", interrupted)
    run_file = write_run(tmp_path / "my.toml")
    assert qdgs("search", run_file, "--out", "run") == 130
    again = f"stopped: nothing was written; begin with `qdgs search {run_file} --out run`"
    assert again in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_progress_begins_at_once_where_there_is_no_terminal(tmp_path, capsys):
    run_file = write_run(tmp_path / "my.toml", "random")
    assert qdgs("search", run_file, "--out", "run") == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"{run_file}: reading the run file"
    assert lines[1] == "shapes: loading the generator and CLIP"
    assert lines[2] == "shapes: looking at the generator's own images"
    assert lines[3] == "random: looking for start latents"
    assert lines[4].startswith("random: 8/1,160")
    assert lines[5] == "random: compiling the search"


def test_a_measure_that_hardly_moves_is_told_of(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(ToyDomain, "spreads", (Spread("hardly moves"), Spread()))
    run_file = write_run(tmp_path / "my.toml", "random")
    assert qdgs("search", run_file, "--out", "run") == 0
    shown = capsys.readouterr().out
    assert "warning: the measure 'colour' hardly moves" in shown
    assert "'shape'" not in shown


def test_a_range_far_from_what_the_generator_draws_is_told_of(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(ToyDomain, "spreads", (Spread(), Spread(beyond="is far off")))
    run_file = write_run(tmp_path / "my.toml", "random")
    assert qdgs("search", run_file, "--out", "run") == 0
    shown = capsys.readouterr().out
    assert "warning: the measure 'shape' is far off" in shown
    assert "'colour'" not in shown
    assert qdgs("generate", "run") == 0
    assert "warning: the measure 'shape' is far off" in capsys.readouterr().out


def test_a_budget_of_a_few_steps_is_told_of(tmp_path, capsys):
    few = write_run(tmp_path / "few.toml", **{f"evaluations = {EVALUATIONS}": "evaluations = 700"})
    assert qdgs("search", few, "--out", "few") == 0
    shown = capsys.readouterr().out
    assert "warning: cma_maega: the budget is 5 steps of 32 evaluations" in shown
    assert "random: the budget" not in shown


def test_a_second_ctrl_c_says_how_to_go_on(tmp_path, capsys, monkeypatch):
    run_file = write_run(tmp_path / "my.toml", "random")

    def twice(progress, row):
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(console.SearchProgress, "show", twice)
    assert qdgs("search", run_file, "--out", "a folder") == 130
    assert "stopped: go on with `qdgs search --resume 'a folder'`" in capsys.readouterr().err


def test_text_that_the_output_cannot_show_ends_no_command(tmp_path):
    code = "import sys; from qdgs_jax.cli import main; main(sys.argv[1:])"
    arguments = (code, "init", "shapes", tmp_path / "größe ☃.toml")
    shown = run_program(*arguments, PYTHONIOENCODING="ascii")
    assert shown.returncode == 0, shown.stderr
    assert b"gr\\xf6\\xdfe \\u2603.toml; search it" in shown.stdout
    shown = run_program(*arguments, PYTHONIOENCODING="latin-1")
    assert shown.returncode == 2
    assert b"gr\xf6\xdfe \\u2603.toml exists already" in shown.stderr


FIRST_LINES = """
import sys
from qdgs_jax.cli import console, main
def say(text, style=""):
    heavy = {"jax", "numpy", "flax", "pyarrow", "pandas", "transformers"} & set(sys.modules)
    print(text, sorted(heavy))
    raise SystemExit(0)
import qdgs_jax.cli as cli
commands = (cli.search, cli.generate, cli.audit, cli.train, cli.report)
for command in (*commands, cli.port, cli.compile, cli.import_faces):
    command.say = say
main(sys.argv[1:])
"""


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (("search", "my.toml"), "my.toml: reading the run file"),
        (("search", "--resume", "run"), "run: reading what was found so far"),
        (("generate", "run"), "run: reading the run"),
        (("audit", "run"), "run: reading the data"),
        (("train", "run"), "run: reading the data"),
        (("report", "run"), "run: reading what was found"),
        (("port", "vae", "vae.pt", "out"), "reading vae.pt"),
        (("import", "folder", "casia", "out"), "casia: reading the images"),
        (("compile", "run", "--target", "x"), "run: reading the run; nothing of it is executed"),
    ],
)
def test_a_command_speaks_before_it_imports_anything_heavy(arguments, line):
    shown = run_program(FIRST_LINES, *arguments)
    assert shown.stdout.decode().strip() == f"{line} []", shown.stderr
