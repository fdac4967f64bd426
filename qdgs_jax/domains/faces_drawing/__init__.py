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
    NUMBERS,
    POPULATIONS,
    Population,
    faces_from_numbers,
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
    "NUMBERS",
    "POPULATIONS",
    "SKIN",
    "FaceAttributes",
    "FaceLabels",
    "Identity",
    "Population",
    "caption_bank",
    "captions",
    "draw",
    "faces_from_numbers",
    "label_faces",
    "sample_identities",
    "sample_population",
    "vary",
]
