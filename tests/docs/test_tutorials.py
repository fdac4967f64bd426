"""Every tutorial runs from its first cell to its last, and is stored as it was written."""

import json
import sys
from pathlib import Path

import pytest
from notebooks import code_cells, plain_python, run_notebook

TUTORIALS = Path(__file__).parents[2] / "docs" / "tutorials"
NOTEBOOKS = sorted(TUTORIALS.glob("*.ipynb"))
named = pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
# These compile the embedded networks, which takes minutes; other tests take the same ways.
LONG = ("shapes", "own_generator")


@pytest.fixture
def in_a_folder_of_its_own(tmp_path, monkeypatch):
    """A temporary folder as the current one; modules of it are forgotten afterwards."""
    import matplotlib.pyplot as plt

    plt.switch_backend("agg")
    monkeypatch.chdir(tmp_path)
    yield
    plt.close("all")
    for name, module in list(sys.modules.items()):
        if Path(getattr(module, "__file__", None) or "/").is_relative_to(tmp_path):
            del sys.modules[name]


@pytest.mark.parametrize(
    "notebook",
    [pytest.param(p, marks=[pytest.mark.full] * (p.stem in LONG), id=p.stem) for p in NOTEBOOKS],
)
def test_it_runs(notebook, in_a_folder_of_its_own):
    run_notebook(notebook)


@named
def test_it_holds_no_output(notebook):
    cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    code = [cell for cell in cells if cell["cell_type"] == "code"]
    assert code and not any(cell["outputs"] or cell["execution_count"] for cell in code)


def test_there_is_one_for_every_path():
    assert {path.stem for path in NOTEBOOKS} >= {"shapes", "own_problem", "own_generator", "ports"}


def test_a_failing_command_fails_the_notebook(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    cell = {"cell_type": "code", "source": ["!qdgs search nothing.toml"]}
    notebook = tmp_path / "wrong.ipynb"
    notebook.write_text(json.dumps({"cells": [cell]}))
    assert plain_python(code_cells(notebook)[0]) == "_qdgs('qdgs search nothing.toml')"
    with pytest.raises(AssertionError, match=r"nothing\.toml ended with"):
        run_notebook(notebook)
