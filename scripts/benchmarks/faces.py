"""Speed of the whole search of faces at full size: StyleGAN2 FFHQ-256 and CLIP ViT-B/32.

    python scripts/benchmarks/faces.py                              # the table, weights at random
    python scripts/benchmarks/faces.py --only paper --repeats 5     # one row of it
    python scripts/benchmarks/faces.py --emitters 8 --batch 4 --remat --cutouts 8 --archive bfloat16
    python scripts/benchmarks/faces.py --generator weights/ffhq-256 --clip weights/vit-b-32

A step of CMA-MAEGA evaluates per emitter one parent with the Jacobian of its 5 outputs and 3
branches, into the whole archive of 156,250 cells. Each row runs in a process of its own, whose peak
memory is told. It measures the ceiling of float32 matrix products, the step and the networks alone
in turns; figures are medians. Operations are those of the networks without recomputation, as XLA
counts them: the published program's 348 GFLOP a step, of which it does 0.94 evaluations/s where the
ceiling is 366 GFLOP/s.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import json
import platform
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from flax import nnx
from networks import FFHQ_256
from shapes import VIT_B32, matmul_ceiling

from qdgs_jax.domains.cutouts import random_cutouts
from qdgs_jax.domains.evaluation import Computation
from qdgs_jax.domains.faces import CodeGenerator, latent_statistics, load_code_generator
from qdgs_jax.domains.prompted import PromptedDomain, embed_images
from qdgs_jax.domains.protocol import DomainParams
from qdgs_jax.domains.scoring import PromptAxis, Targets
from qdgs_jax.domains.weights import load_clip
from qdgs_jax.emitters.registry import build_emitter
from qdgs_jax.models.clip import CLIP
from qdgs_jax.models.stylegan2 import Generator, code_statistics
from qdgs_jax.problem import pull_back_outputs
from qdgs_jax.runs.config import SearchConfig
from qdgs_jax.search import Search

PUBLISHED, PUBLISHED_CEILING = 0.94, 366e9  # evaluations/s; FLOP/s of the machine it ran on
BRANCHES = 3
DIMS, RANGES = (50, 25, 5, 25), ((-0.1, 0.1),) * 4


@dataclasses.dataclass(frozen=True)
class Setting:
    """A row of the table."""

    emitters: int = 1
    cutouts: int = 1
    batch: int = 0
    remat: bool = False
    archive: str = "float32"
    dtype: str = "float32"


TABLE = {
    "paper": Setting(),
    "paper, archive in bfloat16": Setting(archive="bfloat16"),
    "no cutout": Setting(cutouts=0),
    "8 cutouts": Setting(cutouts=8),
    "4 emitters": Setting(emitters=4),
    "4 emitters, batch 2": Setting(emitters=4, batch=2),
    "4 emitters, batch 2, remat": Setting(emitters=4, batch=2, remat=True),
}


def build_domain(setting: Setting, generator: str | None, clip: str | None) -> PromptedDomain:
    """The domain at full size; without folders its weights are drawn at random."""
    computation = Computation(setting.batch, setting.dtype, "default", setting.remat)
    options: dict[str, Any] = {"dtype": setting.dtype, "remat": setting.remat}
    if generator:
        codes, weights, found = load_code_generator(generator, computation=computation)
    else:
        gan = Generator(FFHQ_256, rngs=nnx.Rngs(0), **options)
        measured = code_statistics(gan.mapping, FFHQ_256.num_ws)
        found = latent_statistics(measured, np.zeros(FFHQ_256.w_dim, np.float32), FFHQ_256.num_ws)
        graph, weights = nnx.split(gan)
        codes = CodeGenerator(graph, FFHQ_256)
    model = load_clip(clip, computation)[0] if clip else CLIP(VIT_B32, rngs=nnx.Rngs(1), **options)
    tower_graph, tower = nnx.split(model.visual)
    texts = jax.random.normal(jax.random.key(2), (10, 1, model.cfg.embed_dim))
    axes = [PromptAxis(texts[i], texts[i + 1]) for i in range(0, 10, 2)]
    params = DomainParams(weights, tower, Targets(axes[0], tuple(axes[1:])), found)
    return PromptedDomain(
        codes,
        tower_graph,
        model.cfg,
        params,
        computation,
        cutouts=setting.cutouts,
        norm_weight=0.5,
        uniqueness_weight=0.2,
    )


def networks(domain: PromptedDomain) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """The networks alone: embeddings, and with their pull-back by five cotangents."""

    def embed(params: DomainParams, latents: jax.Array) -> jax.Array:
        images = domain.decode(params, latents)
        size = domain.clip_config.image_size
        pieces = random_cutouts(images, jax.random.key(0), domain.cutouts, size)
        flat = pieces.reshape(-1, *pieces.shape[2:])
        embeds = embed_images(domain.clip_graph, domain.clip_config, params.clip, flat)
        return embeds.reshape(*pieces.shape[:2], -1).mean(axis=0)

    def pull_back(params: DomainParams, latents: jax.Array) -> Any:
        def outputs(latents: jax.Array) -> tuple[jax.Array, jax.Array]:
            embeds = embed(params, latents)
            return embeds[:, 0], embeds[:, 1:5]

        scores, backward = jax.vjp(outputs, latents)
        return scores, pull_back_outputs(backward, *scores)

    return embed, pull_back


def lowered_flop(function: Callable[..., Any], *arguments: Any) -> float:
    """Floating-point operations of a function without loops, as XLA counts them."""
    analysis: Any = jax.jit(function).lower(*arguments).cost_analysis()
    return float(analysis["flops"])


def networks_in_batches(domain: PromptedDomain, setting: Setting) -> list[Callable[[], Any]]:
    """Calls that together do what the networks do in a step, as many latents at a time."""
    params = domain.params
    calls: list[Callable[[], Any]] = []
    parts = zip(networks(domain), (BRANCHES * setting.emitters, setting.emitters), strict=True)
    for function, count in parts:
        size = min(count, setting.batch or count)
        latents = domain.sample(params, jax.random.key(3), size)
        compiled = jax.jit(function)

        def call(
            compiled: Any = compiled, latents: jax.Array = latents, n: int = -(-count // size)
        ) -> None:
            for _ in range(n):
                jax.block_until_ready(compiled(params, latents))

        calls.append(call)
    return calls


def clocks() -> np.ndarray:
    """Wall time, and CPU time, which other programs on the machine disturb less."""
    return np.asarray([time.perf_counter(), time.process_time()])


def measure(
    setting: Setting, repeats: int, generator: str | None, clip: str | None
) -> dict[str, Any]:
    """Time the whole step, the networks alone and the ceiling, in turns."""
    domain = build_domain(setting, generator, clip)
    params = domain.params
    settings = SearchConfig(emitters=setting.emitters, branches=BRANCHES)
    emitter = build_emitter("cma_maega", settings, domain.latent_dim, domain.num_measures)
    search = Search(
        domain,
        emitter,
        chunk=1,
        dims=DIMS,
        ranges=RANGES,
        learning_rate=0.02,
        threshold_min=0.0,
        dtype=setting.archive,
    )
    start = domain.sample(params, jax.random.key(0), setting.emitters)
    state = search.init(start, jax.random.key(1), params=params)
    compile_s = time.perf_counter()
    state, _ = search.run(state, 1, params=params)
    compile_s = time.perf_counter() - compile_s
    alone = networks_in_batches(domain, setting)
    for call in alone:
        call()

    ceilings, steps, singles = [], [], []
    for _ in range(repeats):
        ceilings.append(matmul_ceiling(repeats=2))
        began = clocks()
        state, _ = jax.block_until_ready(search.run(state, 1, params=params))
        steps.append(clocks() - began)
        began = clocks()
        for call in alone:
            call()
        singles.append(clocks() - began)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024

    plain = build_domain(dataclasses.replace(setting, remat=False), generator, clip)
    embed, pull_back = networks(plain)
    one = jax.ShapeDtypeStruct((1, plain.latent_dim), np.float32)
    evaluation, jacobian = (lowered_flop(f, plain.params, one) for f in (embed, pull_back))
    flop = setting.emitters * (jacobian + BRANCHES * evaluation)
    step_s, ceiling = float(np.median(steps, axis=0)[0]), statistics.median(ceilings)
    over, over_cpu = np.median(np.divide(steps, singles), axis=0).tolist()
    rate = setting.emitters * (1 + BRANCHES) / step_s
    return {
        "step_s": step_s,
        "evaluations_per_second": rate,
        "times_published_at_equal_ceiling": rate / PUBLISHED * PUBLISHED_CEILING / ceiling,
        "ceiling_gflops": ceiling / 1e9,
        "share_of_ceiling": flop / step_s / ceiling,
        "step_over_networks": over,
        "step_over_networks_cpu": over_cpu,
        "peak_gib": peak / 2**30,
        "gflop_per_step": flop / 1e9,
        "gflop_per_evaluation": evaluation / 1e9,
        "gflop_per_jacobian": jacobian / 1e9,
        "compile_s": compile_s,
    }


def in_process(arguments: list[str]) -> dict[str, Any]:
    """Measure a row in a process of its own."""
    command = [sys.executable, __file__, "--json", *arguments]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    row: dict[str, Any] = json.loads(done.stdout)
    return row


def as_arguments(setting: Setting) -> list[str]:
    words = []
    for name, value in dataclasses.asdict(setting).items():
        words += (
            [f"--{name}"] if value is True else [] if value is False else [f"--{name}", f"{value}"]
        )
    return words


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    for field in dataclasses.fields(Setting):
        option = functools.partial(parser.add_argument, f"--{field.name}")
        if isinstance(field.default, bool):
            option(action="store_true", default=None)
        else:
            option(type=type(field.default))
    parser.add_argument("--only", choices=TABLE, nargs="+", help="these rows of the table")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--generator", help="folder of a ported StyleGAN2; random if absent")
    parser.add_argument("--clip", help="folder of a ported CLIP; random if absent")
    parser.add_argument("--json", action="store_true", help="one row, all figures")
    return parser.parse_args()


def main() -> None:
    args = parsed()
    names = [field.name for field in dataclasses.fields(Setting)]
    chosen = {name: getattr(args, name) for name in names if getattr(args, name) is not None}
    if args.json:
        row = measure(Setting(**chosen), args.repeats, args.generator, args.clip)
        print(json.dumps(row))
        return
    table = {"chosen": Setting(**chosen)} if chosen else TABLE
    common = ["--repeats", str(args.repeats)]
    for name in ("generator", "clip"):
        common += [f"--{name}", getattr(args, name)] if getattr(args, name) else []
    print(f"{platform.processor() or platform.machine()}, jax {jax.__version__}, {jax.devices()}\n")
    print(
        "| setting | s a step | evaluations/s | times published | ceiling, GFLOP/s | share of it | "
        "step over networks | peak, GiB |"
    )
    print("| --- |" + " ---: |" * 7)
    for name, setting in table.items():
        if args.only and name not in args.only:
            continue
        row = in_process([*as_arguments(setting), *common])
        print(
            f"| {name} | {row['step_s']:.2f} | {row['evaluations_per_second']:.2f} | "
            f"{row['times_published_at_equal_ceiling']:.2f} | {row['ceiling_gflops']:.0f} | "
            f"{100 * row['share_of_ceiling']:.0f} % | {row['step_over_networks']:.3f} | "
            f"{row['peak_gib']:.1f} |",
            flush=True,
        )
        print(json.dumps({"setting": name, **row}), file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
