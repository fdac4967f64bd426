"""A program compiled for a target, and what its compiler says of it, in figures and words."""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections.abc import Iterator, Mapping
from typing import Any

import jax
from jax.experimental.compilation_cache import compilation_cache

from qdgs_jax.compiler_options import OPTIONS, compile_with
from qdgs_jax.targets.chips import GIB, Target
from qdgs_jax.targets.costs import Costs, gpu_costs, memory_of, tpu_costs
from qdgs_jax.targets.programs import Work

# Without a card nothing can be tried out: XLA's own choices, and no kernels that need a search.
_GPU_OPTIONS: Mapping[str, Any] = {
    "xla_gpu_autotune_level": 0,
    "xla_gpu_enable_triton_gemm": False,
}
SHOWN = 12  # rows of a table


@dataclasses.dataclass(frozen=True)
class Estimate:
    """What a compiler says of a program. Figures are those of one device.

    Attributes:
        target: compiled for.
        program: "search", "generate" or "train".
        words: what a step is.
        unit: what a step does several of.
        units: how many of these, on all devices together.
        devices: that share the program.
        steps: of the whole program.
        flop: useful operations of a step, on all devices together.
        memory: bytes by use, "all" and "code" among them.
        wall: seconds that compiling took.
        processor: seconds of processors that it took.
        costs: of the whole program.
    """

    target: Target
    program: str
    words: str
    unit: str
    units: int
    devices: int
    steps: int
    flop: float
    memory: Mapping[str, int]
    wall: float
    processor: float
    costs: Costs

    @property
    def step_seconds(self) -> float:
        """Time of a step. On a GPU, the longer of moving its bytes and doing its products."""
        seconds = self.costs.seconds(self.target.chip) / self.steps
        if self.costs.cycles is None:
            seconds = max(seconds, self.flop / self.devices / self.target.chip.peak)
        return seconds

    @property
    def unit_cycles(self) -> float | None:
        """A TPU's cycles per unit, all devices' together."""
        cycles = self.costs.cycles
        return None if cycles is None else cycles * self.devices / self.steps / self.units

    @property
    def utilisation(self) -> float:
        """Useful operations over what the chip could do in that time; of a GPU, at most."""
        possible = self.step_seconds * self.target.chip.peak * self.devices
        return self.flop / possible if possible else 0.0

    @property
    def fits(self) -> bool:
        """Whether the program finds room in the chip's memory."""
        return self.memory["all"] + self.memory["code"] <= self.target.chip.memory

    def to_json(self) -> dict[str, Any]:
        """Plain values: all fields and what follows from them."""
        return {
            **dataclasses.asdict(self),
            "target": str(self.target),
            "memory_of_chip": self.target.chip.memory,
            "step_seconds": self.step_seconds,
            "unit_cycles": self.unit_cycles,
            "units_per_second": self.units / self.step_seconds if self.step_seconds else None,
            "utilisation": self.utilisation,
            "fits": self.fits,
        }

    def lines(self) -> list[str]:
        """The figures in sentences."""
        chip, costs, memory = self.target.chip, self.costs, self.memory
        needed, there = memory["all"] / GIB, chip.memory / GIB
        gpu = costs.cycles is None
        at_most = "at most " if gpu else ""
        seconds = self.step_seconds
        told = [
            f"{self.target}, {self.program}: {self.words}, on {_count(self.devices, 'chip')}",
            f"memory: {needed:.3g} of {there:.3g} GiB ({memory['arguments'] / GIB:.2g} arguments, "
            f"{memory['between'] / GIB:.2g} temporaries)"
            + ("" if self.fits else ": IT DOES NOT FIT"),
        ]
        if gpu:
            moved = (costs.moved or 0.0) / self.steps
            told.append(
                f"bytes: {moved / GIB:.3g} GiB moved by {costs.operations / self.steps:,.0f} "
                f"kernels, {moved / chip.bandwidth * 1e3:.3g} ms at full bandwidth"
            )
        else:
            cycles = (costs.cycles or 0.0) / self.steps
            told.append(
                f"cycles: {cycles / 1e6:,.4g} M a step, {(self.unit_cycles or 0.0) / 1e6:.4g} M "
                f"{'an' if self.unit[0] in 'aeiou' else 'a'} {self.unit}"
            )
        rate = self.units / seconds if seconds else 0.0
        told += [
            f"time: {seconds * 1e3:.4g} ms a step, {at_most}{rate:,.4g} {self.unit}s/s",
            f"useful: {self.flop / 1e12:.4g} TFLOP a step, {at_most}"
            f"{100 * self.utilisation:.3g} % of the bfloat16 peak",
            f"code: {memory['code'] / 1e6:.3g} MB, compiled in {self.wall:.0f} s "
            f"({self.processor:.0f} s of processor time)",
            f"collectives: {_named(costs.collectives)}; custom calls: "
            f"{_named(costs.custom_calls)}; copies: {costs.copies}; conditionals: "
            f"{costs.conditionals}",
        ]
        if costs.without_estimate:
            told.append(f"not estimated by the compiler: {_named(costs.without_estimate)}")
        if costs.unknown_loops:
            loops = _count(costs.unknown_loops, "loop")
            told.append(f"counted once: {loops} whose number of turns the text does not tell")
        return told

    def tables(self) -> list[tuple[str, list[str], list[list[str]]]]:
        """Where the cost goes: titles, headers and rows."""
        what = "bytes" if self.costs.cycles is None else "cycles"
        tables = [
            (
                f"{what} by {title}",
                [title, f"{what}, %"],
                [[name, f"{100 * share:.1f}"] for name, share in list(shares.items())[:SHOWN]],
            )
            for title, shares in (("part", self.costs.parts), ("operation", self.costs.kinds))
        ]
        dearest = [
            [each.path[-60:] or each.kind, each.result, str(each.times), f"{100 * each.share:.1f}"]
            for each in self.costs.dearest
        ]
        header = ["operation", "result", "times", f"{what}, %"]
        return [*tables, ("dearest operations", header, dearest)]


