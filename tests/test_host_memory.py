"""Freed memory is kept for the next allocation, which a process of its own can show."""

import platform
import subprocess
import sys

import pytest

FAULTS_OF_THE_SECOND_OF_TWO_BLOCKS = """
import resource, sys
from qdgs_jax.host_memory import keep_freed_memory
if sys.argv[1] == "kept":
    keep_freed_memory()
size = 1 << 26
for _ in range(2):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    block = b"x" * size
    del block
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="about glibc's malloc")
def test_freed_memory_is_not_returned():
    def faults(how):
        command = [sys.executable, "-c", FAULTS_OF_THE_SECOND_OF_TWO_BLOCKS, how]
        return int(subprocess.run(command, check=True, capture_output=True).stdout)

    assert 10 * faults("kept") < faults("returned")
