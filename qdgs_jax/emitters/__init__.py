"""Emitters: what a search tries next.

All are QDax emitters, vectorised over E independent searches against one archive.
"""

from qdgs_jax.emitters.gradient_arborescence import (
    GradientArborescenceEmitter,
    GradientArborescenceState,
)
from qdgs_jax.emitters.random_sampling import RandomEmitter

__all__ = ["GradientArborescenceEmitter", "GradientArborescenceState", "RandomEmitter"]
