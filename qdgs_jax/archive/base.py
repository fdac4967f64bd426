"""What all archives share: the best latent found in each cell of measure space.

Insertion is a handful of scatters whose cost grows with the batch and not with the cells, so that
a whole search stays on device inside one `jit`. One structure holds both views of an archive: the
*elites* (best fitness ever per cell, the paper's passive archive) and the *annealed thresholds*
that guide the emitters (Fontaine & Nikolaidis 2023, "Covariance Matrix Adaptation MAP-Annealing",
arXiv:2205.10752, Algorithm 2). The latents are stored once. Fitnesses are maximised.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, Self

import jax
import jax.numpy as jnp
import numpy as np
from qdax.core.containers.mapelites_repertoire import MapElitesRepertoire

from qdgs_jax.archive import checks
from qdgs_jax.archive.insertion import (
    AddInfo,
    append_cells,
    first_in_cell,
    judge,
    move_thresholds,
    per_group,
)
from qdgs_jax.archive.statistics import Statistics
from qdgs_jax.archive.storage import decode, empty_tables, encode, finite_rows
from qdgs_jax.one_program import one_program

# Pytree of arrays with leading axis B (candidates) or C (cells); mostly Float[B, D].
Genotypes = Any

# Marks fields that belong to the type of a pytree, as `flax.struct.field(pytree_node=False)` does.
STATIC = {"pytree_node": False}


class Cells(Statistics, MapElitesRepertoire):
    """QDax repertoire with thresholds: an archive, but for its way to the host (`exchange`).

    Subclasses say which cell a descriptor belongs to.

    Every array has the cells as its leading axis, which QDax's selectors rely on.

    Attributes:
        genotypes: Float[C, D] (or a pytree), the elites' latents; zero in empty cells. Precisions
            below float32 are stored as bits (see `storage`): read them through `latents`.
        fitnesses: Float[C, 1], the best fitness ever offered per cell; -inf in empty cells.
        descriptors: Float[C, M], the elites' measures as offered (not clipped).
        centroids: Float[C, M], centres of the cells.
        thresholds: Float[C], acceptance thresholds t_e.
        occupied_cells: Int[C], the occupied cells in the order of their discovery; the last entry
            holds the bitwise complement of their number until a cell takes its place.
        learning_rate: alpha in [0, 1]; 1 with `threshold_min` -inf is MAP-Elites.
        threshold_min: where thresholds start.
        qd_score_offset: subtracted from every fitness in the QD-score.
        dtype: name of the precision that latents are stored in.
    """

    genotypes: Genotypes
    fitnesses: jax.Array
    descriptors: jax.Array
    centroids: jax.Array
    thresholds: jax.Array
    occupied_cells: jax.Array
    learning_rate: float = dataclasses.field(metadata=STATIC)
    threshold_min: float = dataclasses.field(metadata=STATIC)
    qd_score_offset: float = dataclasses.field(metadata=STATIC)
    dtype: str = dataclasses.field(metadata=STATIC)

    @classmethod
    def _empty(
        cls,
        genotype: Genotypes,
        centroids: jax.Array,
        *,
        learning_rate: float,
        threshold_min: float,
        qd_score_offset: float,
        dtype: Any,
        extra_scores: Mapping[str, Any] | None,
        **settings: Any,
    ) -> Self:
        """Check the settings and build an archive without elites."""
        checks.check_thresholds(learning_rate, threshold_min, qd_score_offset)
        checks.check_precision(dtype)
        genotype, extra_scores = checks.as_example(genotype), checks.as_scores(extra_scores)
        # Without x64, arrays of float64 are of float32.
        name = jax.dtypes.canonicalize_dtype(dtype).name
        cells = centroids.shape[0], centroids.shape[1]
        return cls(
            centroids=jnp.asarray(centroids, jnp.float32),
            keys_extra_scores=tuple(extra_scores),
            **empty_tables(genotype, extra_scores, float(threshold_min), cells=cells, dtype=name),
            learning_rate=float(learning_rate),
            threshold_min=float(threshold_min),
            qd_score_offset=float(qd_score_offset),
            dtype=name,
            **settings,
        )

    def cell_of(self, descriptors: jax.Array) -> jax.Array:
        """Cells Int[B] of descriptors Float[B, M]; C for a row that is not finite.

        Measures beyond the ranges belong to the edge cells, however far they are.

        Raises:
            ValueError: If descriptors is none of these.
        """
        return self._cell_of(checks.as_descriptors(descriptors, self.centroids.shape[1]))

    @one_program()
    def _cell_of(self, descriptors: jax.Array) -> jax.Array:
        finite = jnp.all(jnp.isfinite(descriptors), axis=-1)
        return jnp.where(finite, self._locate(descriptors), self.num_cells)

    def _locate(self, descriptors: jax.Array) -> jax.Array:
        """Cells Int32[B] of descriptors Float[B, M]; any cell for a row that is not finite."""
        raise NotImplementedError("Archive is abstract: use GridArchive or CVTArchive.")

    @classmethod
    def init(
        cls,
        genotypes: Genotypes,
        fitnesses: jax.Array,
        descriptors: jax.Array,
        centroids: jax.Array | None = None,
        extra_scores: Mapping[str, Any] | None = None,
        keys_extra_scores: Sequence[str] = (),
        **settings: Any,
    ) -> Self:
        """Start as QDax does, with an archive that holds a first batch.

        Give QDax's `MAPElites` `repertoire_init=functools.partial(GridArchive.init, dims=...,
        ranges=...)`; the settings are those of `create`. A grid follows from them, so that its
        `centroids` may be None; others are refused.
        """
        kept = {k: v for k, v in (extra_scores or {}).items() if k in keys_extra_scores}
        genotype, example = jax.tree.map(lambda x: x[0], (genotypes, kept))
        archive = cls._create_around(genotype, centroids, extra_scores=example, **settings)
        return archive.add(genotypes, descriptors, fitnesses, kept)

    @classmethod
    def _create_around(
        cls, genotype: Genotypes, centroids: jax.Array | None, **settings: Any
    ) -> Self:
        """`create`, given the centroids that QDax wants."""
        raise NotImplementedError("Archive is abstract: use GridArchive or CVTArchive.")

    # Insertion

    def judge(self, descriptors: jax.Array, fitnesses: jax.Array, thresholds: jax.Array) -> AddInfo:
        """Recover afterwards what `add_with_info` said of candidates.

        QDax's own `MAPElites` adds a batch without reporting on it. An emitter that kept the
        thresholds from before the batch learns here what happened to its candidates.

        Args:
            descriptors: Float[B, M], of candidates whose latents are finite.
            fitnesses: Float[B] or Float[B, 1].
            thresholds: Float[C], `archive.thresholds` from before the insertion.
        """
        descriptors = checks.as_descriptors(descriptors, self.centroids.shape[1])
        fitnesses = checks.as_numbers("fitnesses", fitnesses).reshape(-1)
        return self._judge(descriptors, fitnesses, thresholds)

    @one_program()
    def _judge(
        self, descriptors: jax.Array, fitnesses: jax.Array, thresholds: jax.Array
    ) -> AddInfo:
        fitnesses = jnp.where(jnp.isfinite(fitnesses), fitnesses, -jnp.inf)
        return judge(self._cell_of(descriptors), fitnesses, thresholds, self.threshold_min)

    def add_with_info(
        self,
        genotypes: Genotypes,
        descriptors: jax.Array,
        fitnesses: jax.Array,
        extra_scores: Mapping[str, Any] | None = None,
    ) -> tuple[Self, AddInfo]:
        """Insert a batch.

        Elites: a fitness strictly better than the cell's elite replaces it, whatever the threshold.
        Annealing: a fitness above the cell's threshold is accepted, and moves the threshold as
        `insertion.move_thresholds` tells. The batch's order matters only between equals.

        Args:
            genotypes: Float[B, D]. The first of equals wins, and a cell's fields all come from one
                candidate. Those that are not finite in the precision of the archive are rejected.
            descriptors: Float[B, M]; beyond the ranges they belong to the edge cells. Rows that are
                not finite are rejected.
            fitnesses: Float[B] or Float[B, 1], maximised. Non-finite ones are rejected.
            extra_scores: further arrays with leading axis B, of which those named by
                `keys_extra_scores` are stored.

        Returns:
            The new archive and the `AddInfo` of the candidates.

        Raises:
            ValueError: If the shapes do not fit the archive.
        """
        descriptors = checks.as_numbers("descriptors", descriptors)
        fitnesses = checks.as_numbers("fitnesses", fitnesses)
        genotypes = checks.as_rows(genotypes, self.genotypes)
        kept = self._checked(genotypes, descriptors, fitnesses, extra_scores)
        return self._add(genotypes, descriptors, fitnesses, kept)

    @one_program()
    def _add(
        self,
        genotypes: Genotypes,
        descriptors: jax.Array,
        fitnesses: jax.Array,
        extra_scores: Mapping[str, Any],
    ) -> tuple[Self, AddInfo]:
        """`add_with_info` of arrays whose shapes fit."""
        descriptors = descriptors.astype(jnp.float32)  # a number may be finite in float64 alone
        fitnesses = fitnesses.reshape(-1).astype(jnp.float32)
        sound = self.storable(genotypes) & jnp.all(jnp.isfinite(descriptors), axis=-1)
        sound &= jnp.isfinite(fitnesses)
        tested = jnp.where(sound, fitnesses, -jnp.inf)
        return self._insert(genotypes, descriptors, tested, extra_scores)

    def storable(self, genotypes: Genotypes) -> jax.Array:
        """Say which latents are finite in the precision of the archive, Bool[B]."""
        return finite_rows(checks.as_rows(genotypes, self.genotypes), self.dtype)

    def insert(
        self,
        genotypes: Genotypes,
        descriptors: jax.Array,
        fitnesses: jax.Array,
        extra_scores: Mapping[str, Any] | None = None,
    ) -> tuple[Self, AddInfo]:
        """`add_with_info` of candidates that were tested already.

        Args:
            genotypes: Float[B, D].
            descriptors: Float[B, M].
            fitnesses: Float[B] or Float[B, 1], finite; -inf marks a candidate of which anything is
                not finite, or latents not `storable`: it is rejected.
            extra_scores: as in `add_with_info`.
        """
        kept = self._checked(genotypes, descriptors, fitnesses, extra_scores)
        return self._insert(genotypes, descriptors, fitnesses, kept)

    @one_program()
    @jax.named_scope("archive")
    def _insert(
        self,
        genotypes: Genotypes,
        descriptors: jax.Array,
        fitnesses: jax.Array,
        extra_scores: Mapping[str, Any],
    ) -> tuple[Self, AddInfo]:
        """`insert` of arrays whose shapes fit."""
        fitnesses = fitnesses.reshape(-1).astype(jnp.float32)
        info = judge(self._locate(descriptors), fitnesses, self.thresholds, self.threshold_min)
        return self._write(genotypes, descriptors, fitnesses, info, extra_scores), info

    def add(
        self,
        batch_of_genotypes: Genotypes,
        batch_of_descriptors: jax.Array,
        batch_of_fitnesses: jax.Array,
        batch_of_extra_scores: Mapping[str, Any] | None = None,
    ) -> Self:
        """`add_with_info` under QDax's name and signature, without the information."""
        return self.add_with_info(
            batch_of_genotypes, batch_of_descriptors, batch_of_fitnesses, batch_of_extra_scores
        )[0]

    def _checked(
        self,
        genotypes: Genotypes,
        descriptors: jax.Array,
        fitnesses: jax.Array,
        extra_scores: Mapping[str, Any] | None,
    ) -> dict[str, Any]:
        """The extra scores to store, once all shapes fit."""
        checks.check_batch(genotypes, descriptors, fitnesses, self.genotypes, self.centroids)
        batch = len(fitnesses)
        kept: dict[str, Any] = self.filter_extra_scores(checks.as_scores(extra_scores))
        stored = jax.tree.map(lambda x: (batch, *x.shape[1:]), self.extra_scores)
        offered = jax.tree.map(jnp.shape, kept)
        if stored != offered:
            raise ValueError(
                f"extra_scores has {offered} but {batch} fitnesses and the archive ask for "
                f"{stored}."
            )
        return kept

    def _write(
        self,
        genotypes: Genotypes,
        descriptors: jax.Array,
        fitnesses: jax.Array,
        info: AddInfo,
        extra_scores: Mapping[str, Any],
    ) -> Self:
        """Write a judged batch."""
        batch = fitnesses.shape[0]
        position = jnp.arange(batch, dtype=jnp.int32)
        threshold = self.thresholds.at[info.cell].get(mode="fill", fill_value=jnp.inf)
        current = self.fitnesses.at[info.cell, 0].get(mode="fill", fill_value=jnp.inf)
        # Leaving out candidates that change nothing also makes the first write depend on these
        # reads: unordered, they would cost a copy of the thresholds.
        changes = (info.status > 0) | (fitnesses > current)
        cell = jnp.where(changes, info.cell, self.num_cells)
        scratch, group = first_in_cell(self.thresholds, cell)

        best = per_group(group, fitnesses, -jnp.inf, "max")
        wins = (fitnesses == best) & (fitnesses > current)
        wins &= position == per_group(group, jnp.where(wins, position, batch), batch, "min")
        # Losers get distinct indices beyond the archive, which scatters drop.
        target = jnp.where(wins, cell, self.num_cells + position)

        def write(stored: jax.Array, offered: jax.Array) -> jax.Array:
            rows = jnp.asarray(offered, stored.dtype).reshape(batch, *stored.shape[1:])
            return stored.at[target].set(rows, mode="drop", unique_indices=True)

        def write_latents(stored: jax.Array, offered: jax.Array) -> jax.Array:
            return write(stored, encode(offered, stored.dtype, self.dtype))

        moved = move_thresholds(
            threshold,
            best,
            fitnesses,
            info.status > 0,
            group,
            learning_rate=self.learning_rate,
            threshold_min=self.threshold_min,
        )
        found = jnp.where(wins & (current == -jnp.inf), cell, self.num_cells)
        inserted: Self = self.replace(
            genotypes=jax.tree.map(write_latents, self.genotypes, genotypes),
            fitnesses=write(self.fitnesses, fitnesses),
            descriptors=write(self.descriptors, descriptors),
            extra_scores=jax.tree.map(write, self.extra_scores, extra_scores),
            thresholds=scratch.at[cell].set(moved, mode="drop"),
            occupied_cells=append_cells(self.occupied_cells, found),
        )
        return inserted

    # Reading

    def sample_elites(self, key: jax.Array, num_samples: int) -> Genotypes:
        """Latents of elites drawn uniformly with replacement, at a cost independent of the cells.

        Returns:
            Float[num_samples, D] in at least float32, whatever precision they are stored in. Zeros
            while the archive is empty.
        """
        return self._drawn(key, checks.checked_draws(key, num_samples)).genotypes

    def select(self, key: jax.Array, num_samples: int, selector: Any = None) -> Self:
        """QDax's selection: uniform with replacement unless a QDax `Selector` is given."""
        if selector is None:
            return self._drawn(key, checks.checked_draws(key, num_samples))
        selected: Self = super().select(key, num_samples, selector)
        return selected.replace(genotypes=selected.latents)

    @one_program("num_samples")
    def _drawn(self, key: jax.Array, num_samples: int) -> Self:
        """Rows of all arrays at cells drawn uniformly from the occupied ones."""
        count = jnp.maximum(self.num_elites, 1)
        draws = jax.random.randint(key, (num_samples,), 0, count)
        # In an empty archive of one cell, the only entry is the complement of the count.
        cells = jnp.maximum(self.occupied_cells[draws], 0)
        drawn: Self = jax.tree.map(lambda x: x[cells], self)
        return drawn.replace(genotypes=drawn.latents)

    @property
    def latents(self) -> Genotypes:
        """The elites' latents, Float[C, D] in at least float32; zero in empty cells."""
        return decode(self.genotypes, self.dtype)

    def settings(self) -> dict[str, Any]:
        """The arguments of `create` that give an empty archive like this one, but the genotype."""
        examples = jax.tree.map(lambda x: np.zeros(x.shape[1:], x.dtype), self.extra_scores)
        return {
            "learning_rate": self.learning_rate,
            "threshold_min": self.threshold_min,
            "qd_score_offset": self.qd_score_offset,
            "dtype": self.dtype,
            **({"extra_scores": examples} if examples else {}),
        }
