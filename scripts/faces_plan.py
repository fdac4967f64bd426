"""The plan of `reproduce_faces.py`: images, epochs, arithmetic, disk, memory, hours per device.

Networks are counted by XLA from their shapes. Hours are those of one device at a stated share of
its peak in bfloat16; reading, PNG and compiling come on top, and a search of one emitter, as
published, waits for its steps more than it computes.
"""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from reproduce_faces import KINDS, SIZES

from qdgs_jax.cli.init import packaged_run
from qdgs_jax.datasets.manifest import read_manifest
from qdgs_jax.runs.config import RunConfig, baseline_of, parse_run, read_run_file
from qdgs_jax.runs.plan import count_operations
from qdgs_jax.train.faces.budget import TrainingCost, hours, training_cost
from qdgs_jax.train.faces.recipe import Recipe, default_recipe, read_recipe

CASIA = (490_623, 10_572)  # images and identities of InsightFace's CASIA-WebFace
PAIRS = 6_000 * (5 + 2)  # five benchmarks and two skin tones
PICTURE = 25_000  # bytes of a photo of 112 x 112 pixels as PNG
ROUNDS = 100  # of k-means, if it comes to rest after so many


@dataclasses.dataclass(frozen=True)
class Row:
    """A kind of stage: how often, images of each, epochs over them, operations and bytes in all."""

    name: str
    times: int
    images: int
    epochs: int
    flop: float
    disk: float


@dataclasses.dataclass(frozen=True)
class SearchCost:
    """Operations of a search and of its baseline, of a picture, and of looking at one; bytes."""

    search: float
    baseline: float
    decode: float
    disk: float


def training_rows(
    recipe: Recipe,
    real: tuple[int, int],
    people: tuple[tuple[int, int], ...],
    costs: dict[int, TrainingCost],
    seeds: int,
) -> list[Row]:
    """Rows of the trainings and of verification.

    Args:
        recipe: of both trainings.
        real: images and identities of the real set.
        people: images and identities of each size of generated people.
        costs: of a training by the number of identities.
        seeds: of each arm.
    """
    epochs = recipe.optimizer.epochs
    rows = []
    for images, identities in people:
        cost, times = costs[identities], len(KINDS) * seeds
        flop = times * epochs * images * cost.train_flop
        rows.append(
            Row(f"pretrain, {identities:,}", times, images, epochs, flop, times * cost.model)
        )
    cost, times = costs[real[1]], (1 + len(KINDS) * len(people)) * seeds
    flop = times * epochs * real[0] * cost.train_flop
    rows.append(Row(f"train, {real[1]:,}", times, real[0], epochs, flop, times * cost.model))
    embedded = 2 * 2 * PAIRS  # pictures and their mirror images
    rows.append(Row("verify", times, embedded, 1, times * embedded * cost.embed_flop, 0.0))
    return rows


