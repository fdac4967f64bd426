"""The package as it is installed."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import qdgs_jax

ROOT = Path(__file__).parents[1]


def test_every_name_leads_to_its_module():
    for name in qdgs_jax.__all__:
        found = getattr(qdgs_jax, name)
        assert getattr(found, "__name__", name) == name
        assert name in dir(qdgs_jax)
    with pytest.raises(AttributeError, match="'Serach'"):
        _ = qdgs_jax.Serach


def test_the_package_is_imported_without_jax():
    code = "import sys, qdgs_jax, qdgs_jax.cli; sys.exit('jax' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_every_folder_of_modules_is_installed():
    """A folder left out of the list works in a checkout and is missing for everybody else."""
    table = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    listed = set(table["tool"]["setuptools"]["packages"])
    found = {
        ".".join(init.parent.relative_to(ROOT).parts)
        for top in ("qdgs_jax", "models", "ports", "train")
        for init in (ROOT / top).rglob("__init__.py")
    }
    assert listed == {name if name.startswith("qdgs_jax") else f"qdgs_jax.{name}" for name in found}
    loose = {
        module.parent
        for top in ("qdgs_jax", "models", "ports", "train")
        for module in (ROOT / top).rglob("*.py")
        if not (module.parent / "__init__.py").exists()
    }
    assert not loose


def test_every_emitter_is_offered():
    from qdgs_jax import emitters

    offered = {name for name in emitters.__all__ if name.endswith("Emitter")}
    assert offered - {"GradientEmitter", "PriorEmitter"} <= set(qdgs_jax.__all__)


def test_asking_what_there_is_loads_nothing():
    code = "import sys, qdgs_jax; dir(qdgs_jax); assert 'jax' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_what_comes_with_the_package_names_no_folder_of_a_machine():
    """Cards tell the command that made the weights; where it ran is nobody's business."""
    machine = re.compile(rb"(/root|/home|/Users|/work|/tmp)/\w")
    assets = (ROOT / "qdgs_jax" / "assets").rglob("*")
    assert [path for path in assets if path.is_file() and machine.search(path.read_bytes())] == []
