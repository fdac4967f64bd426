"""Latent augmentations: rows added to a latent, each of which shows the same person otherwise."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from qdgs_jax.models.latents import Latents
from qdgs_jax.ports.loading import load


def read_augmentations(folder: str | Path, latent_dim: int) -> np.ndarray:
    """Read the rows of a folder that `qdgs port latents` wrote.

    Args:
        folder: the folder. The published program's has 9 rows, of which the fifth is zeros and the
            others are four directions and their opposites: the latent itself is one of them.
        latent_dim: length D of the generator's latents.

    Returns:
        Float32[A, D].

    Raises:
        CheckpointError: it is no such folder.
        ValueError: its rows have another length, or are not finite.
    """
    rows = np.asarray(load(folder, Latents)(), np.float32)
    if rows.shape[1] != latent_dim:
        raise ValueError(
            f"{folder} holds augmentations of {rows.shape[1]} numbers, and the generator's latents "
            f"have {latent_dim}: in the table [dataset.subjects] of the run, name those "
            "of this generator, or have some drawn (augmentation_count and augmentation_scale "
            "instead of augmentations)."
        )
    if not np.isfinite(rows).all():
        raise ValueError(f"{folder} holds augmentations that are not finite: port others.")
    return rows


def draw_augmentations(key: jax.Array, count: int, scale: float, latent_dim: int) -> np.ndarray:
    """Draw augmentations from a normal distribution; the first is zeros, the latent itself.

    Args:
        key: of a stream of its own.
        count: A, at least 1.
        scale: standard deviation of every number, in units of the searched latents.
        latent_dim: D.

    Returns:
        Float32[A, D].
    """
    drawn = scale * jax.random.normal(key, (count - 1, latent_dim), jnp.float32)
    return np.concatenate([np.zeros((1, latent_dim), np.float32), np.asarray(drawn)])


@dataclasses.dataclass(frozen=True, eq=False)
class Augmented:
    """N latents under A augmentations each, made when a slice of them is asked for.

    Row i A + a is latent i under augmentation a.

    Attributes:
        latents: Float[N, D]; it may lie on the disk.
        augmentations: Float[A, D].
    """

    latents: np.ndarray
    augmentations: np.ndarray

    def __len__(self) -> int:
        return len(self.latents) * len(self.augmentations)

    def __getitem__(self, rows: slice) -> np.ndarray:
        """The rows of a slice, Float[K, D]."""
        which, how = np.divmod(np.arange(len(self))[rows], len(self.augmentations))
        augmented: np.ndarray = self.latents[which] + self.augmentations[how]
        return augmented
