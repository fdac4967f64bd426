"""Random sampling from a prior: what a generator gives without any search.

The baseline of every figure at equal numbers of evaluations.
"""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar

import jax
from qdax.core.emitters.emitter import Emitter, EmitterState

from qdgs_jax.emitters import checks
from qdgs_jax.emitters.protocol import Prior
from qdgs_jax.problem import Params


@dataclasses.dataclass(frozen=True)
class RandomEmitter(Emitter):
    """Draw every batch afresh.

    Attributes:
        batch: Candidates B per step.
        latent_dim: Length D of a latent.
        prior: (params, key, n) -> latents Float[n, D]; the standard normal by default.
    """

    takes_params: ClassVar[bool] = True

    batch: int
    latent_dim: int
    prior: Prior | None = None

    def __post_init__(self) -> None:
        checks.check_positive(batch=self.batch, latent_dim=self.latent_dim)

    @property
    def batch_size(self) -> int:
        """Candidates per `emit`."""
        return self.batch

    def emit(
        self,
        repertoire: Any,
        emitter_state: EmitterState | None,
        key: jax.Array,
        params: Params = (),
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        """Latents Float[B, D] from the prior, whose weights are in `params`."""
        if self.prior is None:
            return jax.random.normal(key, (self.batch, self.latent_dim)), {}
        return self.prior(params, key, self.batch), {}
