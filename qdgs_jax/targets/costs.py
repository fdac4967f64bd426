"""What a compiled program costs: the compiler's own words, summed up.

TPU: estimated cycles of every operation. GPU: bytes that kernels move, and a roofline, for its text
holds no times. Both count the bodies of loops as often as they turn.
"""

from __future__ import annotations

import dataclasses
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from qdgs_jax.targets.chips import Chip
from qdgs_jax.targets.parts import kind_of, part_of
from qdgs_jax.targets.program_text import Program, Row

COLLECTIVES = (
    "all-reduce",
    "all-gather",
    "reduce-scatter",
    "all-to-all",
    "collective-permute",
)
# What the TPU compiler gives no estimate for although it takes time.
_TELLING = ("sort", "custom-call", "scatter", "gather", "dynamic-update-slice", *COLLECTIVES)
DEAREST = 12


@dataclasses.dataclass(frozen=True)
class Dear:
    """An operation among the dearest.

    Attributes:
        share: of the whole program.
        times: how often it is executed.
        kind: XLA's word for it.
        result: type of the result.
        path: JAX's path to it.
    """

    share: float
    times: int
    kind: str
    result: str
    path: str


@dataclasses.dataclass(frozen=True)
class Costs:
    """What one device spends on a whole program.

    Attributes:
        cycles: of a TPU, as its compiler estimates; None for a GPU.
        moved: bytes of a GPU's kernels' operands and results; None for a TPU.
        operations: executed, loops as often as they turn.
        parts: share of the cycles, or bytes, by part of the step.
        kinds: the same by kind of operation.
        dearest: the operations that cost most.
        without_estimate: operations that take time and have none in the text, by kind.
        custom_calls: calls of libraries and kernels, by their names.
        collectives: what devices exchange, by kind.
        copies: copies in the memory.
        conditionals: branches; on a GPU the host fetches what they depend on.
        unknown_loops: loops that were counted once, for how often they turn is not known.
    """

    cycles: float | None
    moved: float | None
    operations: int
    parts: Mapping[str, float]
    kinds: Mapping[str, float]
    dearest: tuple[Dear, ...]
    without_estimate: Mapping[str, int]
    custom_calls: Mapping[str, int]
    collectives: Mapping[str, int]
    copies: int
    conditionals: int
    unknown_loops: int

    def seconds(self, chip: Chip) -> float:
        """Time of the program by cycles, or at the full bandwidth of the memory."""
        if self.cycles is not None:
            return self.cycles / chip.clock
        return (self.moved or 0.0) / chip.bandwidth


def tpu_costs(text: str) -> Costs:
    """Costs of a program compiled for a TPU, from its text."""
    return _costs(text, lambda row: row.times * (row.operation.cycles or 0), tpu=True)


def gpu_costs(text: str) -> Costs:
    """Costs of a program compiled for a GPU, from its text."""
    return _costs(text, lambda row: row.times * row.moved, tpu=False)


def _costs(text: str, cost: Callable[[Row], float], *, tpu: bool) -> Costs:
    program = Program.parse(text)
    rows, unknown_loops = program.rows(cost)
    total = sum(map(cost, rows))
    kinds = Counter(_kinds(rows))
    return Costs(
        cycles=total if tpu else None,
        moved=None if tpu else total,
        operations=sum(row.times for row in rows),
        parts=_shares(rows, cost, total, part_of),
        kinds=_shares(rows, cost, total, kind_of),
        dearest=tuple(
            Dear(
                cost(row) / max(total, 1),
                row.times,
                row.operation.kind,
                re.sub(r"\{[^}]*\}", "", row.operation.result)[:60],
                row.operation.label,
            )
            for row in sorted(rows, key=cost, reverse=True)[:DEAREST]
        ),
        without_estimate=_untold(rows) if tpu else {},
        custom_calls=_custom_calls(rows),
        collectives={kind: kinds[kind] for kind in COLLECTIVES if kinds[kind]},
        copies=kinds["copy"] + kinds["copy-start"],
        conditionals=sum(
            operation.kind == "conditional"
            for operations in program.computations.values()
            for operation in operations.values()
        ),
        unknown_loops=unknown_loops,
    )


def _kinds(rows: Iterable[Row]) -> Counter[str]:
    """Operations by kind; of what begins and ends apart, the beginnings."""
    found: Counter[str] = Counter()
    for row in rows:
        kind = row.operation.kind
        name = kind.removesuffix("-start")
        found[name if name in COLLECTIVES else kind] += row.times
    return found


def _shares(
    rows: list[Row], cost: Callable[[Row], float], total: float, group: Callable[[str], str]
) -> dict[str, float]:
    found: dict[str, float] = {}
    for row in rows:
        name = group(row.operation.label)
        found[name] = found.get(name, 0.0) + cost(row) / max(total, 1)
    largest = sorted(found.items(), key=lambda item: -item[1])
    return {name: share for name, share in largest if share > 0}


def _untold(rows: Iterable[Row]) -> dict[str, int]:
    """What takes time on a TPU and has no estimate."""
    found: Counter[str] = Counter()
    for row in rows:
        operation = row.operation
        if operation.cycles is not None or operation.kind.endswith(("-done", "-start")):
            continue
        last = kind_of(operation.label).replace("_", "-")
        kind = last if operation.kind == "fusion" else operation.kind
        if kind in _TELLING:
            found[kind] += row.times
    return dict(found.most_common())


def _custom_calls(rows: Iterable[Row]) -> dict[str, int]:
    found: Counter[str] = Counter()
    for row in rows:
        name = re.search(r'custom_call_target="([^"]+)"', row.operation.attributes)
        if name:
            found[name[1]] += row.times
    return dict(found.most_common())


def memory_of(compiled: Any) -> dict[str, int]:
    """Bytes that a program needs on a device, in all and by their use; and of its code."""
    told = compiled.memory_analysis()
    results = told.output_size_in_bytes - told.alias_size_in_bytes
    arguments, between = told.argument_size_in_bytes, told.temp_size_in_bytes
    return {
        "all": int(arguments + results + between),
        "arguments": int(arguments),
        "results": int(results),
        "between": int(between),
        "code": int(told.generated_code_size_in_bytes),
    }
