"""StyleGAN2; its layers and their forms are in `layers` and `resample`."""

from qdgs_jax.models.stylegan2.generator import (
    ARCHITECTURES,
    Generator,
    MappingNetwork,
    StyleGAN2Config,
    SynthesisNetwork,
)

__all__ = ["ARCHITECTURES", "Generator", "MappingNetwork", "StyleGAN2Config", "SynthesisNetwork"]
