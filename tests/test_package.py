"""The package's front door."""

import subprocess
import sys

import pytest

import qdgs_jax


def test_every_name_leads_to_its_module():
    for name in qdgs_jax.__all__:
        found = getattr(qdgs_jax, name)
        assert getattr(found, "__name__", name) == name
        assert name in dir(qdgs_jax)
    with pytest.raises(AttributeError, match="'Serach'"):
        _ = qdgs_jax.Serach


def test_every_emitter_is_offered():
    from qdgs_jax import emitters

    offered = {name for name in emitters.__all__ if name.endswith("Emitter")}
    assert offered - {"GradientEmitter", "PriorEmitter"} <= set(qdgs_jax.__all__)


def test_asking_what_there_is_loads_nothing():
    code = "import sys, qdgs_jax; dir(qdgs_jax); assert 'jax' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
