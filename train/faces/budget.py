"""What a training of face recognition costs: arithmetic, memory and disk, before it begins.

XLA counts the operations of a training step and of an embedding in programs that are lowered from
shapes alone: nothing is compiled, and no weight exists. What the backward pass keeps is counted in
the same way, from the shapes of what the forward pass hands it.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from qdgs_jax.models.backend import lowering_for
from qdgs_jax.models.iresnet import IResNet, IResNetConfig
from qdgs_jax.train.faces.heads import HeadConfig, MarginHead, cross_entropy

_COUNTED = 2  # images in a program that is counted; AdaFace needs two
COPIES = 3  # of parameters while training: themselves, their momenta and their gradients
KEPT = 2  # of parameters in a checkpoint: themselves and their momenta
DEVICES: Mapping[str, float] = {  # peak FLOP/s in bfloat16 without sparsity, by the makers' sheets
    "NVIDIA A100": 312e12,
    "NVIDIA H100 SXM": 989e12,
    "TPU v4": 275e12,
    "TPU v5e": 197e12,
    "TPU v5p": 459e12,
}


@dataclasses.dataclass(frozen=True)
class TrainingCost:
    """What one image costs, and what is held.

    Attributes:
        train_flop: of an image's forward and backward pass and its share of the head.
        embed_flop: of an image's embedding.
        parameters: numbers of the network.
        head: numbers of the head.
        activations: bytes that the backward pass keeps of an image.
    """

    train_flop: float
    embed_flop: float
    parameters: int
    head: int
    activations: int

    def memory(self, batch: int) -> int:
        """Bytes on the device while training with so many images a step; float32 parameters."""
        return COPIES * 4 * (self.parameters + self.head) + batch * self.activations

    @property
    def checkpoint(self) -> int:
        """Bytes of a checkpoint of the training."""
        return KEPT * 4 * (self.parameters + self.head)

    @property
    def model(self) -> int:
        """Bytes of a finished network."""
        return 4 * self.parameters


def training_cost(
    cfg: IResNetConfig, identities: int, *, dtype: Any = jnp.bfloat16, kind: Any = "adaface"
) -> TrainingCost:
    """Count the cost of training a network.

    Args:
        cfg: its sizes.
        identities: classes of the head.
        dtype: of activations.
        kind: of head.
    """
    make = functools.partial(IResNet, cfg, dtype=dtype)
    graph, params, rest = _shapes(lambda: make(rngs=nnx.Rngs(0)))
    head_cfg = HeadConfig(cfg.embed_dim, identities, kind=kind)
    head_graph, head_params, head_rest = _shapes(lambda: MarginHead(head_cfg, rngs=nnx.Rngs(0)))
    images = jax.ShapeDtypeStruct((_COUNTED, cfg.input_size, cfg.input_size, 3), jnp.float32)  # type: ignore[no-untyped-call]
    labels = jax.ShapeDtypeStruct((_COUNTED,), jnp.int32)  # type: ignore[no-untyped-call]
    key = jax.eval_shape(lambda: jax.random.key(0))

    def loss(trained: Any, rest: Any, images: Any, labels: Any, key: Any) -> jax.Array:
        network = nnx.merge(graph, trained[0], rest[0], copy=True)
        head = nnx.merge(head_graph, trained[1], rest[1], copy=True)
        embeddings, norms = network(images, train=True, key=key)
        return cross_entropy(head(embeddings, norms, labels), labels)

    def embed(params: Any, rest: Any, images: Any) -> Any:
        return nnx.merge(graph, params, rest)(images)

    trained, others = (params, head_params), (rest, head_rest)
    arguments = (trained, others, images, labels, key)
    backward = jax.eval_shape(
        lambda trained, *others: jax.vjp(lambda t: loss(t, *others), trained)[1], *arguments
    )
    held = _bytes(backward) - _bytes(trained)
    return TrainingCost(
        train_flop=_flop(jax.grad(loss), *arguments) / _COUNTED,
        embed_flop=_flop(embed, params, rest, images) / _COUNTED,
        parameters=_count(params) + _count(rest),
        head=_count(head_params),
        activations=max(0, held) // _COUNTED,
    )


def hours(flop: float, utilisation: float) -> dict[str, float]:
    """Hours of one device of each kind for so many operations, at a share of its peak."""
    if not 0.0 < utilisation <= 1.0:
        raise ValueError(f"utilisation is {utilisation}: give a share in (0, 1], such as 0.4.")
    return {name: flop / (peak * utilisation) / 3600 for name, peak in DEVICES.items()}


def _shapes(make: Callable[[], Any]) -> tuple[Any, Any, Any]:
    """Structure of a module, and the shapes of what is trained and of the rest."""
    split: Any = nnx.split(nnx.eval_shape(make), nnx.Param, ...)
    graph, params, rest = split
    return graph, params, rest


def _flop(function: Callable[..., Any], *arguments: Any) -> float:
    """Operations as accelerators do them: a processor spares products where it can."""
    with lowering_for("gpu"):
        traced = jax.jit(function).trace(*arguments)
    analysis: Any = traced.lower(lowering_platforms=("cpu",)).cost_analysis()
    return float((analysis or {}).get("flops", 0.0))


def _bytes(shapes: Any) -> int:
    leaves = jax.tree.leaves(shapes)
    return sum(leaf.size * leaf.dtype.itemsize for leaf in leaves if hasattr(leaf, "dtype"))


def _count(shapes: Any) -> int:
    return sum(leaf.size for leaf in jax.tree.leaves(shapes))
