"""Options of compilers for the program that a search runs for hours.

They are those of the TPU's compiler, chosen by its own estimate of a step of faces at full size
(docs/benchmarks.md). Another version may not know them; the program is then compiled without.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, Generic, ParamSpec, TypeVar

import jax

from qdgs_jax.one_program import traced

P = ParamSpec("P")
R = TypeVar("R")

Options = Mapping[str, str | bool]

OPTIONS: Mapping[str, Options] = MappingProxyType(
    {
        "tpu": {
            # A convolution may be so much slower than its fastest form, which is twice as long.
            "xla_jf_convolution_performance_target": "0.98",
            # What to fuse is judged by the instructions that come of it.
            "xla_tpu_use_bundle_aware_cost_model_for_fusions": True,
        }
    }
)


@functools.cache
def accepted_options(backend: str) -> Options:
    """The options of a backend that this process has, or none where its compiler refuses them."""
    options = OPTIONS.get(backend, {})
    if options:
        try:
            jax.jit(lambda: 0, compiler_options=dict(options)).lower().compile()
        except jax.errors.JaxRuntimeError:
            return {}
    return options


def compile_long(lowered: jax.stages.Lowered) -> jax.stages.Compiled:
    """Compile what `LongProgram.lower` gave for the device at hand, as calling it would."""
    return lowered.compile(compiler_options=dict(accepted_options(jax.default_backend())))


class LongProgram(Generic[P, R]):
    """A function that is compiled with the options of the device that it runs on.

    Below somebody else's `jit`, whose program it becomes part of, it is compiled as that is.
    """

    def __init__(self, function: Callable[P, R], *, donate_argnums: int) -> None:
        """Take a function of pytrees; nothing is compiled yet.

        Args:
            function: it.
            donate_argnums: the argument whose buffers the result may take.
        """
        self._jitted = functools.partial(jax.jit, function, donate_argnums=donate_argnums)
        self._plain = self._jitted()

    @functools.cached_property
    def _tuned(self) -> Any:
        options = accepted_options(jax.default_backend())
        return self._jitted(compiler_options=dict(options)) if options else self._plain

    def __call__(self, *args: P.args, **keywords: P.kwargs) -> R:
        """Call it; what it is to give away is gone afterwards."""
        program = self._plain if traced((args, keywords)) else self._tuned
        result: R = program(*args, **keywords)
        return result

    def lower(self, *args: P.args, **keywords: P.kwargs) -> jax.stages.Lowered:
        """Lower it; `compile_long` compiles the result as a call would."""
        return self._plain.lower(*args, **keywords)

    def programs(self) -> int:
        """How many programs it was compiled into."""
        return int(self._tuned._cache_size())
