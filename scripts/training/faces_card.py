"""The card beside the weights that `train_faces_clip.py` writes."""

from __future__ import annotations

import argparse

from faces_clip_scores import CORRUPTED_FROM, COUNT, Scores

from qdgs_jax.models.face_regressor import TRAITS


def write_card(args: argparse.Namespace, wall: float, scores: dict[str, Scores]) -> None:
    """The model card beside the weights."""
    plain, spoilt, measures = scores["plain"], scores["spoilt"], scores["measures"]
    rows = "\n".join(
        f"| {name} | {100 * value:.1f} % | {100 * spoilt[name]:.1f} % |"
        for name, value in plain.items()
    )
    ranks = "\n".join(
        f"| {name} | {measures[f'{name}, rank']:.3f} "
        f"| {measures[f'{name}, low']:.2f} to {measures[f'{name}, high']:.2f} |"
        for name in TRAITS
    )
    options = f" --start {args.start.name}" if args.start else ""
    options += f" --generator {args.generator.name}" if args.generator else ""
    options += f" --push {args.push}" if args.push else ""
    (args.output / "README.md").write_text(
        f"""# Faces CLIP

A compact CLIP (`qdgs_jax.models.clip`): 48 x 48 images, four vision and two text layers of
width 128, its own byte-pair tokenizer in Hugging Face's format.

- Data: faces drawn by `qdgs_jax.domains.faces_drawing`, balanced over groups and half of them
  between groups, shifted, blurred, brightened, noisy, a quarter of them corrupted;
  {args.steps * args.batch:,} images, none repeated; {args.captions:,} captions of the package's
  grammar.
- Command: `python scripts/training/train_faces_clip.py --output {args.output.name}
 {options} --steps {args.steps} --batch {args.batch}
  --learning-rate {args.learning_rate} --seed {args.seed}`
- Wall time: {wall / 60:.1f} minutes on two CPU cores.
- Licence: that of the repository.

Zero-shot accuracy on {COUNT:,} drawings of the balanced population of another seed, with sentence
frames never seen in training, plain and spoilt. Quality tells them from pictures that are corrupted
by {CORRUPTED_FROM} or more:

| what | plain | spoilt |
| --- | --- | --- |
{rows}

Measures by the prompts of `faces.toml` on {COUNT:,} faces whose traits are uniform over their
ranges: rank correlation (Spearman) with what was drawn, and what the middle 90 % of them span:

| measure | rank correlation | 5 % to 95 % |
| --- | --- | --- |
{ranks}

The objective's distance is {measures["objective, clear"]:.2f} for drawings and
{measures["objective, corrupted"]:.2f} for corrupted ones, and smaller for a drawing than for a
corrupted one in {100 * measures["objective, clear below corrupted"]:.1f} % of pairs.
""",
        encoding="utf-8",
    )
