"""StyleGAN2; its layers and their forms are in `layers` and `resample`."""

from qdgs_jax.models.stylegan2.config import ARCHITECTURES, StyleGAN2Config
from qdgs_jax.models.stylegan2.generator import Generator, MappingNetwork, SynthesisNetwork
from qdgs_jax.models.stylegan2.statistics import CodeStatistics, code_statistics

__all__ = [
    "ARCHITECTURES",
    "CodeStatistics",
    "Generator",
    "MappingNetwork",
    "StyleGAN2Config",
    "SynthesisNetwork",
    "code_statistics",
]
