"""Optimisers of the emitters' parents: Adam and plain ascent, batched over emitters.

A parent steps towards the weighted mean of its best branches, so the direction is an ascent
direction and not a gradient of a loss. Some emitters of a batch may skip a step (those without
parents) or start afresh (those that restart), which is why the step counter is kept per emitter and
why these few lines stand here instead of optax. Adam: Kingma & Ba 2015, arXiv:1412.6980, with the
bias corrections folded into the step size as in the last paragraph of section 2: epsilon is added
to the uncorrected root.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Literal

import jax
import jax.numpy as jnp
from flax.struct import PyTreeNode


class OptimizerState(PyTreeNode):  # type: ignore[no-untyped-call]
    """Moments of E optimisers.

    Attributes:
        count: Int[E], steps taken.
        m: Float[E, D], average direction (unused and empty, Float[E, 0], for plain ascent).
        v: Float[E, D], average squared direction (likewise).
    """

    count: jax.Array
    m: jax.Array
    v: jax.Array


@dataclasses.dataclass(frozen=True)
class Optimizer:
    """Moves parents along ascent directions.

    Attributes:
        kind: "adam", or "ascent" for `theta + step_size * direction`.
        step_size: Positive; Adam's learning rate.
        beta1: Decay of the first moment, in [0, 1).
        beta2: Decay of the second moment, in [0, 1).
        epsilon: Added to the root of the second moment.
        weight_decay: Coefficient of an L2 penalty on theta (Adam only).
    """

    kind: Literal["adam", "ascent"] = "adam"
    step_size: float = 1.0
    beta1: float = 0.9
    beta2: float = 0.999
    epsilon: float = 1e-8
    weight_decay: float = 0.0

    def __post_init__(self) -> None:
        if self.kind not in ("adam", "ascent"):
            raise ValueError(f"optimizer is {self.kind!r}: choose 'adam' or 'ascent'.")
        if not self.step_size > 0:
            raise ValueError(f"step_size is {self.step_size}: give a positive number.")
        for name in ("beta1", "beta2"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}: give a number in [0, 1).")

    def init(self, theta: jax.Array) -> OptimizerState:
        """Fresh state for parents Float[E, D]."""
        moments = jnp.zeros_like(theta if self.kind == "adam" else theta[:, :0])
        return OptimizerState(count=jnp.zeros(theta.shape[0], jnp.int32), m=moments, v=moments)

    def step(
        self, state: OptimizerState, theta: jax.Array, direction: jax.Array, active: jax.Array
    ) -> tuple[jax.Array, OptimizerState]:
        """Move the active parents.

        Args:
            state: Of the same E parents.
            theta: Float[E, D].
            direction: Float[E, D], where to go.
            active: Bool[E]; the others keep parent, moments and count.

        Returns:
            The parents Float[E, D] and the state after the step.
        """
        mask = active[:, None]
        if self.kind == "ascent":
            return jnp.where(mask, theta + self.step_size * direction, theta), state
        count = state.count + active
        gradient = self.weight_decay * theta - direction
        m = jnp.where(mask, self.beta1 * state.m + (1 - self.beta1) * gradient, state.m)
        v = jnp.where(mask, self.beta2 * state.v + (1 - self.beta2) * gradient**2, state.v)
        t = jnp.maximum(count, 1).astype(theta.dtype)  # 0 only where nothing has moved yet
        rate = self.step_size * jnp.sqrt(_one_minus(self.beta2, t)) / _one_minus(self.beta1, t)
        moved = theta - rate[:, None] * m / (jnp.sqrt(v) + self.epsilon)
        return jnp.where(mask, moved, theta), OptimizerState(count=count, m=m, v=v)

    def reset(self, state: OptimizerState, where: jax.Array) -> OptimizerState:
        """Fresh state for the emitters in `where` Bool[E]."""
        mask = where[:, None]
        return OptimizerState(
            count=jnp.where(where, 0, state.count),
            m=jnp.where(mask, 0, state.m),
            v=jnp.where(mask, 0, state.v),
        )


def _one_minus(beta: float, t: jax.Array) -> jax.Array:
    """1 - beta^t for t >= 1; in single precision 1 - 0.999 itself would be off by 3e-5."""
    return -jnp.expm1(t * math.log(beta)) if beta > 0 else jnp.ones_like(t)
