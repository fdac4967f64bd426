"""Figures that describe an archive, in the paper's words."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from qdgs_jax.archive.insertion import count_occupied
from qdgs_jax.one_program import one_program


class Statistics:
    """The part of an archive that describes it; everything is computed on the device.

    Attributes:
        fitnesses: Float[C, 1], -inf in empty cells.
        occupied_cells: see `Archive`.
        qd_score_offset: subtracted from every fitness in the QD-score.
    """

    fitnesses: jax.Array
    occupied_cells: jax.Array
    qd_score_offset: float

    @property
    def num_cells(self) -> int:
        """Number C of cells."""
        return self.fitnesses.shape[0]

    @property
    @one_program()
    def occupied(self) -> jax.Array:
        """Bool[C], the cells that hold an elite."""
        return self.fitnesses[:, 0] > -jnp.inf

    @property
    @one_program()
    def num_elites(self) -> jax.Array:
        """Number of occupied cells, Int[]."""
        return count_occupied(self.occupied_cells)

    @property
    @one_program()
    def coverage(self) -> jax.Array:
        """Share of cells that are occupied, in [0, 1]."""
        return self.num_elites / self.num_cells

    @property
    @one_program()
    def qd_score(self) -> jax.Array:
        """Sum of the elites' fitnesses, each minus `qd_score_offset`."""
        fitnesses = self.fitnesses[:, 0] - self.qd_score_offset
        return jnp.sum(fitnesses, where=self.occupied)

    @property
    @one_program()
    def norm_qd_score(self) -> jax.Array:
        """QD-score divided by the number of cells."""
        return self.qd_score / self.num_cells

    @property
    def best(self) -> jax.Array:
        """Best fitness ever offered; -inf while the archive is empty."""
        return jnp.max(self.fitnesses)

    @property
    @one_program()
    def mean(self) -> jax.Array:
        """Mean fitness of the elites; NaN while the archive is empty."""
        return jnp.mean(self.fitnesses[:, 0], where=self.occupied)

    @property
    def stats(self) -> dict[str, jax.Array]:
        """All of these, as scalars: coverage, qd_score, norm_qd_score, best, mean, num_elites."""
        names = ("coverage", "qd_score", "norm_qd_score", "best", "mean", "num_elites")
        return dict(zip(names, self._figures(names), strict=True))

    @one_program("names")
    def _figures(self, names: tuple[str, ...]) -> tuple[jax.Array, ...]:
        return tuple(getattr(self, name) for name in names)
