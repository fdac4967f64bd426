"""A problem as an EvoJAX task, for EvoJAX's own trainer and solvers.

An episode is one step: the action is the latent, the reward its objective. `LatentPolicy` hands its
parameters over as the action, so that a solver searches latents directly. Inside our own search use
`EvoJaxEmitter`, which needs neither.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from evojax.policy.base import PolicyNetwork, PolicyState
from evojax.task.base import TaskState, VectorizedTask
from flax import struct

from qdgs_jax.problem import Params, Problem


@struct.dataclass
class LatentTaskState(TaskState):
    """State of an episode.

    Attributes:
        obs: Float[B, 1], zeros: there is nothing to see.
        key: UInt32[B, 2].
        descriptors: Float[B, M], measures of the last action.
    """

    obs: jax.Array
    key: jax.Array
    descriptors: jax.Array


class LatentTask(VectorizedTask):
    """The objective of a problem as the reward of one step."""

    def __init__(self, problem: Problem, params: Params) -> None:
        """Wrap a problem.

        Args:
            problem: With any state it has at the start; the task does not carry it on.
            params: Weights of the problem.
        """
        self.problem = problem
        self.params = params
        self.max_steps = 1
        self.obs_shape = (1,)
        self.act_shape = (problem.latent_dim,)
        self.test = False

    def reset(self, key: jax.Array) -> LatentTaskState:
        """States for keys UInt32[B, 2]."""
        batch = key.shape[0]
        return LatentTaskState(
            obs=jnp.zeros((batch, 1)),
            key=key,
            descriptors=jnp.zeros((batch, self.problem.num_measures)),
        )

    def step(
        self, state: LatentTaskState, action: jax.Array
    ) -> tuple[LatentTaskState, jax.Array, jax.Array]:
        """Score latents Float[B, D]: the state, rewards Float[B] and Int[B] ones (all done)."""
        evaluation = self.problem.evaluate(
            self.params, self.problem.init_state(), action, state.key[0]
        )
        after = state.replace(descriptors=evaluation.descriptors)
        return after, evaluation.fitnesses, jnp.ones(action.shape[0], jnp.int32)


class LatentPolicy(PolicyNetwork):
    """A policy whose parameters are its action."""

    def __init__(self, latent_dim: int) -> None:
        """Act with latents of a length."""
        self.num_params = latent_dim

    def get_actions(
        self, t_states: TaskState, params: jax.Array, p_states: PolicyState
    ) -> tuple[jax.Array, PolicyState]:
        """The parameters Float[B, D] as they are."""
        return params, p_states
