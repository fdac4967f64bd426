"""What a search refuses, in sentences of our own rather than JAX's."""

from __future__ import annotations

import functools
import inspect
import numbers
import operator
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from qdax.core.emitters.emitter import Emitter

from qdgs_jax.archive import Archive, GridArchive
from qdgs_jax.keywords import unknown_keyword
from qdgs_jax.problem import Params, Problem
from qdgs_jax.search_state import SearchState


def archive_maker(
    create_archive: Callable[[jax.Array], Archive] | None, grid: Mapping[str, Any]
) -> Callable[[jax.Array], Archive]:
    """What makes the archive: `create_archive`, or a `GridArchive` with the settings in `grid`.

    Raises:
        ValueError: If there are both, or settings are missing or unknown.
    """
    if create_archive is not None:
        if grid:
            raise ValueError(
                f"both create_archive and {sorted(grid)} are given: settings of the archive belong "
                "into create_archive."
            )
        return create_archive
    known = [
        name for name in inspect.signature(GridArchive.create).parameters if name != "genotype"
    ]
    unknown = [name for name in grid if name not in known]
    if unknown:
        raise unknown_keyword("a grid archive", unknown[0], known)
    missing = {"dims", "ranges"} - grid.keys()
    if missing:
        raise ValueError(
            f"no {' and '.join(sorted(missing))} for the archive: give dims and ranges, or "
            "create_archive."
        )
    return functools.partial(GridArchive.create, **grid)


def check_emitter(emitter: Emitter, problem: Problem) -> None:
    """Refuse what is no emitter, or one that was set up for other latents or measures.

    Raises:
        ValueError: It says what is wanted.
    """
    if isinstance(emitter, type) or not hasattr(emitter, "emit"):
        raise ValueError(
            f"emitter is {emitter!r:.60}: give an emitter, such as GaussianEmitter(64, 0.5), "
            "or what build_emitter(name, SearchConfig(), latent_dim, num_measures) makes."
        )
    for part in getattr(emitter, "emitters", (emitter,)):
        for name, what, wanted in (
            ("num_measures", "measures", problem.num_measures),
            ("_num_descriptors", "measures", problem.num_measures),  # of QDax's emitters
            ("latent_dim", "numbers a latent", problem.latent_dim),
        ):
            own = getattr(part, name, wanted)
            if own != wanted:
                grid = " (`from_function` counts dims and ranges, one for each measure)"
                hint = grid if what == "measures" else ""
                raise ValueError(
                    f"{type(part).__name__} is set up for {own} {what} but the problem has "
                    f"{wanted}: give both the same number{hint}."
                )


def check_archive(create_archive: Callable[[jax.Array], Archive], problem: Problem) -> None:
    """Refuse an archive over another number of measures than the problem has.

    Raises:
        ValueError: It names both.
    """
    archive = jax.eval_shape(create_archive, jnp.zeros(problem.latent_dim))
    if archive.centroids.shape[1] != problem.num_measures:
        raise ValueError(
            f"the archive has {archive.centroids.shape[1]} measures but the problem has "
            f"{problem.num_measures}: give one entry of dims and ranges per measure."
        )


def raw_key(key: Any) -> jax.Array:
    """Data of a key.

    Raises:
        ValueError: If it is no key, or one of another implementation than the default.
    """
    data = key
    if isinstance(key, jax.Array) and jnp.issubdtype(key.dtype, jax.dtypes.prng_key):
        data = jax.random.key_data(key)
    like = jax.eval_shape(lambda: jax.random.key_data(jax.random.key(0)))
    if (jnp.shape(data), jnp.result_type(data)) != (like.shape, like.dtype):
        raise ValueError(f"key is {key!r}: give jax.random.key(seed), of the default kind.")
    return jnp.asarray(data)


def whole(name: str, value: Any, least: int) -> int:
    """A setting as an int.

    Raises:
        ValueError: Unless it is a whole number of at least `least`.
    """
    try:
        number = operator.index(value)
    except (TypeError, jax.errors.ConcretizationTypeError):
        number = least - 1
    if number < least:
        raise ValueError(f"{name} is {value!r:.60}: give a whole number of at least {least}.")
    return number


def start_latents(genotypes: Any, latent_dim: int) -> jax.Array:
    """Start latents Float[n, D] in at least float32.

    Raises:
        ValueError: Unless they are numbers of that shape, n >= 1.
    """
    wanted = f"give start latents Float[n, {latent_dim}], n >= 1"
    try:
        latents = jnp.asarray(genotypes)
    except (TypeError, ValueError):
        raise ValueError(f"genotypes is {genotypes!r:.60}: {wanted}.") from None
    if latents.shape[1:] != (latent_dim,) or not len(latents):
        raise ValueError(f"genotypes has shape {latents.shape}: {wanted}.")
    if not jnp.issubdtype(latents.dtype, jnp.number) or jnp.iscomplexobj(latents):
        raise ValueError(f"genotypes has dtype {latents.dtype}: {wanted}.")
    return latents.astype(jnp.promote_types(latents.dtype, jnp.float32))


def weights_of(problem: Problem, params: Params | None, emitter_takes: bool) -> Params:
    """The weights to search with: those given, or the problem's own, or none.

    Args:
        problem: may have the attribute `params`, or say by `has_params` whether it takes any.
        params: what the caller gave.
        emitter_takes: whether the emitter is handed weights, too.

    Raises:
        ValueError: If there is a leaf that is no array, weights are missing, or nobody takes them.
    """
    if params is None:
        params = getattr(problem, "params", ())
    takes, given = getattr(problem, "has_params", None), bool(jax.tree.leaves(params))
    if takes and not given:
        raise ValueError(
            "the function takes weights (has_params=True) but there are none: give params= to "
            "`init`, `run` and `update`."
        )
    if given and takes is False and not emitter_takes:
        raise ValueError(
            "params are given but the function takes latents alone: leave them out, or say "
            "has_params=True, with which it is called as function(params, latents)."
        )
    for path, leaf in jax.tree_util.tree_leaves_with_path(params):
        dtype = getattr(leaf, "dtype", None)
        known = isinstance(leaf, numbers.Number) if dtype is None else dtype.kind not in "OUS"
        if not known:
            raise ValueError(
                f"params{jax.tree_util.keystr(path)} is {leaf!r:.60}, a {type(leaf).__name__}: "
                "params is a pytree of arrays; what is no array belongs into the problem."
            )
    return params


def check_state(state: Any) -> None:
    """Refuse what is no state, and a state whose memory another call took over.

    Raises:
        ValueError: It says what to go on with.
    """
    if isinstance(state, tuple) and state and isinstance(state[0], SearchState):
        raise ValueError("state is the pair (state, metrics) that `run` returned: give its first.")
    if not isinstance(state, SearchState):
        raise ValueError(
            f"state is a {type(state).__name__}: give the SearchState that `init` or `run` "
            "returned; weights are given as params=."
        )
    for leaf in jax.tree.leaves(state):
        concrete = isinstance(leaf, jax.Array) and not isinstance(leaf, jax.core.Tracer)
        if concrete and leaf.is_deleted():
            raise ValueError(
                "the state was given to `run` before, which took its memory over: go on with the "
                "state that `run` returned, or keep a copy, jax.tree.map(jnp.copy, state)."
            )
