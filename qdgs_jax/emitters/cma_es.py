"""CMA-ES as pure functions over a batch of E independent strategies.

Every array leads with the emitter axis, so one program adapts all emitters. A large covariance is
factorised only when one is due, by a real branch instead of a select (`refresh`). Equations are
those of Hansen's tutorial (arXiv:1604.00772) with the squared-norm step-size rule; the separable
form is Ros & Hansen 2008 (sep-CMA-ES). Two factors of C are offered: "eigen", the tutorial's
symmetric C^(-1/2), and "cholesky" (Krause, Arbonès & Igel 2016, "CMA-ES with optimal covariance
update and storage complexity"), which samples from the same distribution, whitens the path by the
triangular factor and is an order of magnitude cheaper.

Products are computed in full float32: by default accelerators round the factors (to TF32 or
bfloat16), which ruins a covariance.

pyribs' variant of the update (the path is not divided by sigma, the rank-one term is weighted by
the square of its rate) is kept as `variant="pyribs"` for comparison; see docs/algorithms.md.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax.struct import PyTreeNode
from jax.custom_batching import custom_vmap

from qdgs_jax.emitters.space import HIGHEST

Array = jax.Array | np.ndarray

_MIN_SPREAD = 1e-11
_NEVER = -(2**30)  # in `refreshed_at`: the factor does not belong to C
_SMALL_DIM = 16  # up to here a Cholesky factor costs less than asking whether it is due


@dataclasses.dataclass(frozen=True)
class CMAConfig:
    """Settings shared by all strategies of a batch.

    Attributes:
        dim: Number N of searched parameters.
        batch: Samples B per strategy and generation (the literature's lambda).
        sigma0: Step size at the start and after a restart.
        form: "full" covariance matrix, or "separable": its diagonal, O(N) in time and memory.
        factor: How a full matrix is factorised.
        variant: "textbook", or "pyribs" for the published quality-diversity code's update.
    """

    dim: int
    batch: int
    sigma0: float
    form: Literal["full", "separable"] = "full"
    factor: Literal["eigen", "cholesky"] = "cholesky"
    variant: Literal["textbook", "pyribs"] = "textbook"

    def __post_init__(self) -> None:
        for name in ("dim", "batch", "sigma0"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} is {getattr(self, name)}: give a positive number.")
        for name, allowed in (
            ("form", ("full", "separable")),
            ("factor", ("eigen", "cholesky")),
            ("variant", ("textbook", "pyribs")),
        ):
            if getattr(self, name) not in allowed:
                raise ValueError(f"{name} is {getattr(self, name)!r}: choose one of {allowed}.")

    @property
    def num_parents(self) -> int:
        """Parents under the "mu" rule: the better half, at least one."""
        return max(1, self.batch // 2)

    @property
    def always_fresh(self) -> bool:
        """Whether the factor follows every update, which small matrices can afford."""
        return self.factor == "cholesky" and self.dim <= _SMALL_DIM

    @property
    def refresh_gap(self) -> float:
        """Evaluations between two factorisations: Hansen's lambda / (2 N (c1 + cmu))."""
        rates = learning_rates(self, np.array([self.num_parents]))
        return 0.5 * self.batch / (self.dim * float(rates.c1[0] + rates.cmu[0]))


class CMAState(PyTreeNode):  # type: ignore[no-untyped-call]
    """E strategies.

    Attributes:
        mean: Float[E, N].
        sigma: Float[E], step size.
        C: Float[E, N, N], or the diagonal Float[E, N] of the separable form; see `covariance`.
        pc: Float[E, N], path of the mean (rank-one update).
        ps: Float[E, N], whitened path of the mean (step-size control).
        evaluations: Int[E], samples seen since the last restart.
        factor: Float[E, N, N], `factor.T @ factor` is C as of the last refresh; Float[E, 0] if
            separable. Upper triangular for "cholesky": this way round it lies in memory as LAPACK
            leaves and takes it.
        scale: Float[E, N], square roots of C's eigenvalues ("eigen"), the diagonal of the
            triangular factor ("cholesky"), or the square roots of C ("separable"). Infinite if C
            could not be factorised, which stops the strategy.
        refreshed_at: Int[E], `evaluations` at the last refresh.
    """

    mean: jax.Array
    sigma: jax.Array
    C: jax.Array
    pc: jax.Array
    ps: jax.Array
    evaluations: jax.Array
    factor: jax.Array
    scale: jax.Array
    refreshed_at: jax.Array


class Rates(NamedTuple):
    """Recombination weights Float[E, B] (zero beyond the parents) and learning rates Float[E]."""

    weights: Array
    mueff: Array
    cc: Array
    cs: Array
    c1: Array
    cmu: Array
    damps: Array


def learning_rates(config: CMAConfig, num_parents: Array) -> Rates:
    """Rates for `num_parents` Int[E] parents (tutorial, eqs. 49 to 58; Ros & Hansen 2008, sec. 3).

    No parents give zero weights; the rates are then those of one parent and mean nothing. A NumPy
    array gives NumPy arrays, constants of the compiled program.
    """
    xp: Any = jnp if isinstance(num_parents, jax.Array) else np
    N = config.dim
    rank = xp.arange(1, config.batch + 1)
    mu = xp.maximum(num_parents, 1)[:, None]
    raw = xp.where(rank <= mu, xp.log(mu + 0.5) - xp.log(rank), 0.0)
    weights = raw / raw.sum(-1, keepdims=True)
    mueff = 1 / (weights**2).sum(-1)
    cs = (mueff + 2) / (N + mueff + 5)
    damps = 1 + 2 * xp.maximum(0, xp.sqrt(xp.maximum(mueff - 1, 0) / (N + 1)) - 1) + cs
    c1 = 2 / ((N + 1.3) ** 2 + mueff)
    gain = xp.maximum(mueff - 2 + 1 / mueff, 0)
    if config.form == "full":
        cc = (4 + mueff / N) / (N + 4 + 2 * mueff / N)
        cmu = 2 * gain / ((N + 2) ** 2 + mueff)
    else:
        root = math.sqrt(N)
        cc = (1 + 1 / N + mueff / N) / (root + 1 / N + 2 * mueff / N)
        c1 = c1 / (N + 2 * root + mueff / N)
        cmu = gain / (N + 4 * root + mueff / 2)
    weights = xp.where(num_parents[:, None] > 0, weights, 0.0)
    return Rates(weights, mueff, cc, cs, c1, xp.minimum(1 - c1, cmu), damps)


def init(config: CMAConfig, mean: jax.Array) -> CMAState:
    """Strategies at rest around `mean` Float[E, N]: step size sigma0, C the identity.

    Raises:
        ValueError: If `mean` is not Float[E, N].
    """
    if mean.ndim != 2 or mean.shape[1] != config.dim:
        raise ValueError(f"mean has shape {mean.shape}: give Float[E, {config.dim}].")
    E, N = mean.shape
    zeros, ones = jnp.zeros_like(mean), jnp.ones_like(mean)
    eye = jnp.broadcast_to(jnp.eye(N, dtype=mean.dtype), (E, N, N))
    full = config.form == "full"
    return CMAState(
        mean=mean,
        sigma=jnp.full(E, config.sigma0, mean.dtype),
        C=eye if full else ones,
        pc=zeros,
        ps=zeros,
        evaluations=jnp.zeros(E, jnp.int32),
        factor=eye if full else zeros[:, :0],
        scale=ones,
        refreshed_at=jnp.zeros(E, jnp.int32),
    )


def reset(config: CMAConfig, state: CMAState, where: jax.Array, mean: jax.Array) -> CMAState:
    """Restart the strategies in `where` Bool[E] around `mean` Float[E, N].

    A large C stays where it is, see `covariance`, and its factor follows with the next `refresh`,
    which is due now: selecting them here would move all of them through memory in every step.
    """
    restarted = _select(where, init(config, mean), state)
    if config.form == "full" and not config.always_fresh:
        due = jnp.where(where, _NEVER, state.refreshed_at)
        restarted = restarted.replace(C=state.C, factor=state.factor, refreshed_at=due)
    return restarted


def covariance(config: CMAConfig, C: jax.Array, evaluations: jax.Array) -> jax.Array:
    """C as in a state with these `evaluations`; the identity until the first `update`."""
    if config.form == "separable" or config.always_fresh:
        return C
    return jnp.where((evaluations == 0)[:, None, None], jnp.eye(config.dim, dtype=C.dtype), C)


def _select(where: jax.Array, new: CMAState, old: CMAState) -> CMAState:
    """Take `new` for the strategies in `where` Bool[E], `old` for the others."""

    def choose(a: jax.Array, b: jax.Array) -> jax.Array:
        return jnp.where(where.reshape((-1,) + (1,) * (b.ndim - 1)), a, b)

    selected: CMAState = jax.tree.map(choose, new, old)
    return selected


def sample(config: CMAConfig, state: CMAState, key: jax.Array) -> jax.Array:
    """Draw Float[E, B, N] from N(mean, sigma^2 C), with C as of the last refresh."""
    E, N = state.mean.shape
    noise = jax.random.normal(key, (E, config.batch, N), state.mean.dtype)
    if config.form == "full":
        steps = jnp.matmul(noise, state.factor, precision=HIGHEST)
    else:
        steps = noise * state.scale[:, None]
    return state.mean[:, None] + state.sigma[:, None, None] * steps


def update(
    config: CMAConfig, state: CMAState, ranked: jax.Array, num_parents: Array
) -> tuple[CMAState, Rates]:
    """Adapt mean, step size and covariance to a ranked generation.

    Args:
        config: Settings.
        state: E strategies.
        ranked: Float[E, P, N], samples with the best first; P between the largest number of parents
            and B (the worse samples may be left away).
        num_parents: Int[E] in [0, P]; a NumPy array where it never changes. A strategy without
            parents only counts the evaluations.

    Returns:
        The new state, and the rates with weights Float[E, P] over the ranked samples.
    """
    N, P = config.dim, ranked.shape[1]
    state = state.replace(C=covariance(config, state.C, state.evaluations))
    rates = learning_rates(config, num_parents)
    rates = Rates(*(jnp.asarray(rate, ranked.dtype) for rate in rates))
    rates = rates._replace(weights=rates.weights[:, :P])
    _, mueff, cc, cs, c1, cmu, damps = (r[:, None] if r.ndim == 1 else r for r in rates)
    sigma = state.sigma[:, None]
    evaluations = state.evaluations + config.batch

    steps = (ranked - state.mean[:, None]) / sigma[..., None]
    y = recombine(rates.weights, steps)
    ps = (1 - cs) * state.ps + jnp.sqrt(cs * (2 - cs) * mueff) * _whiten(config, state, y)
    norm2 = (ps**2).sum(-1, keepdims=True) / N
    generation = (evaluations // config.batch)[:, None]
    hsig = norm2 / (1 - (1 - cs) ** (2 * generation)) < 2 + 4 / (N + 1)

    pyribs = config.variant == "pyribs"
    pc_step = y * sigma if pyribs else y
    pc = (1 - cc) * state.pc + hsig * jnp.sqrt(cc * (2 - cc) * mueff) * pc_step
    decay = 1 - c1 * (1 - (1 - hsig) * cc * (2 - cc)) - cmu
    rank_one = c1**2 if pyribs else c1
    if config.form == "full":
        # One product for both terms: the path is one more direction beside the parents'.
        directions = jnp.concatenate([steps, pc[:, None]], axis=1)
        strengths = jnp.concatenate([cmu * rates.weights, rank_one], axis=1)
        scaled = jnp.sqrt(strengths)[..., None] * directions
        learnt = jnp.einsum("epi,epj->eij", scaled, scaled, precision=HIGHEST)
        C = decay[..., None] * state.C + learnt
    else:
        rank_mu = recombine(rates.weights, steps**2)
        C = decay * state.C + rank_one * pc**2 + cmu * rank_mu
    growth = jnp.exp(jnp.minimum(1, cs / damps * (norm2 - 1) / 2))[:, 0]

    moved = state.replace(
        mean=state.mean + sigma * y,
        sigma=state.sigma * growth,
        C=C,
        pc=pc,
        ps=ps,
        scale=state.scale if config.form == "full" else jnp.sqrt(C),
    )
    if isinstance(num_parents, jax.Array):
        moved = _select(num_parents > 0, moved, state)
    return moved.replace(evaluations=evaluations), rates


def _join_emitters(function: Callable[..., Any]) -> Callable[..., Any]:
    """Let an axis over which `vmap` maps join the emitters', the leading axis of all arrays."""
    joined = custom_vmap(function)

    @joined.def_vmap
    def _merge_axes(axis_size: int, in_batched: list[bool], *args: jax.Array) -> tuple[Any, Any]:
        full = (
            a if batched else jnp.broadcast_to(a, (axis_size, *a.shape))
            for a, batched in zip(args, in_batched, strict=True)
        )
        out = joined(*(a.reshape(-1, *a.shape[2:]) for a in full))
        split = jax.tree.map(lambda a: a.reshape(axis_size, -1, *a.shape[1:]), out)
        return split, jax.tree.map(lambda _: True, split)

    return joined


@_join_emitters
def recombine(weights: jax.Array, samples: jax.Array) -> jax.Array:
    """Weighted sums Float[E, N] of samples Float[E, P, N].

    Weights are the same for all seeds of a `vmap`, which would make one product of them with a
    transposed copy of the samples.
    """
    return jnp.einsum("ep,epn->en", weights, samples, precision=HIGHEST)


def _whiten(config: CMAConfig, state: CMAState, y: jax.Array) -> jax.Array:
    """Apply the inverse factor to y Float[E, N]."""
    if config.form == "separable":
        return y / state.scale
    if config.factor == "cholesky":
        solved = jax.scipy.linalg.solve_triangular(state.factor.mT, y[..., None], lower=True)
        return solved[..., 0]
    product = functools.partial(jnp.einsum, precision=HIGHEST)
    rotated = product("eij,ej->ei", state.factor, y) / state.scale  # B^T y
    return product("eji,ej->ei", state.factor, rotated / state.scale**2)  # B D^-1 B^T y


def refresh(config: CMAConfig, state: CMAState) -> CMAState:
    """Factorise the covariances if any is due, small ones always.

    When one strategy is due, all are refreshed: a batch costs one call whatever the number, and
    strategies that restarted at different times fall into step. Under `vmap` the mapped axis joins
    the emitters' instead of turning the branch into a select that pays for it every time.
    """
    if config.form == "separable":
        return state.replace(refreshed_at=state.evaluations)
    factorise = _eigen if config.factor == "eigen" else _cholesky
    if config.always_fresh:
        factor, scale = factorise(state.C, state.factor)
        return state.replace(factor=factor, scale=scale, refreshed_at=state.evaluations)
    due = state.evaluations > state.refreshed_at + config.refresh_gap

    @_join_emitters
    def branch(
        due: jax.Array, C: jax.Array, factor: jax.Array, scale: jax.Array, evaluations: jax.Array
    ) -> tuple[jax.Array, jax.Array, jax.Array]:
        def anew() -> tuple[jax.Array, jax.Array]:
            return factorise(covariance(config, C, evaluations), factor)

        any_due = jnp.any(due)
        renewed = jax.lax.cond(any_due, anew, lambda: (factor, scale))
        return *renewed, jnp.broadcast_to(any_due, due.shape)

    factor, scale, refreshed = branch(due, state.C, state.factor, state.scale, state.evaluations)
    return state.replace(
        factor=factor,
        scale=scale,
        refreshed_at=jnp.where(refreshed, state.evaluations, state.refreshed_at),
    )


def _eigen(C: jax.Array, factor: jax.Array) -> tuple[jax.Array, jax.Array]:
    values, vectors = jnp.linalg.eigh(C)
    # Rounding may turn the smallest eigenvalues of an ill-conditioned C negative.
    scale = jnp.sqrt(jnp.abs(values))
    return _keep_if_broken((vectors * scale[:, None]).mT, scale, factor)


def _cholesky(C: jax.Array, factor: jax.Array) -> tuple[jax.Array, jax.Array]:
    # C is symmetric; transposed, it lies in memory as LAPACK takes it.
    new = jax.lax.linalg.cholesky(C.mT, symmetrize_input=False)
    return _keep_if_broken(new.mT, jnp.diagonal(new, axis1=-2, axis2=-1), factor)


def _keep_if_broken(
    new: jax.Array, scale: jax.Array, old: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Take the new factor where it is finite, else the old one with an infinite scale."""
    # Whatever is not finite in a factor shows in its diagonal, or in the eigenvalues.
    sound = jnp.isfinite(scale).all(-1)
    return (
        jnp.where(sound[:, None, None], new, old),
        jnp.where(sound[:, None], scale, jnp.inf),
    )


def should_stop(config: CMAConfig, state: CMAState) -> jax.Array:
    """Bool[E]: the strategy is degenerate (ill-conditioned, collapsed or not finite).

    Rounding the entries of a full C moves its eigenvalues by eps times the largest: those below are
    noise, so that the condition number is bounded by 1 / eps. The eigenvalues of a separable C are
    its entries, each precise: the scales may differ by 1 / eps, in float32 Hansen's 1e14.
    """
    eps = float(np.finfo(state.C.dtype).eps)
    apart = 1 / math.sqrt(eps) if config.form == "full" else 1 / eps
    largest, smallest = state.scale.max(-1), state.scale.min(-1)
    ill = ~(largest <= apart * smallest) | ~(smallest > 0)  # also true for NaN
    collapsed = state.sigma * largest < _MIN_SPREAD
    broken = ~(jnp.isfinite(state.sigma) & jnp.isfinite(state.mean).all(-1) & jnp.isfinite(largest))
    return ill | collapsed | broken
