"""Settings of every test process.

Compiled programs are shared between processes and between runs. As most of them run once, on small
data, LLVM spends little on them, in one piece each, as every core has tests of its own; where XLA
still has its older emitters, which take a third less time, these make the loops. XLA's own passes,
which decide what is computed, are as usual. Files that train ask for `optimised` programs, which
take longer to compile and half as long in all.

Programs of files that are through are let go of now and then: each holds more than a megabyte.

Tracing makes many small objects that live long, so that Python would look for rubbish among the
same ones for a seventh of the time: it looks more rarely, and never at what was imported.
"""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

import pytest
from hypothesis import settings

TESTS = Path(__file__).parent
CACHE = TESTS.parent / ".make" / "compiled"
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(CACHE))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.1")
os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "true")  # but for `optimised`
FLAGS = ["--xla_backend_optimization_level=1", "--xla_cpu_parallel_codegen_split_count=1"]
if version("jax").startswith("0.10."):  # XLA refuses flags that it does not know
    FLAGS.append("--xla_cpu_use_fusion_emitters=false")
os.environ.setdefault("XLA_FLAGS", " ".join(FLAGS))

settings.register_profile("default", deadline=None)
settings.register_profile("fuzz", deadline=5000, max_examples=20_000)
settings.load_profile("default")

gc.set_threshold(50_000, 20, 100)

# Few tests and long ones: begun first, no process is left alone with them at the end.
LONG = ("train/faces/test_seeds.py", "cli/test_faces.py", "train/test_repair.py")
LONG += ("train/test_oracle.py", "domains/test_evaluation.py", "domains/test_faces_assets.py")
LONG += ("train/test_training.py", "train/faces/test_fit.py", "train/faces/test_heads.py")
PROGRAMS_KEPT = 2000
compiled = 0


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Long files first; all others stay in their order."""
    places = {TESTS / name: place for place, name in enumerate(LONG)}
    items.sort(key=lambda item: places.get(item.path, len(LONG)))


def pytest_collection_finish() -> None:
    import jax.monitoring

    jax.monitoring.register_event_duration_secs_listener(count_programs)
    gc.collect()
    gc.freeze()


def count_programs(event: str, duration: float, **_: str | int) -> None:
    global compiled
    compiled += event.endswith("backend_compile_duration")


@pytest.hookimpl(trylast=True)
def pytest_runtest_teardown(item: pytest.Item, nextitem: pytest.Item | None) -> None:
    """Let go of the programs, between two files, once there are many."""
    global compiled
    if compiled > PROGRAMS_KEPT and nextitem is not None and nextitem.path != item.path:
        import jax

        jax.clear_caches()
        compiled = 0


@pytest.fixture(scope="module")
def optimised() -> Iterator[None]:
    """Programs that run long: LLVM may spend time on those of this file."""
    import jax

    before = jax.config.read("jax_disable_most_optimizations")
    jax.config.update("jax_disable_most_optimizations", False)
    yield
    jax.config.update("jax_disable_most_optimizations", before)
