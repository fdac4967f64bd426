"""Memory of evaluations and of their Jacobians, for the settings of the table [evaluation].

    python scripts/benchmarks/memory.py             # the shapes domain with its embedded weights
    python scripts/benchmarks/memory.py --stylegan2 # FFHQ-256 + ViT-B/32, compiled, never allocated

Temporary memory is what the compiler says of the program, weights and results apart. For the shapes
domain the scores are compared, too, with those of all latents at once in float32.
"""

from __future__ import annotations

import argparse
import tomllib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from networks import FFHQ_256
from shapes import VIT_B32

from qdgs_jax.domains.evaluation import Computation
from qdgs_jax.domains.faces import CodeGenerator
from qdgs_jax.domains.prompted import PromptedDomain
from qdgs_jax.domains.prompts import PromptPair, embed_prompts, split_prompt
from qdgs_jax.domains.protocol import DomainParams, LatentStatistics
from qdgs_jax.domains.scoring import PromptAxis, Targets
from qdgs_jax.domains.shapes import load_vae_decoder
from qdgs_jax.domains.weights import ASSETS, load_clip
from qdgs_jax.models.clip import VisionTower
from qdgs_jax.models.stylegan2 import Generator

SHAPES = {
    "all at once": Computation(),
    "batch = 8": Computation(batch=8),
    "remat": Computation(remat=True),
    "batch = 8, remat": Computation(batch=8, remat=True),
    "bfloat16": Computation(dtype="bfloat16"),
}
STYLEGAN2 = {
    "all at once": Computation(),
    "batch = 4": Computation(batch=4),
    "batch = 4, remat": Computation(batch=4, remat=True),
}


def shapes_domain(computation: Computation, cutouts: int = 2) -> PromptedDomain:
    """The packaged run's networks and prompts."""
    tables = tomllib.loads((ASSETS / "shapes.toml").read_text())
    generator, weights = load_vae_decoder("embedded:shapes-vae", computation)
    clip, tokenizer = load_clip("embedded:shapes-clip", computation)
    graph, tower = nnx.split(clip.visual)
    pairs = [
        PromptPair(split_prompt(table["positive"]), split_prompt(table["negative"]))
        for table in (tables["objective"], *tables["measures"])
    ]
    objective, *measures = embed_prompts(clip, tokenizer, pairs)
    statistics = LatentStatistics.standard(generator.latent_dim)
    params = DomainParams(weights, tower, Targets(objective, tuple(measures)), statistics)
    return PromptedDomain(generator, graph, clip.cfg, params, computation, cutouts=cutouts)


def stylegan2_domain(computation: Computation) -> PromptedDomain:
    """FFHQ-256 and ViT-B/32 without a number in them: shapes alone."""
    settings: dict[str, Any] = {"dtype": computation.dtype, "remat": computation.remat}

    def networks() -> tuple[Generator, VisionTower]:
        gan = Generator(FFHQ_256, rngs=nnx.Rngs(0), **settings)
        return gan, VisionTower(VIT_B32, rngs=nnx.Rngs(1), **settings)

    (gan_graph, gan), (graph, tower) = map(nnx.split, nnx.eval_shape(networks))
    generator = CodeGenerator(gan_graph, FFHQ_256)

    def others() -> tuple[Targets, LatentStatistics]:
        text = jnp.zeros((1, VIT_B32.embed_dim))
        targets = Targets(PromptAxis(text, text), (PromptAxis(text, text),) * 4)
        return targets, LatentStatistics.standard(generator.latent_dim)

    params = DomainParams(gan, tower, *jax.eval_shape(others))
    return PromptedDomain(generator, graph, VIT_B32, params, computation)


def compiled(domain: PromptedDomain, count: int, jacobian: bool) -> jax.stages.Compiled:
    """The program of `count` evaluations."""
    latents = jax.ShapeDtypeStruct((count, domain.latent_dim), jnp.float32)
    key = jax.eval_shape(lambda: jax.random.key(0))
    evaluate = domain.evaluate_with_jacobian if jacobian else domain.evaluate
    return jax.jit(evaluate).lower(domain.params, (), latents, key).compile()


def megabytes(program: jax.stages.Compiled) -> float:
    """Temporary memory of a program."""
    analysis: Any = program.memory_analysis()
    return analysis.temp_size_in_bytes / 2**20


def shapes_table(count: int) -> None:
    """Print memory, and how far scores move, for each setting."""
    print(f"shapes, embedded weights, {count} latents, 2 cutouts, Jacobian of 3 outputs\n")
    print("| evaluation | memory, MB | of the Jacobian, MB | objective moves | measures move |")
    print("| --- | ---: | ---: | ---: | ---: |")
    wanted: list[np.ndarray] = []
    for name, computation in SHAPES.items():
        domain = shapes_domain(computation)
        plain, with_jacobian = (compiled(domain, count, jacobian) for jacobian in (False, True))
        latents = domain.sample(domain.params, jax.random.key(1), count)
        scores = plain(domain.params, (), latents, jax.random.key(2))
        found = [np.asarray(scores.fitnesses), np.asarray(scores.descriptors)]
        wanted = wanted or found
        moved = [np.abs(a - b).max() for a, b in zip(found, wanted, strict=True)]
        print(
            f"| {name} | {megabytes(plain):.0f} | {megabytes(with_jacobian):.0f} | "
            f"{moved[0]:.1g} | {moved[1]:.1g} |",
            flush=True,
        )
    print()


def stylegan2_table(count: int) -> None:
    """Print memory for each setting."""
    print(f"FFHQ-256 + ViT-B/32, {count} latents, Jacobian of 5 outputs\n")
    print("| evaluation | memory, MB | of the Jacobian, MB |")
    print("| --- | ---: | ---: |")
    for name, computation in STYLEGAN2.items():
        domain = stylegan2_domain(computation)
        figures = [megabytes(compiled(domain, count, jacobian)) for jacobian in (False, True)]
        print(f"| {name} | {figures[0]:.0f} | {figures[1]:.0f} |", flush=True)
    print()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--stylegan2", action="store_true", help="StyleGAN2 instead of the shapes")
    parser.add_argument("--latents", type=int, help="evaluated together (64; StyleGAN2: 16)")
    args = parser.parse_args()
    print(f"{jax.devices()[0].device_kind}, jax {jax.__version__}\n")
    if args.stylegan2:
        stylegan2_table(args.latents or 16)
    else:
        shapes_table(args.latents or 64)


if __name__ == "__main__":
    main()
