"""A list of latents saved with `torch.save`: one tensor of two axes, alone or in a dictionary.

Tensors of a single number, such as a count, may stand beside it.

The published program keeps the directions that it augments faces by in such a file: 9 rows of 7,168
numbers, the fifth of them zeros.
"""

from __future__ import annotations

from qdgs_jax.models.latents import Latents, LatentsConfig
from qdgs_jax.ports.errors import CheckpointError
from qdgs_jax.ports.mapping import SHAPES_ONLY
from qdgs_jax.ports.readers.tree import named_tensors
from qdgs_jax.ports.source import Content, Source, shape_of
from qdgs_jax.ports.weights import top_of

_NAME = "rows"  # of the parameter


def recognise(content: Content) -> Source:
    """Recognise a list of latents in an opened checkpoint.

    Raises:
        CheckpointError: if it holds no tensor of several numbers, or more than one, or one of other
            than two axes.
    """
    tensors = [tensor for _, tensor in named_tensors(content.root)]
    found = [tensor for tensor in tensors if tensor.size > 1] or tensors
    if len(found) != 1:
        raise CheckpointError(
            f"This is not a list of latents, which is one tensor. {top_of(content.root)}"
        )
    named = {_NAME: found[0]}
    cfg = LatentsConfig(*shape_of(named, _NAME, 2))
    return Source(
        layout="a list of latents",
        config={"kind": "latents", **cfg.to_dict()},
        details={"latents": cfg.count, "numbers of each": cfg.latent_dim},
        build=lambda: Latents(cfg, rngs=SHAPES_ONLY),
        tensors=named,
        rules=((_NAME, _NAME, None),),
    )
