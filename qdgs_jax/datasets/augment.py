"""Latent augmentations: rows added to a latent, each of which shows the same person otherwise."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from qdgs_jax import keys
from qdgs_jax.domains.weights import checkpoint_folder
from qdgs_jax.models.latents import Latents
from qdgs_jax.ports.errors import CheckpointError
from qdgs_jax.ports.loading import load
from qdgs_jax.ports.model_folder import load_config
from qdgs_jax.runs.config import RunConfig


def augmentations_of(config: RunConfig, latent_dim: int) -> np.ndarray | None:
    """What is added to each latent of a run's data set.

    Args:
        config: the run.
        latent_dim: length D of its generator's latents.

    Returns:
        Float32[A, D]; None for a data set without subjects.

    Raises:
        CheckpointError: the folder that the run names holds no augmentations.
        ValueError: they have another length, or are not finite.
    """
    table = config.dataset.subjects
    if table is None:
        return None
    if table.augmentations is not None:
        try:
            return read_augmentations(checkpoint_folder(table.augmentations), latent_dim)
        except CheckpointError as error:
            field = f"dataset.subjects.augmentations = {table.augmentations!r}"
            raise CheckpointError(f"{field}: {error}") from None
    key = keys.stream(keys.root(config.seed), "augmentations")
    return draw_augmentations(key, *table.drawn, latent_dim)


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
    _check_length(folder, rows.shape[1], latent_dim)
    if not np.isfinite(rows).all():
        raise ValueError(f"{folder} holds augmentations that are not finite: port others.")
    return rows


def check_augmentations(config: RunConfig, latent_dim: int) -> None:
    """Refuse augmentations that another generator's latents have, without reading their rows.

    Args:
        config: the run; the folder that it names may be missing.
        latent_dim: length D of its generator's latents.

    Raises:
        CheckpointError: the folder is no model.
        ValueError: its rows have another length.
    """
    table = config.dataset.subjects
    if table is not None and table.augmentations is not None:
        folder = checkpoint_folder(table.augmentations)
        held = load_config(folder).get("latent_dim") if folder.is_dir() else None
        if held is not None:
            _check_length(folder, held, latent_dim)


def _check_length(folder: str | Path, held: int, latent_dim: int) -> None:
    if held != latent_dim:
        raise ValueError(
            f"{folder} holds augmentations of {held} numbers, and the generator's latents have "
            f"{latent_dim}: in the table [dataset.subjects] of the run, name those of this "
            "generator, or have some drawn (augmentation_count and augmentation_scale instead of "
            "augmentations)."
        )


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
