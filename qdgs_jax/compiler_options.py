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

from qdgs_jax.models.backend import target_backend

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
_UNKNOWN = "No such compile option"
_BELOW_ANOTHER = "`compiler_options` can only be passed to top-level"


def compile_with(lowered: jax.stages.Lowered, options: Options) -> jax.stages.Compiled:
    """Compile with options, or without if the compiler does not know them.

    Raises:
        jax.errors.JaxRuntimeError: the compiler refuses the program.
    """
    try:
        return lowered.compile(compiler_options=dict(options))
    except jax.errors.JaxRuntimeError as error:
        if not options or _UNKNOWN not in str(error):
            raise
        return lowered.compile()


@functools.cache
def accepted_options(backend: str) -> Options:
    """The options of a backend, or none if its compiler refuses them or this process has none."""
    options = OPTIONS.get(backend, {})
    if options:
        try:
            jax.jit(lambda: 0, compiler_options=dict(options)).lower().compile()
        except RuntimeError:  # of which JAX's own are a kind
            return {}
    return options


def compile_long(lowered: jax.stages.Lowered) -> jax.stages.Compiled:
    """Compile what `LongProgram.lower` gave for the device at hand, as calling it would."""
    return lowered.compile(compiler_options=dict(accepted_options(target_backend())))


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
        self._tuned: dict[str, Any] = {}

    def __call__(self, *args: P.args, **keywords: P.kwargs) -> R:
        """Call it; what it is to give away is gone afterwards."""
        backend = _backend_of((args, keywords))
        if backend not in self._tuned:
            options = dict(accepted_options(backend))
            self._tuned[backend] = (
                self._jitted(compiler_options=options) if options else self._plain
            )
        try:
            result: R = self._tuned[backend](*args, **keywords)
        except ValueError as error:  # while it is traced, before anything is given away
            if _BELOW_ANOTHER not in str(error):
                raise
            result = self._plain(*args, **keywords)
        return result

    def lower(self, *args: P.args, **keywords: P.kwargs) -> jax.stages.Lowered:
        """Lower it; `compile_long` compiles the result as a call would."""
        return self._plain.lower(*args, **keywords)

    def programs(self) -> int:
        """How many programs calls compiled, those below somebody else's `jit` not among them."""
        each = {id(program): program for program in self._tuned.values()}
        return sum(program._cache_size() for program in each.values())


def _backend_of(arguments: Any) -> str:
    """The kind of device that a call with these arguments runs on."""
    backend = target_backend()
    if backend not in OPTIONS:
        return backend
    arrays = (leaf for leaf in jax.tree.leaves(arguments) if isinstance(leaf, jax.Array))
    placed = (a for a in arrays if not isinstance(a, jax.core.Tracer) and a.committed)
    first = next(placed, None)
    return backend if first is None else next(iter(first.devices())).platform
