"""Speed of StyleGAN2 FFHQ-256 and CLIP ViT-B/32 at full size, beside PyTorch where it is installed.

    python scripts/benchmarks/networks.py              # images/s, beside PyTorch with `crosscheck`
    python scripts/benchmarks/networks.py --compile    # compile time of both networks' Jacobian
    python scripts/benchmarks/networks.py --bfloat16   # what bfloat16 does to the measures
    python scripts/benchmarks/networks.py --upsampling # StyleGAN2's ways to upsample, compared

Weights are drawn at random, sizes are the true ones. Networks and peers are timed in turns, so that
a slow minute of the machine meets both; figures are medians. A Jacobian is that of five outputs, as
of an objective and four measures, with respect to the codes of all layers.
"""

from __future__ import annotations

import argparse
import importlib.util
import statistics
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from shapes import VIT_B32

from qdgs_jax.domains.cutouts import random_cutouts
from qdgs_jax.domains.scoring import PromptAxis
from qdgs_jax.models.clip import VisionTower
from qdgs_jax.models.stylegan2 import Generator, StyleGAN2Config
from qdgs_jax.models.stylegan2.resample import UPSAMPLERS
from qdgs_jax.problem import value_and_jacobian

FFHQ_256 = StyleGAN2Config.from_base(256, channel_base=16384, conv_clamp=256.0)
OUTPUTS = 5
VIT_BATCH = 16
GAN_BATCH = 4
CELL = 0.004  # of a measure on [-0.1, 0.1] in 50 cells

Call = Callable[[], Any]


def median_seconds(calls: dict[str, Call], repeats: int) -> dict[str, float]:
    """Median wall time of each call, taken in turns after one round to warm up."""
    times: dict[str, list[float]] = {name: [] for name in calls}
    for turn in range(repeats + 1):
        for name, call in calls.items():
            began = time.perf_counter()
            call()
            if turn:
                times[name].append(time.perf_counter() - began)
    return {name: statistics.median(taken) for name, taken in times.items()}


def build_synthesis(**settings: Any) -> tuple[Any, Any]:
    """Graph and weights of the FFHQ-256 synthesis network."""
    generator = Generator(FFHQ_256, rngs=nnx.Rngs(0), **settings)
    return nnx.split(generator.synthesis)


def build_tower(**settings: Any) -> tuple[Any, Any]:
    """Graph and weights of ViT-B/32's image tower."""
    return nnx.split(VisionTower(VIT_B32, rngs=nnx.Rngs(1), **settings))


