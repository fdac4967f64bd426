"""Memory that a process frees and uses again."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

from qdgs_jax import kept_memory

FAULTS = """
import resource, sys
import numpy as np
from qdgs_jax.kept_memory import keep_freed_memory
assert sys.argv[1] == "given" or keep_freed_memory()
for _ in range(2):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for megabytes in (40, 70, 40):
        np.zeros(megabytes << 17)[::64] = 1.0
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="glibc gives freed memory back")
def test_freed_memory_is_used_again_without_a_fault():
    faults = {
        name: int(subprocess.check_output([sys.executable, "-c", FAULTS, name]))
        for name in ("kept", "given")
    }
    assert faults["kept"] < faults["given"] / 10


def test_other_c_libraries_are_left_as_they_are(monkeypatch):
    monkeypatch.setattr(kept_memory.platform, "libc_ver", lambda: ("musl", "1.2"))
    assert not kept_memory.keep_freed_memory()