def people_rows(config: RunConfig, cost: SearchCost) -> tuple[list[Row], list[tuple[int, int]]]:
    """Rows of the data sets of people; and images and identities of each size."""
    table = config.dataset.subjects
    assert table is not None
    count, _ = table.drawn
    dim = 7168
    rows, sizes = [], []
    for latents in SIZES.values():
        images, people = count * latents, -(-latents // table.size)
        classes = 9
        rounds = table.restarts * min(table.iterations, ROUNDS)
        grouping = rounds * 2.0 * latents * people * dim / classes
        flop = len(KINDS) * (images * cost.decode + grouping)
        disk = len(KINDS) * images * PICTURE
        rows.append(Row(f"people, {latents:,} latents", len(KINDS), images, 1, flop, disk))
        sizes.append((images, people))
    return rows, sizes


def search_cost(config: RunConfig, domain: Any) -> SearchCost:
    """Count a search, its baseline and a picture."""
    costs = []
    for each in (config, baseline_of(config)):
        step, start = count_operations(each, domain)
        per_step = each.search.emitters * (1 + each.search.branches)
        costs.append(start + step * each.search.evaluations / per_step)
    latents = jax.ShapeDtypeStruct((1, domain.latent_dim), jnp.float32)
    analysis: Any = jax.jit(domain.decode).lower(domain.params, latents).cost_analysis()
    cells = 1
    for measure in config.measures:
        cells *= measure.cells
    held = 4.0 * domain.latent_dim * min(cells, config.search.evaluations)
    return SearchCost(*costs, decode=float(analysis["flops"]), disk=4 * held)


def paper_domain() -> Any:
    """StyleGAN2 FFHQ-256 and ViT-B/32 with weights drawn at random."""
    sys.path.append(str(Path(__file__).resolve().with_name("benchmarks")))
    from faces import Setting, build_domain

    return build_domain(Setting(), None, None)


def plan(
    run_file: Path | None,
    real_folder: Path | None,
    seeds: int,
    utilisation: float,
    recipe_file: Path | None = None,
) -> None:
    """Print the plan."""
    print("counting: the search, a picture, and trainings of IR-101 ...", flush=True)
    if run_file is None:
        config, domain = parse_run(packaged_run("faces"), "faces.toml"), paper_domain()
    else:
        from qdgs_jax.domains import load_domain

        config = read_run_file(run_file)
        domain = load_domain(config)
    recipe = default_recipe() if recipe_file is None else read_recipe(recipe_file)
    real = CASIA
    if real_folder is not None:
        manifest = read_manifest(real_folder)
        real = (manifest.count, int(manifest.source["identities"]))
    cost = search_cost(config, domain)
    rows = [
        Row("search", 1, config.search.evaluations, 1, cost.search, cost.disk),
        Row("random sampling", 1, config.search.evaluations, 1, cost.baseline, cost.disk),
    ]
    made, sizes = people_rows(config, cost)
    network = recipe.network.config()
    costs = {people: training_cost(network, people) for _, people in (*sizes, real)}
    rows += made
    rows += training_rows(recipe, real, tuple(sizes), costs, seeds)
    rows.append(Row("real faces", 1, real[0], 1, 0.0, real[0] * PICTURE))
    show(rows, utilisation)
    one, batch = costs[real[1]], recipe.optimizer.batch_size
    print(
        f"IR-{network.depth}: {one.train_flop / 1e9:.1f} GFLOP to learn from an image, "
        f"{one.embed_flop / 1e9:.1f} to embed one; {one.parameters / 1e6:.1f} M numbers, "
        f"{one.head / 1e6:.1f} M in the head of {real[1]:,} identities"
    )
    print(
        f"memory of a training in bfloat16: {one.memory(batch) / 1e9:.1f} GB at {batch} images a "
        f"step, {one.activations / 1e6:.0f} MB of it for each image; a checkpoint "
        f"{one.checkpoint / 1e9:.2f} GB"
    )


def show(rows: list[Row], utilisation: float) -> None:
    """Print rows and their sum as a table."""
    devices = list(hours(1.0, utilisation))
    header = ["stage", "times", "images", "epochs", "PFLOP", "disk, GB", *devices]
    print(f"hours of one device at {100 * utilisation:.0f} % of its peak in bfloat16")
    print(f"| {' | '.join(header)} |")
    print("| --- |" + " ---: |" * (len(header) - 1))
    total = Row("all", 1, 0, 0, sum(r.flop for r in rows), sum(r.disk for r in rows))
    for row in (*rows, total):
        counts = [row.times, row.images, row.epochs] if row is not total else ["", "", ""]
        cells = [f"{n:,}" if isinstance(n, int) else n for n in counts]
        cells += [f"{row.flop / 1e15:,.1f}", f"{row.disk / 1e9:,.1f}"]
        cells += [f"{n:,.1f}" for n in hours(row.flop, utilisation).values()]
        print(f"| {row.name} | {' | '.join(cells)} |")
