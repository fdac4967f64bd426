"""What a driver gives an emitter beyond QDax's protocol, and how it learns that it should.

Every emitter is a QDax `Emitter`: `init`, `emit`, `state_update` and `batch_size`. Two kinds want
more of `emit`. A `GradientEmitter` branches from parents, which the driver evaluates with Jacobians
before each `emit`. A `PriorEmitter` draws from the generator's prior, whose weights must be
arguments of the compiled search and never constants of it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol, runtime_checkable

import jax

from qdgs_jax.problem import Params

# (weights of the generator, key, n) -> latents Float[n, D]
Prior = Callable[[Params, jax.Array, int], jax.Array]

Emitted = tuple[jax.Array, dict[str, jax.Array]]


@runtime_checkable
class GradientEmitter(Protocol):
    """An emitter that wants Jacobians at its parents."""

    @property
    def num_parents(self) -> int:
        """Number E of parents to evaluate before each `emit`."""

    def parents(self, state: Any) -> jax.Array:
        """Latents Float[E, D] to evaluate with Jacobians."""

    def emit(
        self,
        repertoire: Any,
        emitter_state: Any,
        key: jax.Array,
        jacobian: jax.Array | None = None,
    ) -> Emitted:
        """Candidates, and what `state_update` needs to know of them.

        Args:
            repertoire: The archive, or QDax's.
            emitter_state: The state whose `parents` were evaluated.
            key: For this call alone.
            jacobian: Float[E, 1 + M, D] at the parents: the gradient of the objective, then one per
                measure. None from drivers that know nothing of Jacobians.

        Returns:
            Genotypes Float[B, D], and arrays with leading axis B.
        """


@runtime_checkable
class PriorEmitter(Protocol):
    """An emitter that draws from a prior with weights."""

    @property
    def takes_params(self) -> bool:
        """True: `emit` wants the problem's weights."""

    def emit(
        self, repertoire: Any, emitter_state: Any, key: jax.Array, params: Params = ()
    ) -> Emitted:
        """Candidates Float[B, D].

        Args:
            repertoire: The archive, or QDax's.
            emitter_state: The emitter's state.
            key: For this call alone.
            params: Weights of the problem.
        """
