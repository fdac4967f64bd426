"""The shapes VAE of the published QDGS program: a state dict saved with `torch.save`.

Sizes come from the tensors' shapes. PyTorch flattens feature maps channel first, our model channel
last, so the linear layers beside the flattening are permuted along with their kernels.
"""

from __future__ import annotations

import math

from qdgs_jax.models.vae import VAE, VAEConfig
from qdgs_jax.ports.errors import CheckpointError
from qdgs_jax.ports.mapping import SHAPES_ONLY, Regroup, Rule
from qdgs_jax.ports.readers.tensors import Tensor
from qdgs_jax.ports.source import Content, Source, shape_of
from qdgs_jax.ports.weights import find_weights

_KNOWN_BY = ("encoder.conv1.weight", "encoder.fc_mu.weight", "decoder.convT1.weight")


def recognise(content: Content) -> Source:
    """Recognise the VAE in an opened checkpoint.

    Raises:
        CheckpointError: if it is another model.
    """
    found = find_weights(content.root, "a shapes VAE", _KNOWN_BY)
    tensors = found.tensors
    cfg = _sizes(tensors)
    return Source(
        layout="a shapes VAE state dict",
        config={"kind": "vae", **cfg.to_dict()},
        details={"image size": cfg.image_size, "latents": cfg.latent_dim, **found.details},
        build=lambda: VAE(cfg, rngs=SHAPES_ONLY),
        tensors=tensors,
        rules=_rules(cfg),
    )


def _sizes(tensors: dict[str, Tensor]) -> VAEConfig:
    c1, c2, c3 = (shape_of(tensors, f"encoder.conv{i}.weight", 4)[0] for i in (1, 2, 3))
    latent_dim, features = shape_of(tensors, "encoder.fc_mu.weight", 2)
    grid = math.isqrt(features // c3)
    if grid * grid * c3 != features:
        raise CheckpointError(
            f"encoder.fc_mu.weight has shape {(latent_dim, features)}, which is no square of "
            f"{c3} channels."
        )
    return VAEConfig(latent_dim, 8 * grid, (c1, c2, c3))


def _rules(cfg: VAEConfig) -> tuple[Rule, ...]:
    """Make the table for a VAE of these sizes."""
    grid = (cfg.channels[2], cfg.image_size // 8, cfg.image_size // 8)
    flat, latents = math.prod(grid), cfg.latent_dim
    from_grid = Regroup((latents, flat), (latents, *grid), (2, 3, 1, 0))
    to_grid = Regroup((flat, latents), (*grid, latents), (3, 1, 2, 0))
    return (
        (r"encoder\.conv(\d)\.weight", r"encoder.conv\1.kernel", (2, 3, 1, 0)),  # OIHW to HWIO
        (r"encoder\.(fc_mu|fc_logvar)\.weight", r"encoder.\1.kernel", from_grid),
        (r"decoder\.fc1\.weight", "decoder.fc1.kernel", to_grid),
        (r"decoder\.fc1\.bias", "decoder.fc1.bias", Regroup((flat,), grid, (1, 2, 0))),
        (r"decoder\.convT(\d)\.weight", r"decoder.convT\1.kernel", (2, 3, 0, 1)),  # IOHW to HWIO
        (r"((?:en|de)coder\.\w+)\.bias", r"\1.bias", None),
    )
