"""How programs for absent devices are compiled."""

import jax
import pytest
from jax.experimental.compilation_cache import compilation_cache

from qdgs_jax.compiler_options import OPTIONS
from qdgs_jax.targets.chips import Target
from qdgs_jax.targets.estimate import options_for, without_cache


@pytest.fixture
def cache(tmp_path):
    """A folder that takes every compiled program."""
    wanted = {
        "jax_compilation_cache_dir": str(tmp_path),
        "jax_persistent_cache_min_compile_time_secs": 0.0,
    }
    before = {name: getattr(jax.config, name) for name in wanted}
    for name, value in wanted.items():
        jax.config.update(name, value)
    compilation_cache.reset_cache()
    yield tmp_path
    for name, value in before.items():
        jax.config.update(name, value)
    compilation_cache.reset_cache()


def test_programs_for_absent_devices_are_not_kept_whatever_was_compiled_before(cache):
    def kept(factor: float) -> int:
        jax.jit(lambda x: x * factor).lower(1.0).compile()
        return len(list(cache.glob("*-cache")))

    assert kept(2.0) == 1
    with without_cache():
        assert kept(3.0) == 1
    assert kept(4.0) == 2


@pytest.mark.parametrize(
    ("target", "program", "as_runs_do"),
    [
        ("tpu:v5e:2x2", "search", True),
        ("tpu:v5e:2x2", "train", False),
        ("cuda:h100", "search", False),
    ],
)
def test_a_program_is_compiled_with_the_options_of_the_run(target, program, as_runs_do):
    found = options_for(program, Target.parse(target))
    assert (found == OPTIONS["tpu"]) == as_runs_do
