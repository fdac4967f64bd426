"""Optimisers of the emitters' parents: Adam by optax and plain ascent, batched over emitters.

A parent steps towards the weighted mean of its best branches, so the direction is an ascent
direction and not a gradient of a loss. Some emitters of a batch may skip a step (those without
parents) or start afresh (those that restart), so that each has an Adam of its own with its own
counter: optax's, mapped over the emitters.

Adam: Kingma & Ba 2015, arXiv:1412.6980, in the form of the last paragraph of section 2, as pyribs
has it: the corrections of the start are folded into the step size, and epsilon is added to the root
of the uncorrected second moment. optax corrects the moments themselves, in single precision, where
1 - 0.999 is off by 1e-5; here it is told that the start is long past, where its corrections are 1.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax.struct import PyTreeNode

_LONG_PAST = np.iinfo(np.int32).max  # steps, after which optax counts no further


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
            if not 0 <= np.float32(getattr(self, name)) < 1:
                raise ValueError(
                    f"{name} is {getattr(self, name)}: give a number in [0, 1) of float32."
                )

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
        if self.kind == "ascent":
            moved = theta + self.step_size * direction
            return jnp.where(active[:, None], moved, theta), state
        moved, stepped = jax.vmap(self._adam)(state, theta, direction)
        chosen: tuple[jax.Array, OptimizerState] = jax.tree.map(
            lambda new, old: jnp.where(_rows(active, new), new, old),
            (moved, stepped),
            (theta, state),
        )
        return chosen

    def _adam(
        self, state: OptimizerState, theta: jax.Array, direction: jax.Array
    ) -> tuple[jax.Array, OptimizerState]:
        """Step one parent Float[D]."""
        adam = optax.scale_by_adam(self.beta1, self.beta2, self.epsilon)
        descent, moments = adam.update(
            self.weight_decay * theta - direction,
            optax.ScaleByAdamState(jnp.int32(_LONG_PAST), state.m, state.v),
        )
        count = state.count + 1
        t = count.astype(theta.dtype)
        rate = self.step_size * jnp.sqrt(_one_minus(self.beta2, t)) / _one_minus(self.beta1, t)
        return theta - rate * descent, OptimizerState(count=count, m=moments.mu, v=moments.nu)

    def reset(self, state: OptimizerState, where: jax.Array) -> OptimizerState:
        """Fresh state for the emitters in `where` Bool[E]."""
        fresh: OptimizerState = jax.tree.map(
            lambda leaf: jnp.where(_rows(where, leaf), jnp.zeros_like(leaf), leaf), state
        )
        return fresh


def _rows(where: jax.Array, like: jax.Array) -> jax.Array:
    """Bool[E], shaped to select rows of `like`."""
    return where.reshape(-1, *[1] * (like.ndim - 1))


def _one_minus(beta: float, t: jax.Array) -> jax.Array:
    """1 - beta^t for t >= 1; in single precision 1 - 0.999 itself would be off by 1e-5."""
    return -jnp.expm1(t * math.log(beta)) if beta > 0 else jnp.ones_like(t)
