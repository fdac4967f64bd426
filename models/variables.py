"""Kinds of variables that the networks share, and networks that are prepared for many calls."""

from __future__ import annotations

from typing import Any, Generic, TypeVar

from flax import nnx
from flax.struct import PyTreeNode, field

M = TypeVar("M", bound=nnx.Module)


class Buffer(nnx.Variable[Any]):
    """A stored array that no optimiser changes: a running average, a noise image."""


class PreparedModel(PyTreeNode, Generic[M]):  # type: ignore[no-untyped-call]
    """A network after its method `prepare`, in two halves: weights, and what was made of them.

    Attributes:
        graph: its structure, which is no more that of the network as it was loaded.
        state: its numbers.
    """

    graph: nnx.GraphDef[M] = field(pytree_node=False)  # type: ignore[no-untyped-call]
    state: nnx.State

    @classmethod
    def of(cls, model: M) -> PreparedModel[M]:
        """The halves of a prepared network."""
        return cls(*nnx.split(model))

    def merge(self) -> M:
        """The network."""
        model: M = nnx.merge(self.graph, self.state)
        return model
