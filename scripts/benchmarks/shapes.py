"""Speed of the whole search at full size: the 128 x 128 shapes VAE and CLIP ViT-B/32.

    python scripts/benchmarks/shapes.py                      # weights drawn at random, true sizes
    python scripts/benchmarks/shapes.py --clip FOLDER        # a CLIP written by `qdgs port clip`

One CMA-MAEGA step evaluates E parents with their Jacobians (objective and two measures) and 3 E
branches. The same run measures the machine's float32 matrix-product ceiling and the networks alone,
so that every ratio compares like with like. Floating-point operations are counted from the layers'
shapes; a Jacobian of k outputs costs one forward pass and k backward passes of the networks'
inputs.
"""

from __future__ import annotations

import argparse
import functools
import json
import platform
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
from flax import nnx

from qdgs_jax.domains.cutouts import random_cutouts
from qdgs_jax.domains.prompted import PromptedDomain, embed_images
from qdgs_jax.domains.protocol import DomainParams, LatentStatistics
from qdgs_jax.domains.scoring import PromptAxis, Targets
from qdgs_jax.domains.shapes import VAEGenerator, load_vae_decoder
from qdgs_jax.domains.weights import load_clip
from qdgs_jax.emitters.registry import build_emitter
from qdgs_jax.models.clip import CLIP, CLIPConfig, TowerConfig
from qdgs_jax.models.vae import Decoder, VAEConfig
from qdgs_jax.runs.config import SearchConfig
from qdgs_jax.search import Search

PUBLISHED = 4.3  # evaluations/s of the published program on 2 threads of such a machine
VIT_B32 = CLIPConfig(
    vision=TowerConfig(width=768, layers=12, heads=12, mlp_width=3072),
    text=TowerConfig(width=512, layers=12, heads=8, mlp_width=2048),
    image_size=224,
    patch_size=32,
    vocab_size=49408,
    context_length=77,
    embed_dim=512,
)


def build_domain(clip_folder: str | None, generator_folder: str | None) -> PromptedDomain:
    """The domain at full size; without folders its weights are drawn at random."""
    if generator_folder:
        generator, weights = load_vae_decoder(generator_folder)
    else:
        graph, weights = nnx.split(Decoder(VAEConfig(), rngs=nnx.Rngs(0)))
        generator = VAEGenerator(graph, VAEConfig().latent_dim)
    clip = load_clip(clip_folder)[0] if clip_folder else CLIP(VIT_B32, rngs=nnx.Rngs(0))
    clip_graph, tower = nnx.split(clip.visual)
    texts = jax.random.normal(jax.random.key(1), (6, 1, clip.cfg.embed_dim))
    axes = [PromptAxis(texts[i], texts[i + 1]) for i in (0, 2, 4)]
    params = DomainParams(
        generator=weights,
        clip=tower,
        targets=Targets(axes[0], tuple(axes[1:])),
        statistics=LatentStatistics.standard(generator.latent_dim),
    )
    return PromptedDomain(generator, clip_graph, clip.cfg, params)


