"""Settings of every test process.

Compiled programs are shared between processes and between runs. As most of them run once, on small
data, LLVM spends little on them; where XLA still has its older emitters, which take a third less
time, these make the loops. XLA's own passes, which decide what is computed, are as usual.

Tracing makes many small objects that live long, so that Python would look for rubbish among the
same ones for a seventh of the time: it looks more rarely, and never at what was imported.
"""

import gc
import os
from importlib.metadata import version
from pathlib import Path

from hypothesis import settings

CACHE = Path(__file__).parent.parent / ".make" / "compiled"
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(CACHE))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.2")
FLAGS = ["--xla_backend_optimization_level=0"]
if version("jax").startswith("0.10."):  # XLA refuses flags that it does not know
    FLAGS.append("--xla_cpu_use_fusion_emitters=false")
os.environ.setdefault("XLA_FLAGS", " ".join(FLAGS))

settings.register_profile("default", deadline=None)
settings.register_profile("fuzz", deadline=5000, max_examples=20_000)
settings.load_profile("default")

gc.set_threshold(50_000, 20, 100)


def pytest_collection_finish() -> None:
    gc.collect()
    gc.freeze()
