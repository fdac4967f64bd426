"""Statistics of a generator's codes, with which a search normalises them.

A search sees `q = (w - w_avg) / w_std`, in which every direction of a code is about equally long
(Chang et al. 2024, section 4, after nshepperd's StyleGAN2 guided by CLIP). Both statistics come
from 10,000 latents of a fixed seed. They are computed once, when a checkpoint is converted, and
kept in the `config.json` of its folder, so that every machine searches the same space.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from qdgs_jax.models.stylegan2.generator import MappingNetwork

SAMPLES = 10_000
_BATCH = 1_000


@dataclasses.dataclass(frozen=True)
class CodeStatistics:
    """Statistics of codes without truncation.

    Attributes:
        w_std: standard deviation of each entry of a code, w_dim positive numbers. The codes of all
            layers come from one, so each layer has the same.
        mean_norm: mean length of q over the codes of all layers together.
        samples: number of latents that both come from.
    """

    w_std: tuple[float, ...]
    mean_norm: float
    samples: int

    def __post_init__(self) -> None:
        numbers = (*self.w_std, self.mean_norm)
        if not all(isinstance(x, float | int) and 0 < x < math.inf for x in numbers):
            worst = next(
                x for x in numbers if not (isinstance(x, float | int) and 0 < x < math.inf)
            )
            raise ValueError(f"a statistic of the codes is {worst!r}: all are positive numbers.")

    @classmethod
    def from_dict(cls, fields: object) -> CodeStatistics:
        """Statistics from what `to_dict` gave, through JSON if need be.

        Raises:
            ValueError: if they are no statistics of codes.
        """
        names = {field.name for field in dataclasses.fields(cls)}
        if not isinstance(fields, Mapping) or set(fields) != names:
            raise ValueError(f"statistics of codes are a table of {', '.join(sorted(names))}.")
        if not isinstance(fields["w_std"], list | tuple):
            raise ValueError(
                f"w_std is a {type(fields['w_std']).__name__}: give a list of numbers."
            )
        return cls(tuple(fields["w_std"]), fields["mean_norm"], fields["samples"])

    def to_dict(self) -> dict[str, Any]:
        """Plain values for a config.json."""
        return {**dataclasses.asdict(self), "w_std": list(self.w_std)}


def mapped_codes(mapping: MappingNetwork, samples: int = SAMPLES) -> np.ndarray:
    """Codes of latents of a fixed seed, the same on every machine up to rounding.

    Args:
        mapping: of a generator without classes.
        samples: how many.

    Returns:
        Float[samples, w_dim], float32.
    """
    z = np.random.default_rng(0).standard_normal((samples, mapping.cfg.z_dim), dtype=np.float32)
    parts = [z[start : start + _BATCH] for start in range(0, samples, _BATCH)]
    with jax.default_matmul_precision("highest"):
        return np.concatenate([np.asarray(mapping(jnp.asarray(part))[:, 0]) for part in parts])


def code_statistics(mapping: MappingNetwork, num_ws: int) -> CodeStatistics:
    """Compute the statistics of a generator's codes.

    Args:
        mapping: of a generator without classes; how many codes it repeats does not matter.
        num_ws: codes per image.

    Raises:
        ValueError: if an entry of the codes does not vary, so that it cannot be normalised.
    """
    codes = mapped_codes(mapping).astype(np.float64)
    std = codes.std(axis=0, ddof=1)
    if not (np.isfinite(std).all() and std.min() > 0):
        raise ValueError("an entry of the codes is the same for all latents.")
    q = (codes - np.asarray(mapping.w_avg[...], np.float64)) / std
    norm = math.sqrt(num_ws) * np.linalg.norm(q, axis=1).mean()
    return CodeStatistics(tuple(map(float, std.astype(np.float32))), float(norm), len(codes))
