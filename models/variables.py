"""Kinds of variables that the networks share."""

from __future__ import annotations

from typing import Any

from flax import nnx


class Buffer(nnx.Variable[Any]):
    """A stored array that no optimiser changes: a running average, a noise image."""
