"""What the products of a search's step take alone: the ceiling that the step is judged by.

    python scripts/benchmarks/products_targets.py --emitters 24       # faces at full size, TPU v5e
    python scripts/benchmarks/products_targets.py --emitters 24 --target cuda:h100

Every convolution and matrix product of the step is compiled by itself, in whatever layout the
compiler likes best and with none of the options that searches set, which make single ones slower.
The sum over them is what the step would take if nothing stood between them. Operations are counted
as they are made, with what is padding or multiplied with zeros; code and seconds count each kind of
product once, cycles and bytes as often as a step makes it.
For a GPU, whose compiler tells no times, it is what they read and write. Nothing is executed; it
needs the extra `tpu-compiler`; for GPUs none, as nothing is compiled for them.
"""

from __future__ import annotations

import argparse
import collections
import dataclasses
import functools
import math
import os
import sys
import time
from collections.abc import Iterator
from typing import Any

os.environ.setdefault("JAX_PLATFORMS", "cpu")

import jax
import numpy as np
from jax.experimental.layout import Format, Layout
from jax.interpreters import partial_eval
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from qdgs_jax.cli.compile import configured
from qdgs_jax.models.backend import lowering_for
from qdgs_jax.runs.prepare import prepare_search
from qdgs_jax.targets.abstract import abstract_domain
from qdgs_jax.targets.chips import GIB, Target
from qdgs_jax.targets.costs import tpu_costs
from qdgs_jax.targets.estimate import without_cache

PRODUCTS = ("conv_general_dilated", "dot_general")
SMALL = 5e-4  # share of all operations below which a product is left out


@dataclasses.dataclass(frozen=True)
class Product:
    """A convolution or matrix product.

    Attributes:
        equation: of the step's program.
        flop: operations of one.
    """

    equation: Any
    flop: float

    @property
    def shapes(self) -> list[jax.ShapeDtypeStruct]:
        """Of its operands."""
        return [jax.ShapeDtypeStruct(v.aval.shape, v.aval.dtype) for v in self.equation.invars]

    @property
    def moved(self) -> int:
        """Bytes of its operands and its result."""
        both = [*self.equation.invars, *self.equation.outvars]
        return sum(math.prod(v.aval.shape) * v.aval.dtype.itemsize for v in both)

    @property
    def words(self) -> str:
        """What it is."""
        operands = " x ".join(_named(v.aval) for v in self.equation.invars)
        return f"{operands} -> {_named(self.equation.outvars[0].aval)}"


def products_of(program: Any, times: float = 1.0) -> Iterator[tuple[Product, float]]:
    """The products of a program, and how often each is made."""
    for equation in program.eqns:
        if equation.primitive.name in PRODUCTS:
            yield Product(equation, _flop(equation)), times
        often = times * equation.params.get("length", 1)
        leaves = jax.tree.leaves(list(equation.params.values()), is_leaf=_is_program)
        for inner in filter(_is_program, leaves):
            yield from products_of(getattr(inner, "jaxpr", inner), often)


def step_products(emitters: int, target: Target) -> list[tuple[Product, float]]:
    """Kinds of products of a step of faces at full size, and how many of each a step makes."""
    config = configured("faces", "ffhq-256", "vit-b-32", emitters, None, "bfloat16")
    task = prepare_search(config, abstract_domain(config, target.backend))
    search = task.search
    with lowering_for(target.backend):
        steps = functools.partial(search.run, num_steps=search.chunk)
        program = jax.make_jaxpr(lambda params, state: steps(state, params=params))(
            task.params, task.shapes()
        ).jaxpr
    # Derivatives by weights that nobody asks for are left out, as compilers leave them out.
    program, _ = partial_eval.dce_jaxpr(program, [True] * len(program.outvars))
    kinds: dict[str, Product] = {}
    counts: collections.Counter[str] = collections.Counter()
    for product, times in products_of(program):
        kind = f"{product.words} {product.equation.params}"
        kinds.setdefault(kind, product)
        counts[kind] += times / search.chunk
    return [(kinds[kind], counts[kind]) for kind in kinds]


def compiled_alone(product: Product, target: Target) -> tuple[float, float, float]:
    """Cycles, bytes of code and seconds of processors of a product by itself."""
    mesh = Mesh(np.asarray(target.devices()[:1]), ("devices",))
    where = Format(Layout.AUTO, NamedSharding(mesh, PartitionSpec()))
    equation = product.equation

    def alone(*operands: jax.Array) -> Any:
        return equation.primitive.bind(*operands, **equation.params)

    function = jax.jit(alone, in_shardings=where, out_shardings=where)
    with lowering_for(target.backend), without_cache():
        lowered = function.trace(*product.shapes).lower(lowering_platforms=(target.backend,))
        began = time.process_time()
        compiled = lowered.compile()
        took = time.process_time() - began
    code = compiled.memory_analysis().generated_code_size_in_bytes
    return tpu_costs(compiled.as_text()).cycles or 0.0, code, took


def _flop(equation: Any) -> float:
    left, right = (v.aval for v in equation.invars)
    result = math.prod(equation.outvars[0].aval.shape)
    if equation.primitive.name == "dot_general":
        (contracted, _), _ = equation.params["dimension_numbers"]
        return 2.0 * result * math.prod(left.shape[axis] for axis in contracted)
    outputs = right.shape[equation.params["dimension_numbers"].rhs_spec[0]]
    return 2.0 * result * math.prod(right.shape) / outputs


def _is_program(value: Any) -> bool:
    return hasattr(value, "eqns")


def _named(value: Any) -> str:
    return f"{value.dtype.name}{list(value.shape)}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--emitters", type=int, default=24)
    parser.add_argument("--target", default="tpu:v5e:2x2")
    args = parser.parse_args()
    target = Target.parse(args.target)
    tpu = target.backend == "tpu"
    found = step_products(args.emitters, target)
    whole = sum(product.flop * times for product, times in found)
    kept = [each for each in found if each[0].flop * each[1] >= SMALL * whole]
    kept.sort(key=lambda each: -each[0].flop * each[1])
    per_cycle = target.chip.peak / target.chip.clock if tpu else 0.0
    print(f"| product | a step | GFLOP | {'M cycles | of the peak | code, MB' if tpu else 'MiB'} |")
    print("| --- | ---: | ---: |" + (" ---: | ---: | ---: |" if tpu else " ---: |"))
    totals = np.zeros(4)
    for product, times in kept:
        row = f"| {product.words} | {times:g} | {product.flop / 1e9:,.1f} |"
        if tpu:
            cycles, code, took = compiled_alone(product, target)
            totals += times * cycles, code, took, times * product.flop
            share = product.flop / per_cycle / cycles if cycles else 0.0
            row += f" {cycles / 1e6:.3f} | {100 * share:.0f} % | {code / 1e6:.2f} |"
        else:
            totals += times * product.moved, 0.0, 0.0, times * product.flop
            row += f" {product.moved / 2**20:,.1f} |"
        print(row, flush=True)
    cost, code, took, flop = totals
    left = f"{len(found) - len(kept)} kinds left out, {100 * (1 - flop / whole):.2g} % of them all"
    if tpu:
        print(
            f"{cost / 1e6:.1f} M cycles a step, {100 * flop / per_cycle / cost:.0f} % of the peak "
            f"as they are made; {code / 1e6:.1f} MB, {took:.0f} CPU-s; {left}"
        )
    else:
        print(f"{cost / GIB:.2f} GiB a step, {flop / 1e12:.2f} TFLOP as they are made; {left}")


if __name__ == "__main__":
    sys.exit(main())
