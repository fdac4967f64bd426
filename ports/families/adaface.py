"""AdaFace's face recognition backbones: Lightning checkpoints and bare state dicts.

The backbone's tensors begin with `model.` in a Lightning checkpoint and with `net.` where its
authors publish it by itself; the rest, such as the training head, is another part of the file.
"""

from __future__ import annotations

import math
import re

from qdgs_jax.models.iresnet import UNITS, WIDTHS, IResNet, IResNetConfig
from qdgs_jax.ports.errors import CheckpointError
from qdgs_jax.ports.families.adaface_names import IGNORED, rules
from qdgs_jax.ports.mapping import SHAPES_ONLY
from qdgs_jax.ports.readers.tensors import Tensor
from qdgs_jax.ports.source import Content, Source, shape_of
from qdgs_jax.ports.weights import find_weights

_KNOWN_BY = ("output_layer.3.weight", "input_layer.0.weight", "output_layer.4.running_mean")


def recognise(content: Content) -> Source:
    """Recognise an AdaFace backbone in an opened checkpoint.

    Raises:
        CheckpointError: if it is another model.
    """
    root = content.root
    lightning = type(root) is dict and "pytorch-lightning_version" in root
    found = find_weights(root, "an AdaFace backbone", _KNOWN_BY)
    tensors = found.tensors
    cfg = _sizes(tensors)
    return Source(
        layout="a Lightning checkpoint of AdaFace" if lightning else "an AdaFace state dict",
        config={"kind": "adaface", **cfg.to_dict()},
        details={
            "architecture": f"ir_{'se_' if cfg.se else ''}{cfg.depth}",
            "image size": cfg.input_size,
            "embedding": cfg.embed_dim,
            **found.details,
        },
        build=lambda: IResNet(cfg, rngs=SHAPES_ONLY),
        tensors=tensors,
        rules=rules(cfg),
        ignored=IGNORED,
    )


def _sizes(tensors: dict[str, Tensor]) -> IResNetConfig:
    embed_dim, features = shape_of(tensors, "output_layer.3.weight", 2)
    units = sum(re.fullmatch(r"body\.\d+\.res_layer\.0\.weight", n) is not None for n in tensors)
    depths = {sum(counts): depth for depth, counts in UNITS.items()}
    side = math.isqrt(features // WIDTHS[-1])
    if units not in depths:
        raise CheckpointError(
            f"The backbone has {units} units; known are {', '.join(map(str, depths))}."
        )
    if not embed_dim or side < 1 or side * side * WIDTHS[-1] != features:
        raise CheckpointError(f"output_layer.3.weight has shape {(embed_dim, features)}.")
    se = any(".se_block." in name for name in tensors)
    return IResNetConfig(depths[units], se, 16 * side, embed_dim)
