"""Make the drawn world's latent augmentations: what a picture shows of a person otherwise.

    python scripts/training/faces_augmentations.py --output runs/faces-augmentations

The codes of the embedded generator hold attributes (`train_faces_stylegan2.py`), so rows that move
those of a picture, and none of those that make the person, show the same face otherwise: its light,
pose, expression, hair style, glasses, clothes and background. The published program's file does so
for FFHQ's generator, by directions that were found in it (Chang et al. 2024). The first row is
zeros, the latent itself. Beards and make-up stay as they are, for they follow gender.
"""

from __future__ import annotations

import argparse
import textwrap
from pathlib import Path

import jax
import numpy as np
from train_faces_stylegan2 import ATTRIBUTES, CONFIG, flat

from qdgs_jax import keys
from qdgs_jax.domains.faces_drawing import NUMBERS, FaceAttributes, faces_from_numbers
from qdgs_jax.files import write_atomically
from qdgs_jax.models.latents import LatentsConfig
from qdgs_jax.ports.model_folder import save_model

STAY = {"identity", "beard", "make_up"}
CARD = """# Faces' augmentations

{count} latent augmentations of `embedded:faces-stylegan2`: what is added to a normalised code,
alike in all layers, to show the same person otherwise.

- Row 0 is zeros. Each other one moves what is of a picture alone by up to {scale} deviations, drawn
  from a uniform distribution; who is shown stays. Moved are
{names}.
- Command: `python scripts/training/faces_augmentations.py --output faces-augmentations --count
  {count} --scale {scale} --seed {seed}`
- Licence: that of the repository.
"""


def moved() -> np.ndarray:
    """Which of the attributes belong to a picture alone, Bool[ATTRIBUTES]."""
    faces = faces_from_numbers(np.full((1, NUMBERS), 0.5, np.float32))
    marks = {
        name: jax.tree.map(lambda leaf, free=name not in STAY: np.full(leaf.shape, free), value)
        for name, value in faces._asdict().items()
    }
    return np.asarray(flat(FaceAttributes(**marks)))[0]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--count", type=int, default=5, help="rows, that of zeros included")
    parser.add_argument("--scale", type=float, default=1.2, help="most that is added")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    rng = keys.numpy_stream(args.seed, "faces augmentations")
    drawn = rng.uniform(-args.scale, args.scale, (args.count - 1, ATTRIBUTES)) * moved()
    rows = np.concatenate([np.zeros((1, ATTRIBUTES)), drawn])
    layers = np.tile(rows[:, None], (1, CONFIG.num_ws, 1)).reshape(args.count, -1)
    config = LatentsConfig(*layers.shape)
    save_model(
        args.output, {"kind": "latents", **config.to_dict()}, {"rows": layers.astype(np.float32)}
    )
    moving = ", ".join(name for name in FaceAttributes._fields if name not in STAY)
    names = textwrap.indent(textwrap.fill(moving, 96), "  ")
    card = CARD.format(count=args.count, scale=args.scale, seed=args.seed, names=names)
    write_atomically(args.output / "README.md", card.encode())


if __name__ == "__main__":
    main()
