"""What a search refuses, in sentences of our own rather than JAX's."""

from __future__ import annotations

import difflib
import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from qdax.core.emitters.emitter import Emitter

from qdgs_jax.archive import Archive, GridArchive
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
    known = sorted(inspect.signature(GridArchive.create).parameters.keys() - {"genotype"})
    unknown = sorted(grid.keys() - set(known))
    if unknown:
        near = difflib.get_close_matches(unknown[0], known, 1)
        advice = f"did you mean {near[0]}?" if near else f"it has {', '.join(known)}."
        raise ValueError(f"a grid archive has no setting {unknown[0]!r}: {advice}")
    missing = {"dims", "ranges"} - grid.keys()
    if missing:
        raise ValueError(
            f"no {' and '.join(sorted(missing))} for the archive: give dims and ranges, or "
            "create_archive."
        )
    return functools.partial(GridArchive.create, **grid)


def check_measures(emitter: Emitter, num_measures: int) -> None:
    """Refuse an emitter that was set up for another number of measures.

    Raises:
        ValueError: It says both numbers.
    """
    for part in getattr(emitter, "emitters", (emitter,)):
        # The second is the name in QDax's emitters.
        for name in ("num_measures", "_num_descriptors"):
            own = getattr(part, name, num_measures)
            if own != num_measures:
                raise ValueError(
                    f"{type(part).__name__} is set up for {own} measures but the problem has "
                    f"{num_measures}: give both the same number."
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


def check_usable(state: SearchState) -> None:
    """Refuse a state whose memory another call took over.

    Raises:
        ValueError: It says what to go on with.
    """
    for leaf in jax.tree.leaves(state):
        concrete = isinstance(leaf, jax.Array) and not isinstance(leaf, jax.core.Tracer)
        if concrete and leaf.is_deleted():
            raise ValueError(
                "the state was given to `run` before, which took its memory over: go on with the "
                "state that `run` returned, or keep a copy, jax.tree.map(jnp.copy, state)."
            )
