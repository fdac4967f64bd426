"""What a domain is made of: a generator, its weights and what a run file says of them.

A domain is a `Problem` whose latents are images. Weights are arguments of every function, so that
compiled programs take them as inputs; the attribute `params` is what belongs there.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Generic, Protocol, TypeVar, runtime_checkable

import jax
import jax.numpy as jnp
from flax import nnx
from flax.struct import PyTreeNode

from qdgs_jax.domains.scoring import Targets
from qdgs_jax.domains.spread import MeasureSpread
from qdgs_jax.problem import Problem

P = TypeVar("P")  # pytree of a generator's weights
Taken = TypeVar("Taken", contravariant=True)  # the same, where it is only taken
W = TypeVar("W")  # pytree of a domain's weights


class Generator(Protocol[Taken]):
    """A frozen image generator as pure functions of its weights.

    A generator that truncates holds the factor as a setting and applies it in `sample`.
    """

    @property
    def latent_dim(self) -> int:
        """Length D of a latent."""

    def decode(self, params: Taken, latents: jax.Array) -> jax.Array:
        """Images Float[B, H, W, 3] in [0, 1] of latents Float[B, D]."""

    def sample(self, params: Taken, key: jax.Array, count: int) -> jax.Array:
        """Latents Float[count, D] from the generator's prior."""


class LatentStatistics(PyTreeNode):  # type: ignore[no-untyped-call]
    """What a generator's latents are normalised with before they are searched.

    A search sees `(latent - mean) / std`; for StyleGAN2 these are the statistics of mapped codes.

    Attributes:
        mean: Float[D].
        std: Float[D], positive.
        norm_bound: Float[], the norm that normalised latents may have without a penalty: half of
            the prior's mean norm.
    """

    mean: jax.Array
    std: jax.Array
    norm_bound: jax.Array

    @classmethod
    def standard(
        cls, latent_dim: int, mean_norm: float | jax.Array | None = None
    ) -> LatentStatistics:
        """Latents as they are: mean 0, deviation 1.

        Args:
            latent_dim: D.
            mean_norm: of the prior's latents; None for that of the standard normal.
        """
        if mean_norm is None:
            # The mean of a chi distribution: sqrt(2) Gamma((D + 1) / 2) / Gamma(D / 2).
            log_ratio = math.lgamma((latent_dim + 1) / 2) - math.lgamma(latent_dim / 2)
            mean_norm = math.sqrt(2) * math.exp(log_ratio)
        bound = 0.5 * jnp.asarray(mean_norm, jnp.float32)
        return cls(jnp.zeros(latent_dim), jnp.ones(latent_dim), bound)

    def normalise(self, latents: jax.Array) -> jax.Array:
        """A generator's latents Float[B, D] as they are searched."""
        return (latents - self.mean) / self.std

    def restore(self, latents: jax.Array) -> jax.Array:
        """Searched latents Float[B, D] as the generator takes them."""
        return latents * self.std + self.mean


class DomainParams(PyTreeNode, Generic[P]):  # type: ignore[no-untyped-call]
    """Everything with numbers in it.

    Attributes:
        generator: the generator's weights.
        clip: weights of CLIP's image tower.
        targets: embedded prompts.
        statistics: of the generator's latents.
    """

    generator: P
    clip: nnx.State
    targets: Targets
    statistics: LatentStatistics


class Domain(Problem, Protocol[W]):
    """A `Problem` whose latents are a generator's images."""

    @property
    def params(self) -> W:
        """The weights that belong into the arguments."""

    def decode(self, params: W, latents: jax.Array) -> jax.Array:
        """Images Float[B, H, W, 3] in [0, 1] of latents Float[B, D]."""

    def pictures(self, params: W, latents: jax.Array) -> jax.Array:
        """Images UInt8[B, H, W, 3] of latents Float[B, D], rounded on the device."""

    def sample(self, params: W, key: jax.Array, count: int) -> jax.Array:
        """Latents Float[count, D] from the generator's prior."""

    def start_latents(self, params: W, key: jax.Array) -> jax.Array:
        """Good latents Float[n, D] for a search to start from."""

    def spread(self, params: W, key: jax.Array) -> tuple[MeasureSpread, ...]:
        """How far each measure reaches over the generator's own samples."""


class Texts(Protocol):
    """A prompt pair of a run file."""

    @property
    def positive(self) -> tuple[str, ...]:
        """Texts at the end of small values."""

    @property
    def negative(self) -> tuple[str, ...]:
        """Texts at the end of large values."""


class ObjectiveSettings(Texts, Protocol):
    """The table [objective]."""

    @property
    def norm_penalty(self) -> float:
        """Weight of the penalty on latents longer than the bound."""

    @property
    def uniqueness(self) -> float:
        """Weight of the reward for images unlike remembered ones."""


class DomainSettings(Protocol):
    """The table [domain], as far as all kinds share it."""

    @property
    def kind(self) -> str:
        """Key of the registry of domains."""

    @property
    def generator(self) -> str:
        """What the kind knows its generator by: weights, or "module:factory"."""

    @property
    def clip(self) -> str:
        """`embedded:NAME` or a folder."""

    @property
    def cutouts(self) -> int:
        """Random cutouts per image; 0 scores the whole image."""


@runtime_checkable
class ExternalSettings(DomainSettings, Protocol):
    """The table [domain] of a generator of the user's own."""

    @property
    def arguments(self) -> Mapping[str, object]:
        """Keyword arguments of the factory."""

    @property
    def folder(self) -> str | Path | None:
        """Where its module lies, if Python does not find it; None for the current folder."""


@runtime_checkable
class FacesSettings(DomainSettings, Protocol):
    """The table [domain] of a StyleGAN2."""

    @property
    def truncation(self) -> float:
        """Factor of the samples' distance from the average code."""


class SearchSettings(Protocol):
    """What is read of the table [search]."""

    @property
    def emitters(self) -> int:
        """Start latents that the search needs."""

    @property
    def start_batches(self) -> int:
        """Batches that start latents are looked for in."""

    @property
    def start_batch_size(self) -> int:
        """Latents per batch."""


class EvaluationSettings(Protocol):
    """The table [evaluation]; see docs/evaluation.md."""

    @property
    def batch(self) -> int:
        """Latents at a time; 0 for all at once."""

    @property
    def dtype(self) -> str:
        """Type of products: "auto", "float32" or "bfloat16"."""

    @property
    def precision(self) -> str:
        """Of products: "auto", "default", "high" or "highest"."""

    @property
    def remat(self) -> bool:
        """Whether activations are computed again for Jacobians."""


class RunSettings(Protocol):
    """What a domain reads of a run file."""

    @property
    def seed(self) -> int:
        """Root of all random streams."""

    @property
    def domain(self) -> DomainSettings:
        """Generator and CLIP."""

    @property
    def objective(self) -> ObjectiveSettings:
        """What a good image is."""

    @property
    def measures(self) -> Sequence[Texts]:
        """Axes of diversity."""

    @property
    def search(self) -> SearchSettings:
        """How much is sampled for start latents."""

    @property
    def evaluation(self) -> EvaluationSettings:
        """How images are computed and scored."""
