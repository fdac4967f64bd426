"""A judge of faces that does not ask CLIP: a regressor of skin tone, age, hair length and gender.

What it estimates is cut into the groups of drawn faces (`faces_drawing.attributes`). An image is
unclear in a trait where the regressor's own deviation is at least that of a uniform distribution
over half of the trait's range, 1.3 of Monk's tones or 9 years: then the image leaves half of the
range open, or more.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Mapping
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from qdgs_jax.domains.cutouts import middle_square
from qdgs_jax.domains.faces_drawing.attributes import (
    AGE,
    AGE_EDGE,
    GENDER,
    GENDER_EDGES,
    HAIR,
    HAIR_EDGE,
    SKIN,
    SKIN_EDGES,
)
from qdgs_jax.domains.weights import checkpoint_folder
from qdgs_jax.domains.zero_shot import Seen
from qdgs_jax.models.face_regressor import TRAITS, FaceRegressor, FaceRegressorConfig, Traits
from qdgs_jax.ports.loading import load

GROUPS: Mapping[str, tuple[str, ...]] = {"skin": SKIN, "age": AGE, "hair": HAIR, "gender": GENDER}
EDGES: Mapping[str, tuple[float, ...]] = {  # between groups; a value at an edge is in the upper one
    "skin": SKIN_EDGES,
    "age": (AGE_EDGE,),
    "hair": (HAIR_EDGE,),
    "gender": GENDER_EDGES,
}
UNCLEAR = -math.log(12.0)  # log variance of a uniform distribution over 1 of the 2 of [-1, 1]


@dataclasses.dataclass(frozen=True, eq=False)
class FacesOracle:
    """A regressor as a judge.

    Attributes:
        graph: structure of the network.
        config: its sizes.
        params: its weights, which belong into the arguments.
    """

    graph: nnx.GraphDef[FaceRegressor]
    config: FaceRegressorConfig
    params: nnx.State

    @property
    def groups(self) -> Mapping[str, tuple[str, ...]]:
        """Names of each trait's groups, in the order of `TRAITS`."""
        return {name: GROUPS[name] for name in TRAITS}

    def look(self, pictures: np.ndarray) -> Seen:
        """Look at pictures UInt8[B, H, W, 3] of faces in FFHQ's alignment.

        Raises:
            ValueError: they are smaller than what the network sees.
        """
        self.check(pictures.shape[1:3])
        groups = _look(self, self.params, jnp.asarray(pictures))
        return Seen(groups, jnp.zeros((len(pictures), 0)))

    def check(self, size: tuple[int, ...]) -> None:
        """Refuse pictures (height, width) that are too small to be judged.

        Raises:
            ValueError: they are.
        """
        if min(size) < self.config.image_size:
            raise ValueError(
                f"the images have {size[1]} x {size[0]} pixels, this judge looks at "
                f"{self.config.image_size} x {self.config.image_size}: give larger images, or a "
                "judge of smaller ones."
            )


@functools.partial(jax.jit, static_argnums=0)
def _look(judge: FacesOracle, params: nnx.State, pictures: jax.Array) -> jax.Array:
    images = middle_square(pictures.astype(jnp.float32) / 127.5 - 1.0, judge.config.image_size)
    return groups_of(nnx.merge(judge.graph, params)(images))


def groups_of(seen: Traits) -> jax.Array:
    """Groups Int[B, len(TRAITS)] of estimates, -1 where they are unclear."""
    columns = [
        jnp.searchsorted(jnp.asarray(EDGES[name]), column, side="right")
        for name, column in zip(TRAITS, seen.values.T, strict=True)
    ]
    return jnp.where(seen.log_variance < UNCLEAR, jnp.stack(columns, axis=-1), -1)


def load_faces_oracle(name: str) -> FacesOracle:
    """Load a judge of faces.

    Args:
        name: `embedded:NAME`, or the folder of a model of the kind `face_regressor`.

    Raises:
        CheckpointError: the folder is missing, damaged or holds another kind of model.
    """
    model = load(Path(checkpoint_folder(name)), FaceRegressor)
    graph, params = nnx.split(model)
    return FacesOracle(graph, model.cfg, params)
