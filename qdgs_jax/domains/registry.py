"""Which kinds of domain a run file can name, and what loads each."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from qdgs_jax.domains.external import load_external
from qdgs_jax.domains.faces import load_faces
from qdgs_jax.domains.protocol import Domain, RunSettings
from qdgs_jax.domains.shapes import load_shapes

DOMAINS: Mapping[str, Callable[[RunSettings], Domain]] = {
    "shapes": load_shapes,
    "faces": load_faces,
    "external": load_external,
}
