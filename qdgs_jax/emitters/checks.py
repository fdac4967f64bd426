"""Settings of emitters, checked once when an emitter is made."""

from __future__ import annotations

from typing import SupportsFloat, SupportsIndex, get_args

from qdgs_jax.emitters.gradients import Normalization
from qdgs_jax.emitters.ranking import PARENT_RULES, RANKINGS
from qdgs_jax.emitters.space import Bounds

_COUNTS = ("batch", "branches", "latent_dim", "num_emitters", "num_measures")


def check_positive(**settings: float) -> None:
    """Raise ValueError for the first setting that is not positive, or a count that is not whole."""
    for name, value in settings.items():
        if not isinstance(value, SupportsFloat) or not float(value) > 0:
            raise ValueError(f"{name} is {value!r}: give a positive number.")
        if name in _COUNTS and not isinstance(value, SupportsIndex):
            raise ValueError(f"{name} is {value!r}: give a whole number.")


def check_bounds(bounds: Bounds) -> None:
    """Raise ValueError unless bounds are in order."""
    if bounds is not None and not bounds[0] < bounds[1]:
        raise ValueError(f"bounds is {bounds}: give (low, high) with low < high, or None.")


def check_strategy(num_emitters: int, ranking: str, parent_rule: str) -> None:
    """Raise ValueError unless the settings that adaptive emitters share are usable."""
    check_positive(num_emitters=num_emitters)
    if ranking not in RANKINGS:
        raise ValueError(f"ranking is {ranking!r}: choose one of {RANKINGS}.")
    if parent_rule not in PARENT_RULES:
        raise ValueError(f"parent_rule is {parent_rule!r}: choose one of {PARENT_RULES}.")


def check_normalization(normalization: str) -> None:
    """Raise ValueError unless there is such a normalisation."""
    known = get_args(Normalization)
    if normalization not in known:
        raise ValueError(f"normalization is {normalization!r}: choose one of {known}.")
