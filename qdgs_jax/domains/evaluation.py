"""How images are computed and scored: how many at a time, in which type, how exactly.

docs/evaluation.md says what each setting costs and what it moves.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import NamedTuple

import jax

from qdgs_jax.domains.protocol import EvaluationSettings
from qdgs_jax.models.backend import target_backend

DTYPES = ("float32", "bfloat16")
PRECISIONS = ("default", "high", "highest")
# What "auto" means: dtype and precision. A CPU multiplies in float32 whatever the precision. GPUs
# and TPUs round the factors of float32 products by "default" (to TF32 and bfloat16).
AUTO: Mapping[str, tuple[str, str]] = {
    "cpu": ("float32", "default"),
    "gpu": ("float32", "default"),
    "tpu": ("float32", "high"),
}


class Computation(NamedTuple):
    """How images are computed and scored.

    Attributes:
        batch: latents decoded, scored and differentiated at a time, at least 0; 0 for all at once.
        dtype: of the products of generator and CLIP, one of `DTYPES`; weights, distances,
            objective and measures are float32.
        precision: of float32 products, one of `PRECISIONS`, in JAX's words.
        remat: compute activations again in the backward pass instead of keeping them.
    """

    batch: int = 0
    dtype: str = "float32"
    precision: str = "default"
    remat: bool = False

    @classmethod
    def of(cls, settings: EvaluationSettings, backend: str | None = None) -> Computation:
        """What a run file's settings mean on a backend, by default on `target_backend()`.

        Raises:
            ValueError: if a setting is out of range.
        """
        auto = AUTO.get(backend or target_backend(), AUTO["gpu"])
        dtype = auto[0] if settings.dtype == "auto" else settings.dtype
        precision = auto[1] if settings.precision == "auto" else settings.precision
        for name, value, known in (("dtype", dtype, DTYPES), ("precision", precision, PRECISIONS)):
            if value not in known:
                raise ValueError(
                    f"evaluation.{name} is {value!r}: give one of {', '.join(('auto', *known))}."
                )
        if settings.batch < 0:
            raise ValueError(f"evaluation.batch is {settings.batch}: give 0 or more latents.")
        return cls(settings.batch, dtype, precision, settings.remat)

    def splits(self, count: int) -> bool:
        """Whether `count` latents are too many to be taken at once."""
        return 0 < self.batch < count

    def products(self) -> AbstractContextManager[None]:
        """The context in which functions are traced, for the precision of their products."""
        if self.precision == "default":
            return contextlib.nullcontext()
        return jax.default_matmul_precision(self.precision)
