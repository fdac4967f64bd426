"""Attention of several heads, whose channels lie side by side.

On TPUs, whose registers and matrix units are wider than the heads of published CLIPs, as many heads
as fill one are attended to at a time. On GPUs, whose libraries multiply matrices of eight by eight
numbers, tokens are added while heads are put apart, which moves them in any case.
"""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike

from qdgs_jax.models.backend import LANES, target_backend

EIGHTS = 8  # what a GPU's matrix units take sides to be a multiple of
UNSEEN = float(np.finfo(np.float32).min)  # score of a key that a query may not see


def attend(
    query: jax.Array, key: jax.Array, value: jax.Array, heads: int, mask: jax.Array | None
) -> jax.Array:
    """Attention of several heads, whose channels lie side by side: Float[B, T, W].

    On accelerators it has a reverse derivative of its own and no forward one (`jax.jvp`).

    Args:
        query: Float[B, T, W].
        key: Float[B, T, W].
        value: Float[B, T, W].
        heads: their number, a divisor of W.
        mask: Bool[B or 1, 1, T or 1, T], which keys a query may see, or None. One that may see
            none is given the mean of all values.
    """
    batch, length, width = query.shape
    narrow = width // heads
    together = LANES // narrow if LANES % narrow == 0 else 1
    if target_backend() == "tpu" and together > 1 and heads % together == 0:
        return _attend_side_by_side(query, key, value, narrow, mask)
    if target_backend() == "gpu":
        return attend_apart(query, key, value, mask, heads)
    query, key, value = (part.reshape(batch, length, heads, narrow) for part in (query, key, value))
    mixed = jax.nn.dot_product_attention(query, key, value, mask=mask)
    return mixed.reshape(batch, length, width)


