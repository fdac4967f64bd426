"""Margin heads of face recognition: AdaFace, ArcFace and CosFace, by a parameter of one module.

A head compares embeddings with one direction per identity and makes the right identity harder to
reach by a margin: of the angle (ArcFace, Deng et al. 2019, arXiv:1801.07698), of its cosine
(CosFace, Wang et al. 2018, arXiv:1801.09414), or of both, by image quality as the embedding's norm
tells it (AdaFace, Kim et al. 2022, arXiv:2204.00964, equations 9 to 12). Only the right identity's
logit is changed, so a batch needs B angles, not B x C of them.

The classes' directions are a matrix [D, C], C padded to a multiple of `shards`: with 85,000
identities and their momenta it is most of the memory of a training. `head_sharding` cuts it over an
axis of a mesh; logits [B, C] are then cut the same way, and the loss below needs no logits of
another device, only sums and maxima over them.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Literal, get_args

import jax
import jax.numpy as jnp
from flax import nnx
from jax import lax
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from qdgs_jax.models.variables import Buffer

HeadKind = Literal["adaface", "arcface", "cosface"]
MARGINS: Mapping[str, float] = {"adaface": 0.4, "arcface": 0.5, "cosface": 0.4}
EPSILONS: Mapping[str, float] = {"adaface": 1e-3, "arcface": 1e-4, "cosface": 1e-4}
NORM_RANGE = (0.001, 100.0)  # AdaFace reads norms beyond as these
START = (20.0, 100.0)  # mean and deviation of norms before the first batch


@dataclasses.dataclass(frozen=True)
class HeadConfig:
    """Settings of a head.

    Attributes:
        embed_dim: length D of the embeddings.
        num_classes: identities C.
        kind: "adaface", "arcface" or "cosface".
        margin: in radians (ArcFace), of the cosine (CosFace) or both (AdaFace); None takes the
            published 0.4, 0.5 for ArcFace.
        scale: of the logits, s.
        h: AdaFace's concentration: norms 1 / h deviations from their mean get the whole margin.
        t_alpha: AdaFace's weight of a batch in the running mean and deviation of norms, in (0, 1].
        shards: devices that the classes can be cut over; C is padded to a multiple of it.
    """

    embed_dim: int
    num_classes: int
    kind: HeadKind = "adaface"
    margin: float | None = None
    scale: float = 64.0
    h: float = 0.333
    t_alpha: float = 0.01
    shards: int = 1

    def __post_init__(self) -> None:
        if self.kind not in get_args(HeadKind):
            raise ValueError(f"kind is {self.kind!r}: give one of {get_args(HeadKind)}.")
        if min(self.embed_dim, self.num_classes, self.shards) < 1:
            raise ValueError(
                f"embed_dim {self.embed_dim}, num_classes {self.num_classes} and shards "
                f"{self.shards}: give positive numbers."
            )
        if self.margin is not None and not 0.0 <= self.margin < math.pi:
            raise ValueError(f"margin is {self.margin}: give one in [0, pi), e.g. 0.4.")
        if not (self.scale > 0.0 and self.h > 0.0 and 0.0 < self.t_alpha <= 1.0):
            raise ValueError(
                f"scale {self.scale}, h {self.h} and t_alpha {self.t_alpha}: give positive "
                "numbers, t_alpha at most 1, e.g. 64, 0.333 and 0.01."
            )

    @property
    def padded_classes(self) -> int:
        """Columns of the matrix: classes, and those that only fill the last shard."""
        return -(-self.num_classes // self.shards) * self.shards


class MarginHead(nnx.Module):
    """Embeddings and labels to logits with a margin.

    Parameters are `kernel` [D, C'], whose columns count by their direction alone, C' classes with
    padding; AdaFace's `norm_mean` and `norm_deviation`, Float[], are buffers that each call moves.

    Args:
        cfg: settings.
        rngs: initial directions come from the stream `params`, evenly over the sphere's cube.
    """

    def __init__(self, cfg: HeadConfig, *, rngs: nnx.Rngs) -> None:
        self.cfg = cfg
        shape = (cfg.embed_dim, cfg.padded_classes)
        kernel = jax.random.uniform(rngs.params(), shape, minval=-1.0, maxval=1.0)
        self.kernel = nnx.Param(_unit_columns(kernel))
        if cfg.kind == "adaface":
            self.norm_mean = Buffer(jnp.asarray(START[0]))
            self.norm_deviation = Buffer(jnp.asarray(START[1]))

    def __call__(self, embeddings: jax.Array, norms: jax.Array, labels: jax.Array) -> jax.Array:
        """Logits of a batch of training; AdaFace's running statistics take the batch in first.

        Args:
            embeddings: Float[B, D] of unit length.
            norms: Float[B, 1] before that; read by AdaFace alone, and without a gradient.
            labels: Int[B] in [0, C).

        Returns:
            Float[B, C'] in the kernel's type; columns that only fill a shard are -inf. A label
            beyond C gets no margin and no target, as inside `jit` nobody can raise.

        Raises:
            ValueError: shapes do not fit, or AdaFace is given a single row, which has no deviation.
        """
        cfg, kernel = self.cfg, self.kernel[...]
        self._check(embeddings.shape, norms.shape, labels.shape)
        limit = 1.0 - EPSILONS[cfg.kind]
        # Accelerators would round the factors; at a scale of 64 that moves logits by quarters.
        cosines = jnp.matmul(
            embeddings.astype(kernel.dtype), _unit_columns(kernel), precision=lax.Precision.HIGHEST
        )
        cosines = jnp.clip(cosines, -limit, limit)
        classes = jnp.arange(cfg.padded_classes)
        right = classes == labels[:, None]
        # A masked sum instead of a gather: each device looks at its own columns.
        target = jnp.sum(jnp.where(right, cosines, 0.0), axis=1, keepdims=True)
        angle, shift = self._margins(norms.astype(kernel.dtype))
        logits = cfg.scale * jnp.where(right, self._moved(target, angle) - shift, cosines)
        if cfg.padded_classes == cfg.num_classes:
            return logits
        return jnp.where(classes < cfg.num_classes, logits, -jnp.inf)

    def _check(
        self, embeddings: tuple[int, ...], norms: tuple[int, ...], labels: tuple[int, ...]
    ) -> None:
        batch, least = embeddings[:1], 2 if self.cfg.kind == "adaface" else 1
        fits = (embeddings, norms, labels) == ((*batch, self.cfg.embed_dim), (*batch, 1), batch)
        if not fits or batch[0] < least:
            raise ValueError(
                f"embeddings {embeddings}, norms {norms} and labels {labels}: pass "
                f"[B, {self.cfg.embed_dim}], [B, 1] and [B] with B at least {least}."
            )

    def _margins(self, norms: jax.Array) -> tuple[jax.Array | float, jax.Array | float]:
        """What is added to the angle and taken from the cosine of the right class."""
        cfg = self.cfg
        margin = MARGINS[cfg.kind] if cfg.margin is None else cfg.margin
        if cfg.kind == "arcface":
            return margin, 0.0
        if cfg.kind == "cosface":
            return 0.0, margin
        norms = lax.stop_gradient(jnp.clip(norms, *NORM_RANGE))
        mean, deviation = self.norm_mean[...], self.norm_deviation[...]
        mean = cfg.t_alpha * norms.mean() + (1.0 - cfg.t_alpha) * mean
        deviation = cfg.t_alpha * norms.std(ddof=1) + (1.0 - cfg.t_alpha) * deviation
        self.norm_mean[...], self.norm_deviation[...] = mean, deviation
        quality = cfg.h * (norms - mean) / (deviation + EPSILONS["adaface"])
        quality = jnp.clip(quality, -1.0, 1.0)
        return -margin * quality, margin + margin * quality

    def _moved(self, cosine: jax.Array, angle: jax.Array | float) -> jax.Array:
        """The cosine after its angle grew, which stays off 0 and pi."""
        if self.cfg.kind == "cosface":
            return cosine
        epsilon = EPSILONS[self.cfg.kind]
        return jnp.cos(jnp.clip(jnp.arccos(cosine) + angle, epsilon, math.pi - epsilon))


def cross_entropy(logits: jax.Array, labels: jax.Array) -> jax.Array:
    """Mean cross entropy, Float[], of logits Float[B, C'] and labels Int[B].

    The right logit is a masked sum, so that logits which are cut over devices stay there.
    """
    right = jnp.arange(logits.shape[1]) == labels[:, None]
    chosen = jnp.sum(jnp.where(right, logits, 0.0), axis=1)
    return jnp.mean(jax.nn.logsumexp(logits, axis=1) - chosen)


def head_sharding(head: MarginHead, mesh: Mesh, axis: str) -> nnx.State:
    """Where each variable of a head lies when its classes are cut over an axis of a mesh.

    Args:
        head: the head, or its abstract shape from `nnx.eval_shape`; `cfg.shards` must be a multiple
            of the axis' size.
        mesh: devices, with automatic axes.
        axis: name of one of its axes.

    Returns:
        A `NamedSharding` for each variable, for `jax.device_put(nnx.state(head), ...)` or a jitted
        function's `in_shardings` and `out_shardings`. An optimiser's momenta lie as the kernel.

    Raises:
        ValueError: the classes cannot be cut into equal parts.
    """
    parts = mesh.shape[axis]
    if head.cfg.padded_classes % parts:
        raise ValueError(
            f"{head.cfg.padded_classes} columns cannot be cut into {parts} equal parts: make the "
            f"head with shards={parts}."
        )
    cut, everywhere = P(None, axis), P()  # type: ignore[no-untyped-call]
    kernel, whole = NamedSharding(mesh, cut), NamedSharding(mesh, everywhere)
    state = nnx.state(head)
    return jax.tree.map(lambda value: kernel if value.ndim == 2 else whole, state)


def _unit_columns(kernel: jax.Array) -> jax.Array:
    return kernel / jnp.linalg.norm(kernel, axis=0, keepdims=True)
