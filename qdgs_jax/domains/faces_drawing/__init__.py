"""Drawn faces: the ground truth of the embedded face world."""

from qdgs_jax.domains.faces_drawing.attributes import (
    AGE,
    GENDER,
    GEOMETRY,
    GLASSES,
    HAIR,
    SKIN,
    FaceAttributes,
    FaceLabels,
    Identity,
    label_faces,
)
from qdgs_jax.domains.faces_drawing.captions import caption_bank, captions
from qdgs_jax.domains.faces_drawing.drawing import draw
from qdgs_jax.domains.faces_drawing.population import (
    POPULATIONS,
    Population,
    sample_identities,
    sample_population,
    vary,
)

__all__ = [
    "AGE",
    "GENDER",
    "GEOMETRY",
    "GLASSES",
    "HAIR",
    "POPULATIONS",
    "SKIN",
    "FaceAttributes",
    "FaceLabels",
    "Identity",
    "Population",
    "caption_bank",
    "captions",
    "draw",
    "label_faces",
    "sample_identities",
    "sample_population",
    "vary",
]
