"""Are a run's subjects people? An embedding of drawn people tells them apart, or does not.

    python scripts/benchmarks/subjects_auc.py runs/demo
    python scripts/benchmarks/subjects_auc.py runs/demo --people 600 --epochs 20 --seed 1

A network learns drawn people of all kinds with AdaFace, sees no generated picture, and embeds the
people of the run and of its baseline (in `people`, or in the data sets). Printed are the chances
that two pictures of one subject are nearer than two of different ones: of all pairs, of pairs that
show different latents alone, and where subjects are dealt out at random. A row of drawn people that
the network has not seen says how well it could do at best.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np

from qdgs_jax.experiments.recognition import people_folder
from qdgs_jax.runs.experiment_tables import RecognitionConfig
from qdgs_jax.runs.folder import RunFolder
from qdgs_jax.train.faces.comparison import load_people, recipe
from qdgs_jax.train.faces.drawn import draw_tested, draw_trained
from qdgs_jax.train.faces.embed import embed_faces
from qdgs_jax.train.faces.seeds import train_seeds
from qdgs_jax.train.faces.subjects import SubjectAuc, subject_auc


def row(name: str, found: SubjectAuc) -> str:
    figures = (found.all_pairs, found.other_latents, found.shuffled)
    shares = " | ".join(f"{figure:.4f}" for figure in figures)
    return f"| {name} | {found.subjects:,} | {found.images:,} | {shares} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("run", type=Path, help="a run folder with a baseline, people in both")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--people", type=int, default=400, help="drawn people to learn from")
    parser.add_argument("--pictures", type=int, default=8, help="of each")
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--side", type=int, default=48)
    args = parser.parse_args()
    folder = RunFolder(args.run)
    settings = RecognitionConfig(epochs=args.epochs, side=args.side)
    places = {
        each.config().search.algorithm: people_folder(each, folder)
        for each in (folder, folder.baseline)
    }
    began = time.monotonic()
    # Of all kinds alike, so that nobody is told worse for being rare.
    drawn = draw_trained(args.seed, args.people, args.pictures, args.side, "balanced")
    found = train_seeds(recipe(settings), drawn.images, drawn.people, (args.seed,))
    print(
        f"{args.people} drawn people, {len(drawn.images):,} pictures of {args.side} pixels, "
        f"{args.epochs} epochs in {time.monotonic() - began:.0f} s; loss {found.losses[0, -1]:.2f}"
    )
    print("| people | subjects | images | all pairs | other latents | dealt out |")
    print("| --- | ---: | ---: | ---: | ---: | ---: |")
    for name, place in places.items():
        people = load_people(place, args.side)
        embeddings, _ = embed_faces(found[0], people.images)
        print(row(name, subject_auc(embeddings, people.people, people.latents)))
    tested = draw_tested(args.seed, 40, 6, args.side)
    embeddings, _ = embed_faces(found[0], tested.images)
    print(row("drawn", subject_auc(embeddings, tested.people, np.arange(len(tested.people)))))


if __name__ == "__main__":
    main()
