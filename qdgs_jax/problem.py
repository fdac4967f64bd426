"""What a search optimises: latents in, objective and measures out.

A `Problem` keeps its weights apart from its code, so that a compiled search takes them as arguments
instead of capturing them as constants, and may carry a small state through the search (the faces
domain remembers embeddings it has seen). Objectives are maximised.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax

Params = Any  # pytree of arrays: the weights of a problem's networks, or ()
ProblemState = Any  # pytree of arrays carried through a search, or ()


class Evaluation(NamedTuple):
    """Scores of a batch of latents.

    Attributes:
        fitnesses: Float[B], the objective, maximised.
        descriptors: Float[B, M], the measures.
        extra: further arrays with leading axis B, for `Problem.observe`, for emitters (QDax's
            "transitions") and for archives that keep extra scores.
    """

    fitnesses: jax.Array
    descriptors: jax.Array
    extra: Mapping[str, jax.Array] = {}


@runtime_checkable
class Problem(Protocol):
    """A batch of latents is scored by pure functions of (params, state, latents, key)."""

    @property
    def latent_dim(self) -> int:
        """Length D of a latent."""

    @property
    def num_measures(self) -> int:
        """Number M of measures."""

    def init_state(self) -> ProblemState:
        """State at the start of a search."""

    def evaluate(
        self, params: Params, state: ProblemState, latents: jax.Array, key: jax.Array
    ) -> Evaluation:
        """Score latents Float[B, D]."""

    def evaluate_with_jacobian(
        self, params: Params, state: ProblemState, latents: jax.Array, key: jax.Array
    ) -> tuple[Evaluation, jax.Array]:
        """Score latents Float[B, D] and differentiate: also the Jacobian Float[B, 1 + M, D].

        Row 0 is the gradient of the objective, row 1 + j that of measure j.
        """

    def observe(self, state: ProblemState, evaluation: Evaluation, key: jax.Array) -> ProblemState:
        """State after an evaluation."""