def forward_flops(domain: PromptedDomain) -> float:
    """Floating-point operations of one evaluation: decode, pool, embed."""
    cfg = domain.clip_config
    tokens, width = (cfg.image_size // cfg.patch_size) ** 2 + 1, cfg.vision.width
    per_token = 4 * width**2 + 2 * width * cfg.vision.mlp_width + 2 * tokens * width
    vit = cfg.vision.layers * tokens * per_token + (tokens - 1) * cfg.patch_size**2 * 3 * width
    pooling = 3 * 128 * cfg.image_size * (128 + cfg.image_size)
    grids = ((17, 32, 32), (33, 32, 16), (65, 16, 3))  # windows per side, channels in and out
    vae = 6 * 8192 + sum(side**2 * 4 * c_in * 4 * c_out for side, c_in, c_out in grids)
    return 2.0 * (vit + pooling + vae)


def seconds(function: Callable[[], Any], repeats: int) -> float:
    """Median wall time of a call that is already compiled."""
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        jax.block_until_ready(function())
        times.append(time.perf_counter() - start)
    return sorted(times)[len(times) // 2]


def matmul_ceiling(size: int = 3072, repeats: int = 7) -> float:
    """Float32 matrix-product rate in FLOP/s, the best of a few products."""
    a = jax.random.normal(jax.random.key(0), (size, size))
    product = jax.jit(lambda a, b: a @ b)
    jax.block_until_ready(product(a, a))
    best = min(seconds(lambda: product(a, a), 1) for _ in range(repeats))
    return 2.0 * size**3 / best


def networks(domain: PromptedDomain) -> tuple[Any, Any]:
    """The networks alone, compiled: embeddings, and their pull-back by three cotangents."""

    def embed(params: DomainParams, latents: jax.Array) -> jax.Array:
        images = domain.decode(params, latents)
        pooled = random_cutouts(images, jax.random.key(0), 0, domain.clip_config.image_size)[0]
        return embed_images(domain.clip_graph, domain.clip_config, params.clip, pooled)

    def pull_back(params: DomainParams, latents: jax.Array, cotangents: jax.Array) -> Any:
        embeds, backward = jax.vjp(functools.partial(embed, params), latents)
        return embeds, jax.vmap(backward)(cotangents)

    return jax.jit(embed), jax.jit(pull_back)


def measure(domain: PromptedDomain, emitters: int, repeats: int) -> dict[str, Any]:
    """Time the whole step, the networks alone and the ceiling, interleaved."""
    params, branches = domain.params, 3
    settings = SearchConfig(emitters=emitters, branches=branches)
    emitter = build_emitter("cma_maega", settings, domain.latent_dim, domain.num_measures)
    ranges = ((-3.2, 3.2),) * domain.num_measures
    search = Search(
        domain, emitter, dims=(50, 50), ranges=ranges, learning_rate=0.02, threshold_min=0.0
    )
    latents = domain.sample(params, jax.random.key(0), emitters)
    state = search.init(latents, jax.random.key(1), params=params)
    start = time.perf_counter()
    state, _ = jax.block_until_ready(search.run(state, 1, params=params))
    compile_s = time.perf_counter() - start

    embed, pull_back = networks(domain)
    many = domain.sample(params, jax.random.key(2), branches * emitters)
    cotangents = jax.random.normal(
        jax.random.key(3), (1 + domain.num_measures, emitters, domain.clip_config.embed_dim)
    )
    jax.block_until_ready((embed(params, many), pull_back(params, latents, cotangents)))

    ceilings, steps, forwards, backwards = [], [], [], []
    for _ in range(repeats):
        ceilings.append(matmul_ceiling(repeats=2))
        start = time.perf_counter()
        state, _ = jax.block_until_ready(search.run(state, 1, params=params))
        steps.append(time.perf_counter() - start)
        forwards.append(seconds(lambda: embed(params, many), 1))
        backwards.append(seconds(lambda: pull_back(params, latents, cotangents), 1))
    middle = repeats // 2
    ceiling, step_s = sorted(ceilings)[middle], sorted(steps)[middle]
    forward_s, backward_s = sorted(forwards)[middle], sorted(backwards)[middle]
    flops = forward_flops(domain)
    jacobian_flops = (2 + domain.num_measures) * flops
    evaluations = emitters * (1 + branches)
    step_rate = (emitters * jacobian_flops + branches * emitters * flops) / step_s
    overheads = sorted(s / (f + b) for s, f, b in zip(steps, forwards, backwards, strict=True))
    return {
        "emitters": emitters,
        "evaluations_per_second": evaluations / step_s,
        "ratio_to_published": evaluations / step_s / PUBLISHED,
        "step_s": step_s,
        "step_over_networks": overheads[middle],
        "step_gflops": step_rate / 1e9,
        "step_share_of_ceiling": step_rate / ceiling,
        "forward_gflops": branches * emitters * flops / forward_s / 1e9,
        "jacobian_gflops": emitters * jacobian_flops / backward_s / 1e9,
        "ceiling_gflops": ceiling / 1e9,
        "gflop_per_evaluation": flops / 1e9,
        "gflop_per_jacobian": jacobian_flops / 1e9,
        "compile_s": compile_s,
        "programs_compiled_for_the_loop": search._one_step.programs(),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clip", help="folder of a ported CLIP; random ViT-B/32 if absent")
    parser.add_argument("--generator", help="folder of a ported VAE; random if absent")
    parser.add_argument("--emitters", type=int, nargs="+", default=[16])
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--json", type=Path, help="also write the figures here")
    args = parser.parse_args()

    print(f"{platform.processor() or platform.machine()}, jax {jax.__version__}, {jax.devices()}")
    domain = build_domain(args.clip, args.generator)
    rows = [measure(domain, emitters, args.repeats) for emitters in args.emitters]
    for row in rows:
        for name, value in row.items():
            print(f"{name:32s} {value:.4g}" if isinstance(value, float) else f"{name:32s} {value}")
        print()
    if args.json:
        args.json.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
