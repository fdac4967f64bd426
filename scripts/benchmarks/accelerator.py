"""Speed of a run's step on the device at hand: batch sizes, types, ceilings, utilisation.

    python scripts/benchmarks/accelerator.py                          # faces at true size
    python scripts/benchmarks/accelerator.py --emitters 16 64 256 --batch 0 32 --dtype bfloat16
    python scripts/benchmarks/accelerator.py --run shapes --clip vit-b-32
    python scripts/benchmarks/accelerator.py --run drawn-faces --emitters 2 --tiny   # anywhere

Weights are drawn at random, sizes are the true ones; time does not depend on the numbers. First the
device's ceilings are measured, a matrix product and a 3 x 3 convolution in both types; then a step
for each setting. Useful operations are those of the networks without recomputation; utilisation is
their share of what the bfloat16 product's ceiling allows. A setting that finds no room says so.
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from qdgs_jax import keys
from qdgs_jax.cli.compile import configured
from qdgs_jax.compiler_options import compile_long
from qdgs_jax.runs.config import RunConfig
from qdgs_jax.runs.plan import made_up_state
from qdgs_jax.runs.prepare import prepare_search
from qdgs_jax.targets.abstract import abstract_domain
from qdgs_jax.targets.flops import evaluation_flop
from qdgs_jax.targets.programs import jacobians_of

HEADER = (
    "| emitters | batch | type | evaluations a step | ms a step | evaluations/s | TFLOP/s | "
    "utilisation | memory, GiB | compile, s |"
)


def seconds_of(call: Callable[[], Any], repeats: int) -> float:
    """Median time of a call, after one to warm up."""
    times = []
    for turn in range(repeats + 1):
        began = time.perf_counter()
        jax.block_until_ready(call())
        if turn:
            times.append(time.perf_counter() - began)
    return statistics.median(times)


def ceilings(side: int, channels: int, repeats: int) -> dict[str, float]:
    """FLOP/s of a matrix product and of a convolution, in both types."""
    found = {}
    for dtype in (jnp.float32, jnp.bfloat16):
        key = jax.random.key(0)
        a = jax.random.normal(key, (side, side), dtype)
        x = jax.random.normal(key, (16, 64, 64, channels), dtype)
        kernel = jax.random.normal(key, (3, 3, channels, channels), dtype)
        product = jax.jit(lambda a: a @ a)
        convolution = jax.jit(
            lambda x, k: jax.lax.conv_general_dilated(
                x, k, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
            )
        )
        name = jnp.dtype(dtype).name
        taken = seconds_of(lambda a=a, product=product: product(a), repeats)
        found[f"product, {name}"] = 2 * side**3 / taken
        taken = seconds_of(lambda x=x, k=kernel, conv=convolution: conv(x, k), repeats)
        found[f"convolution, {name}"] = 2 * 16 * 64**2 * 9 * channels**2 / taken
    return found


def with_random_weights(domain: Any, key: jax.Array) -> Any:
    """A domain of shapes alone, filled with random numbers."""
    shapes, structure = jax.tree.flatten(domain.params)

    @jax.jit
    def draw(key: jax.Array) -> list[jax.Array]:
        parts = jax.random.split(key, len(shapes))
        return [
            0.05 * jax.random.normal(part, shape.shape, shape.dtype)
            for part, shape in zip(parts, shapes, strict=True)
        ]

    return dataclasses.replace(domain, params=jax.tree.unflatten(structure, draw(key)))


def step_row(config: RunConfig, ceiling: float, repeats: int) -> str:
    """Measure a step of a run: a row of the table."""
    key = keys.root(0)
    domain = with_random_weights(abstract_domain(config), keys.stream(key, "weights"))
    task = prepare_search(config, domain)
    plain = config.evaluation.model_copy(update={"batch": 0, "remat": False})
    flop = evaluation_flop(abstract_domain(config.model_copy(update={"evaluation": plain})))
    jacobians = jacobians_of(task)
    units = task.step_evaluations
    useful = jacobians * flop[1] + (units - jacobians) * flop[0]
    state = made_up_state(task)
    lowered = task.search.lower(task.shapes(), params=task.params)
    began = time.perf_counter()
    compiled = compile_long(lowered)
    compile_s = time.perf_counter() - began
    times = []
    for turn in range(repeats + 1):
        began = time.perf_counter()
        state = jax.block_until_ready(compiled(task.params, state))
        if turn:
            times.append((time.perf_counter() - began) / task.chunk)
    step_s = statistics.median(times)
    told: Any = compiled.memory_analysis()
    memory = told.argument_size_in_bytes + told.temp_size_in_bytes if told else 0
    evaluation = domain.computation
    return (
        f"| {config.search.emitters} | {evaluation.batch or 'all'} | {evaluation.dtype} | {units} "
        f"| {1e3 * step_s:.3g} | {units / step_s:,.4g} | {useful / step_s / 1e12:.3g} | "
        f"{100 * useful / step_s / ceiling:.1f} % | {memory / 2**30:.2f} | {compile_s:.0f} |"
    )


def settings_of(args: argparse.Namespace) -> list[RunConfig]:
    """The run with each combination of emitters, batches and types."""
    changed = []
    for emitters, batch, dtype in itertools.product(args.emitters, args.batch, args.dtype):
        config = configured(args.run, args.generator, args.clip, emitters, batch, dtype)
        search = config.search.model_copy(
            update={"chunk": 1, "evaluations": config.search.evaluations * emitters}
        )
        changed.append(config.model_copy(update={"search": search}))
    return changed


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--run", default="faces", help="a run file, or a packaged one's name")
    parser.add_argument("--generator", help="sizes; ffhq-256 for faces")
    parser.add_argument("--clip", help="sizes; vit-b-32 for faces")
    parser.add_argument("--emitters", type=int, nargs="+", default=[4, 16, 64])
    parser.add_argument("--batch", type=int, nargs="+", default=[0])
    parser.add_argument("--dtype", nargs="+", default=["float32", "bfloat16"])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--tiny", action="store_true", help="small ceilings, for a CPU")
    parser.add_argument("--out", type=Path, help="file for the tables")
    args = parser.parse_args()
    if args.run.startswith("faces"):
        args.generator, args.clip = args.generator or "ffhq-256", args.clip or "vit-b-32"
    lines: list[str] = []

    def tell(line: str) -> None:
        lines.append(line)
        print(line, flush=True)

    device = jax.devices()[0]
    tell(f"{args.run} on {device.device_kind}, jax {jax.__version__}\n")
    found = ceilings(512 if args.tiny else 8192, 32 if args.tiny else 512, args.repeats)
    tell("| ceiling | TFLOP/s |\n| --- | ---: |")
    for name, rate in found.items():
        tell(f"| {name} | {rate / 1e12:.3g} |")
    tell(f"\n{HEADER}\n| ---: | ---: | --- |" + " ---: |" * 7)
    ceiling = max(found["product, bfloat16"], found["product, float32"])
    for config in settings_of(args):
        try:
            tell(step_row(config, ceiling, args.repeats))
        except jax.errors.JaxRuntimeError as error:
            batch, dtype = config.evaluation.batch, config.evaluation.dtype
            what = f"{config.search.emitters} | {batch or 'all'} | {dtype}"
            tell(f"| {what} | {str(error).splitlines()[0][:80]} |" + " |" * 6)
    if args.out:
        args.out.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
