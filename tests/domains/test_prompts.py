"""Prompts as a run file holds them."""

from __future__ import annotations

import subprocess
import sys

import pytest

from qdgs_jax.domains.prompts import split_prompt


@pytest.mark.parametrize(
    ("prompt", "texts"),
    [
        ("a red shape", ("a red shape",)),
        (" a red shape|a star ", ("a red shape", "a star")),
        ("a star | ", ("a star", "")),
        ("", ("",)),
    ],
)
def test_a_side_is_split_at_bars(prompt, texts):
    assert split_prompt(prompt) == texts


def test_run_files_can_be_checked_without_jax():
    program = (
        "import sys, qdgs_jax.domains.prompts, qdgs_jax.domains.weights;"
        "sys.exit('jax' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