def _attend_side_by_side(
    query: jax.Array, key: jax.Array, value: jax.Array, narrow: int, mask: jax.Array | None
) -> jax.Array:
    """`attend` for heads narrower than a TPU's registers, as many at a time as fill one."""
    parts = (jnp.split(part, query.shape[-1] // LANES, axis=-1) for part in (query, key, value))
    groups = zip(*parts, strict=True)
    return jnp.concatenate([attend_as_one(*group, mask, narrow) for group in groups], axis=-1)


def _own(channels: int, narrow: int, dtype: DTypeLike) -> jax.Array:
    """Which channels are a head's: Float[heads, 1, C] of zeros and ones.

    With the others' at zero products are larger, and no head's channels have to be moved into
    registers of their own.
    """
    heads = np.eye(channels // narrow).repeat(narrow, axis=1)
    return jnp.asarray(heads[:, None], dtype)


@functools.partial(jax.custom_vjp, nondiff_argnums=(4,))
def attend_as_one(
    query: jax.Array, key: jax.Array, value: jax.Array, mask: jax.Array | None, narrow: int
) -> jax.Array:
    """Attention of the heads of `narrow` channels each in Float[B, T, C], masked as by `attend`.

    It has a reverse derivative of its own and therefore no forward one (`jax.jvp`).
    """
    return _as_one_forward(query, key, value, mask, narrow)[0]


_Kept = tuple[jax.Array, jax.Array, jax.Array, jax.Array | None, jax.Array, jax.Array]


def _as_one_forward(
    query: jax.Array, key: jax.Array, value: jax.Array, mask: jax.Array | None, narrow: int
) -> tuple[jax.Array, _Kept]:
    own = _own(query.shape[-1], narrow, query.dtype)
    products = jnp.einsum("bhtc,bsc->bhts", query[:, None] * own, key)
    shares = _shares(products, mask, narrow, query.shape[1]).astype(query.dtype)
    mixed = jnp.sum(jnp.einsum("bhts,bsc->bhtc", shares, value) * own, axis=1)
    return mixed, (query, key, value, mask, shares, mixed)


def _as_one_backward(
    narrow: int, kept: _Kept, to_mixed: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array, None]:
    """Pull back Float[B, T, C].

    The mean of the shares' derivatives, which a softmax takes off, is that of the results' (Dao et
    al. 2022, arXiv:2205.14135, equation 4), so that it is known before them.
    """
    query, key, value, mask, shares, mixed = kept
    own = _own(query.shape[-1], narrow, query.dtype)
    to_each = to_mixed[:, None] * own
    to_value = jnp.einsum("bhtc,bhts->bsc", to_each, shares)
    to_shares = jnp.einsum("bhtc,bsc->bhts", to_each, value, preferred_element_type=jnp.float32)
    mean = jnp.sum(to_each.astype(jnp.float32) * mixed[:, None].astype(jnp.float32), axis=-1)
    to_scores = _to_scores(shares, to_shares, mean, mask, narrow)
    to_query = jnp.sum(jnp.einsum("bhts,bsc->bhtc", to_scores, key) * own, axis=1)
    to_key = jnp.einsum("bhts,bhtc->bsc", to_scores, query[:, None] * own)
    return to_query, to_key, to_value, None


attend_as_one.defvjp(_as_one_forward, _as_one_backward)


def _shares(products: jax.Array, mask: jax.Array | None, narrow: int, length: int) -> jax.Array:
    """Softmax of products of queries and keys, in float32.

    Args:
        products: Float[B, H, T, S].
        mask: as of `attend`.
        narrow: channels of a head.
        length: keys that there are; those beyond were added, and have no share.
    """
    scores = products.astype(jnp.float32) * narrow**-0.5
    if mask is not None:
        scores = jnp.where(mask, scores, UNSEEN)
    if length < scores.shape[-1]:
        scores = jnp.where(jnp.arange(scores.shape[-1]) < length, scores, -jnp.inf)
    return jax.nn.softmax(scores)


def _to_scores(
    shares: jax.Array, to_shares: jax.Array, mean: jax.Array, mask: jax.Array | None, narrow: int
) -> jax.Array:
    """Derivatives by products of queries and keys, of those by their softmax: Float[B, H, T, S].

    Args:
        shares: the softmax.
        to_shares: derivatives by it, float32.
        mean: theirs by shares, Float[B, H, T].
        mask: as of `attend`.
        narrow: channels of a head.
    """
    found = shares.astype(jnp.float32) * (to_shares - mean[..., None])
    if mask is not None:  # a query that may see nothing has equal shares of what it does not see
        found = jnp.where(mask, found, 0.0)
    return (found * narrow**-0.5).astype(shares.dtype)


def _apart(x: jax.Array, heads: int) -> jax.Array:
    """Heads' channels apart, and tokens of zeros up to a multiple of eight: Float[B, H, T', C]."""
    batch, length, width = x.shape
    split = x.reshape(batch, length, heads, width // heads).transpose(0, 2, 1, 3)
    return jnp.pad(split, ((0, 0), (0, 0), (0, -length % EIGHTS), (0, 0)))


def _joined(x: jax.Array, length: int) -> jax.Array:
    """The channels of Float[B, H, T', C] side by side, without the tokens that were added."""
    batch, heads, _, narrow = x.shape
    return x[:, :, :length].transpose(0, 2, 1, 3).reshape(batch, length, heads * narrow)


def _with_added(mask: jax.Array | None, length: int) -> jax.Array | None:
    """A mask that lets the queries that were added see, and all see the keys that were."""
    if mask is None:
        return None
    added = -length % EIGHTS
    queries = added if mask.shape[2] > 1 else 0
    return jnp.pad(mask, ((0, 0), (0, 0), (0, queries), (0, added)), constant_values=True)


@functools.partial(jax.custom_vjp, nondiff_argnums=(4,))
def attend_apart(
    query: jax.Array, key: jax.Array, value: jax.Array, mask: jax.Array | None, heads: int
) -> jax.Array:
    """`attend` by products for each head.

    It has a reverse derivative of its own and therefore no forward one (`jax.jvp`).
    """
    return _apart_forward(query, key, value, mask, heads)[0]


def _apart_forward(
    query: jax.Array, key: jax.Array, value: jax.Array, mask: jax.Array | None, heads: int
) -> tuple[jax.Array, _Kept]:
    length, width = query.shape[1:]
    query, key, value = (_apart(part, heads) for part in (query, key, value))
    mask = _with_added(mask, length)
    products = jnp.einsum("bhtc,bhsc->bhts", query, key, preferred_element_type=jnp.float32)
    shares = _shares(products, mask, width // heads, length).astype(query.dtype)
    mixed = _joined(jnp.einsum("bhts,bhsc->bhtc", shares, value), length)
    return mixed, (query, key, value, mask, shares, mixed)


def _apart_backward(
    heads: int, kept: _Kept, to_mixed: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array, None]:
    """Pull back Float[B, T, W]; the mean is known before, as in `_as_one_backward`."""
    query, key, value, mask, shares, mixed = kept
    batch, length, width = mixed.shape
    means = to_mixed.astype(jnp.float32) * mixed.astype(jnp.float32)
    means = means.reshape(batch, length, heads, -1).sum(axis=-1).transpose(0, 2, 1)
    means = jnp.pad(means, ((0, 0), (0, 0), (0, -length % EIGHTS)))
    to_each = _apart(to_mixed, heads)
    to_value = jnp.einsum("bhts,bhtc->bhsc", shares, to_each)
    to_shares = jnp.einsum("bhtc,bhsc->bhts", to_each, value, preferred_element_type=jnp.float32)
    to_scores = _to_scores(shares, to_shares, means, mask, width // heads)
    to_query = jnp.einsum("bhts,bhsc->bhtc", to_scores, key)
    to_key = jnp.einsum("bhts,bhtc->bhsc", to_scores, query)
    to_query, to_key, to_value = (_joined(x, length) for x in (to_query, to_key, to_value))
    return to_query, to_key, to_value, None


attend_apart.defvjp(_apart_forward, _apart_backward)