def estimate(work: Work, target: Target) -> Estimate:
    """Compile a program and read what its compiler says.

    Raises:
        ValueError: the compiler refuses the program, for instance because it does not fit.
    """
    gpu = target.backend == "gpu"
    wall, processor = time.perf_counter(), time.process_time()
    try:
        with without_cache():
            compiled = compile_with(work.lowered, options_for(work.program, target))
    except Exception as error:  # of the compiler, in several kinds
        reason = str(error).strip().split("\n")[0]
        raise ValueError(f"{target}: {work.program} cannot be compiled: {reason[:300]}") from error
    wall, processor = time.perf_counter() - wall, time.process_time() - processor
    text = compiled.as_text()
    if text is None:
        raise ValueError(f"{target}: the compiler shows no text of {work.program}.")
    return Estimate(
        target=target,
        program=work.program,
        words=work.words,
        unit=work.unit,
        units=work.units,
        devices=work.devices,
        steps=work.steps,
        flop=work.flop,
        memory=memory_of(compiled),
        wall=wall,
        processor=processor,
        costs=gpu_costs(text) if gpu else tpu_costs(text),
    )


def options_for(program: str, target: Target) -> Mapping[str, Any]:
    """Options of the compiler: those that the run itself would set, where it sets some."""
    if target.backend == "gpu":
        return _GPU_OPTIONS
    return OPTIONS[target.backend] if program == "search" else {}


@contextlib.contextmanager
def without_cache() -> Iterator[None]:
    """Compile without the compilation cache, which cannot load programs of an absent device.

    JAX asks once, at the first program, whether it is to use the cache; hence the resets.
    """
    enabled = jax.config.jax_enable_compilation_cache  # type: ignore[attr-defined]
    try:
        jax.config.update("jax_enable_compilation_cache", False)  # type: ignore[no-untyped-call]
        compilation_cache.reset_cache()
        yield
    finally:
        jax.config.update("jax_enable_compilation_cache", enabled)  # type: ignore[no-untyped-call]
        compilation_cache.reset_cache()


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


def _named(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{number} {name}" for name, number in counts.items()) or "none"