def scores_of(images: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Objective Float[B] and four measures Float[B, 4]: fixed mixtures of the pixels."""
    flat = images.reshape(images.shape[0], -1)
    mixture = jnp.cos(jnp.arange(flat.shape[1] * OUTPUTS, dtype=jnp.float32) * 1.618)
    outputs = flat @ mixture.reshape(-1, OUTPUTS) / flat.shape[1]
    return outputs[:, 0], outputs[:, 1:]


def tower_calls() -> dict[str, Call]:
    """Compiled call of the image tower."""
    graph, tower = build_tower()
    images = jax.random.normal(jax.random.key(2), (VIT_BATCH, 224, 224, 3))
    embed = jax.jit(lambda weights, x: nnx.merge(graph, weights)(x))
    return {"embed": lambda: jax.block_until_ready(embed(tower, images))}


def synthesis_calls(**settings: Any) -> dict[str, Call]:
    """Compiled calls of the synthesis network and of its Jacobian."""
    gan_graph, gan = build_synthesis(**settings)
    ws = jax.random.normal(jax.random.key(3), (GAN_BATCH, FFHQ_256.num_ws, FFHQ_256.w_dim))
    synthesise = jax.jit(lambda weights, ws: nnx.merge(gan_graph, weights)(ws))

    @jax.jit
    def differentiate(weights: Any, codes: jax.Array) -> Any:
        def score(codes: jax.Array) -> tuple[jax.Array, jax.Array]:
            return scores_of(synthesise(weights, codes.reshape(ws.shape)))

        return value_and_jacobian(score, codes)

    codes = ws.reshape(GAN_BATCH, -1)
    return {
        "synthesise": lambda: jax.block_until_ready(synthesise(gan, ws)),
        "differentiate": lambda: jax.block_until_ready(differentiate(gan, codes)),
    }


def speeds(repeats: int, threads: int) -> None:
    """Print milliseconds per image, and how many times faster than PyTorch."""
    tower, gan = tower_calls(), synthesis_calls()
    peers: list[dict[str, Call]] = [{}, {}]
    if importlib.util.find_spec("torch") is not None:
        import networks_torch

        networks_torch.set_threads(threads)
        peers = [
            networks_torch.tower_calls(VIT_BATCH),
            networks_torch.synthesis_calls(FFHQ_256.channels, GAN_BATCH, OUTPUTS),
        ]
    else:
        print("PyTorch is not installed (extra `crosscheck`): our figures alone.\n")
    print("| network | batch | ms per image | PyTorch, ms per image | times faster |")
    print("| --- | ---: | ---: | ---: | ---: |")
    names = {
        "embed": "ViT-B/32 image tower",
        "synthesise": "FFHQ-256 synthesis",
        "differentiate": f"FFHQ-256 value and Jacobian of {OUTPUTS} outputs",
    }
    for ours, theirs, batch in zip((tower, gan), peers, (VIT_BATCH, GAN_BATCH), strict=True):
        calls = {**ours, **{f"torch {name}": call for name, call in theirs.items()}}
        taken = {name: 1e3 * s / batch for name, s in median_seconds(calls, repeats).items()}
        for name in ours:
            cells = [f"{taken[name]:.1f}", "", ""]
            if theirs:
                peer = taken[f"torch {name}"]
                cells[1:] = [f"{peer:.1f}", f"{peer / taken[name]:.2f}"]
            print(f"| {names[name]} | {batch} | {' | '.join(cells)} |")
    print()


def upsampling(repeats: int) -> None:
    """Print milliseconds per image for each way to upsample; all give the same images."""
    calls = {
        f"{method} {name}": call
        for method in UPSAMPLERS
        for name, call in synthesis_calls(upsampling=method).items()
    }
    taken = {name: 1e3 * s / GAN_BATCH for name, s in median_seconds(calls, repeats).items()}
    print(f"| upsampling | images, ms | Jacobian of {OUTPUTS} outputs, ms |")
    print("| --- | ---: | ---: |")
    for method in UPSAMPLERS:
        cells = [f"{taken[f'{method} {name}']:.1f}" for name in ("synthesise", "differentiate")]
        print(f"| {method} | {' | '.join(cells)} |")
    print()


def embedder(dtype: Any) -> tuple[Callable[..., jax.Array], Any]:
    """From codes to CLIP embeddings, both networks in a type; and all weights."""
    gan_graph, gan = build_synthesis(dtype=dtype)
    tower_graph, tower = build_tower(dtype=dtype)

    def embed(weights: Any, ws: jax.Array) -> jax.Array:
        images = nnx.merge(gan_graph, weights[0])(ws)
        pooled = random_cutouts((images + 1) / 2, jax.random.key(0), 0, VIT_B32.image_size)[0]
        return nnx.merge(tower_graph, weights[1])(pooled)

    return embed, (gan, tower)


def compile_time() -> None:
    """Print how long the Jacobian of both networks takes to compile."""
    embed, weights = embedder(jnp.float32)
    shape = (GAN_BATCH, FFHQ_256.num_ws, FFHQ_256.w_dim)
    directions = jax.random.normal(jax.random.key(4), (VIT_B32.embed_dim, OUTPUTS))

    def differentiate(weights: Any, codes: jax.Array) -> Any:
        def score(codes: jax.Array) -> tuple[jax.Array, jax.Array]:
            outputs = embed(weights, codes.reshape(-1, *shape[1:])) @ directions
            return outputs[:, 0], outputs[:, 1:]

        return value_and_jacobian(score, codes)

    codes = jnp.zeros((GAN_BATCH, int(np.prod(shape[1:]))))
    began = time.perf_counter()
    lowered = jax.jit(differentiate).lower(weights, codes)
    traced = time.perf_counter()
    lowered.compile()
    print(
        f"FFHQ-256 + ViT-B/32, value and Jacobian of {OUTPUTS} outputs, batch {GAN_BATCH}: traced "
        f"in {traced - began:.1f} s, compiled in {time.perf_counter() - traced:.1f} s\n"
    )


def bfloat16_shift(count: int) -> None:
    """Print how far both networks in bfloat16 move four measures of random prompts."""
    texts = jax.random.normal(jax.random.key(5), (8, 1, VIT_B32.embed_dim))
    axes = [PromptAxis(texts[i], texts[i + 1]) for i in range(0, 8, 2)]

    def measures(dtype: Any) -> np.ndarray:
        embed, weights = embedder(dtype)

        @jax.jit
        def score(weights: Any, ws: jax.Array) -> jax.Array:
            embeds = embed(weights, ws)
            return jnp.stack([axis.distance(embeds) for axis in axes], axis=-1)

        rows = []
        for key in jax.random.split(jax.random.key(6), count // GAN_BATCH):
            w = jax.random.normal(key, (GAN_BATCH, 1, FFHQ_256.w_dim))
            rows.append(score(weights, jnp.repeat(w, FFHQ_256.num_ws, axis=1)))
        return np.concatenate(rows)

    moved = np.abs(measures(jnp.bfloat16) - measures(jnp.float32))
    inside = 100 * (moved < CELL / 4).mean(axis=0)
    print(
        f"bfloat16 moves four measures of {len(moved)} latents by {np.median(moved):.2g} "
        f"(median) and {np.quantile(moved, 0.95):.2g} (95 %), by less than a quarter of a cell of "
        f"width {CELL} for {inside.min():.1f} % of the latents (measure moved most)\n"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--threads", type=int, default=2, help="of PyTorch")
    parser.add_argument("--compile", action="store_true", help="compile time instead")
    parser.add_argument("--bfloat16", action="store_true", help="shift of the measures instead")
    parser.add_argument("--upsampling", action="store_true", help="ways to upsample instead")
    parser.add_argument("--latents", type=int, default=64, help="for --bfloat16")
    args = parser.parse_args()
    print(f"{jax.devices()[0].device_kind}, jax {jax.__version__}\n")
    if args.compile:
        compile_time()
    if args.bfloat16:
        bfloat16_shift(args.latents)
    if args.upsampling:
        upsampling(args.repeats)
    if not (args.compile or args.bfloat16 or args.upsampling):
        speeds(args.repeats, args.threads)


if __name__ == "__main__":
    main()
