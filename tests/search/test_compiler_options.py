"""Options of compilers: kept where the compiler knows them, left out where it does not."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from qdgs_jax import compiler_options
from qdgs_jax.compiler_options import (
    OPTIONS,
    LongProgram,
    accepted_options,
    compile_long,
    compile_with,
)
from qdgs_jax.models.backend import lowering_for

KNOWN = {"xla_cpu_enable_fast_math": False}
UNKNOWN = {"xla_of_another_version": True}


@pytest.fixture(params=[KNOWN, UNKNOWN, {}], ids=["known", "unknown", "none"])
def options(request, monkeypatch):
    monkeypatch.setattr(compiler_options, "OPTIONS", {"cpu": request.param})
    accepted_options.cache_clear()
    yield request.param
    accepted_options.cache_clear()


def test_options_that_the_compiler_refuses_are_left_out(options):
    assert accepted_options("cpu") == ({} if options == UNKNOWN else options)
    assert accepted_options("a machine without any") == {}


def test_a_long_program_computes_and_donates_whatever_its_options(options):
    program = LongProgram(lambda scale, x: x * scale, donate_argnums=1)
    given = jnp.ones(3)
    assert program(2.0, given).tolist() == [2.0, 2.0, 2.0]
    assert given.is_deleted()
    program(3.0, jnp.ones(3))
    assert program.programs() == 1
    program(3.0, jnp.ones(4))
    assert program.programs() == 2
    lowered = program.lower(2.0, jnp.ones(3))
    assert "multiply" in lowered.as_text()
    assert compile_long(lowered)(2.0, jnp.ones(3)).tolist() == [2.0, 2.0, 2.0]


def test_a_long_program_is_part_of_somebody_elses(options):
    """JAX refuses options of a program inside another."""
    program = LongProgram(lambda scale, x: x * scale, donate_argnums=1)
    assert jax.jit(lambda x: program(2.0, x) + 1)(jnp.ones(2)).tolist() == [3.0, 3.0]
    assert jax.vmap(program)(jnp.arange(2.0), jnp.ones(2)).tolist() == [0.0, 1.0]
    assert jax.grad(lambda x: program(3.0, x))(1.0) == 3.0
    held = jnp.ones(2)  # nothing that it is given is traced
    assert jax.jit(lambda: program(2.0, held))().tolist() == [2.0, 2.0]
    looped = jax.lax.fori_loop(0, 3, lambda _, x: x + program(1.0, held), jnp.zeros(2))
    assert looped.tolist() == [3.0, 3.0]


def test_a_long_program_is_traced_for_devices_that_are_absent():
    program = LongProgram(lambda scale, x: x * scale, donate_argnums=1)
    with lowering_for("tpu"):
        assert "mul" in str(jax.make_jaxpr(program)(2.0, np.ones(3)))
    accepted_options.cache_clear()


def test_options_are_used(monkeypatch):
    """Those that the compiler does not know are refused where nobody asked it before."""
    monkeypatch.setattr(compiler_options, "accepted_options", lambda backend: UNKNOWN)
    program = LongProgram(lambda scale, x: x * scale, donate_argnums=1)
    with pytest.raises(jax.errors.JaxRuntimeError, match="xla_of_another_version"):
        program(2.0, jnp.ones(3))
    lowered = program.lower(2.0, jnp.ones(3))
    with pytest.raises(jax.errors.JaxRuntimeError, match="xla_of_another_version"):
        compile_long(lowered)
    assert compile_with(lowered, UNKNOWN)(2.0, jnp.ones(3)).tolist() == [2.0, 2.0, 2.0]


def test_options_are_those_of_the_device_that_holds_the_arguments(monkeypatch):
    asked = []
    monkeypatch.setattr(compiler_options, "OPTIONS", {"tpu": UNKNOWN})
    monkeypatch.setattr(compiler_options, "target_backend", lambda: "tpu")
    monkeypatch.setattr(compiler_options, "accepted_options", lambda b: asked.append(b) or {})
    program = LongProgram(lambda scale, x: x * scale, donate_argnums=1)
    program(2.0, jax.device_put(jnp.ones(3), jax.devices("cpu")[0]))
    program(2.0, jnp.ones(3))
    assert asked == ["cpu", "tpu"]


def test_the_options_of_tpus_are_plain_values():
    assert all(isinstance(value, (bool, str)) for value in OPTIONS["tpu"].values())
