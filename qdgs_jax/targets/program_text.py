"""Compiled programs as text: operations, what they call, how often, and how many bytes they move.

It is the text of XLA's modules after all its passes (`Compiled.as_text()`). An operation stands on
a line: `%name = type kind(%operands), attributes`.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import re
from collections.abc import Callable, Iterator, Mapping

_SIZES = {"pred": 8, "bf16": 16, "f8e4m3fn": 8, "f8e5m2": 8, "c64": 64, "c128": 128}  # bits
_FREE = frozenset(
    {"parameter", "get-tuple-element", "tuple", "constant", "bitcast", "after-all", "partition-id"}
)
_TAKING = frozenset({"gather", "dynamic-slice", "slice"})
_NESTING = frozenset({"while", "conditional", "call", "async-start"})
_HEADER = re.compile(r"(ENTRY )?%?([\w.\-]+) \(.*\{$")
_STEPS = {"LT": 0, "NE": 0, "GT": 0, "LE": 1, "GE": 1}  # turns beyond the distance to the limit

Known = Callable[[int], int | None]  # index of a loop's variable to its value


@dataclasses.dataclass(frozen=True)
class Operation:
    """An operation of a compiled program.

    Attributes:
        name: of its result.
        kind: XLA's word for it.
        result: type of the result, as text.
        operands: names of the operands, in their order; of a constant, its value; of a parameter,
            its number.
        attributes: the rest of the line.
        root: whether it is the result of its computation.
    """

    name: str
    kind: str
    result: str
    operands: tuple[str, ...]
    attributes: str
    root: bool

    @functools.cached_property
    def label(self) -> str:
        """JAX's path to it; "" for what a compiler added."""
        found = re.search(r'op_name="([^"]*)"', self.attributes)
        return found[1] if found else ""

    @property
    def cycles(self) -> int | None:
        """The TPU compiler's estimate; None where it gives none."""
        found = re.search(r'"estimated_cycles":"?(\d+)', self.attributes)
        return int(found[1]) if found else None

    @property
    def free(self) -> bool:
        """Whether it is no work of its own."""
        return self.kind in _FREE or self.kind in _NESTING

    def called(self, *names: str) -> list[str]:
        """The computations that attributes of these names say."""
        found: list[str] = []
        for name in names:
            for one, several in re.findall(
                rf"\b{name}=(?:%?([\w.\-]+)|\{{([^}}]*)\}})", self.attributes
            ):
                found += [one] if one else re.findall(r"[\w.\-]+", several)
        return found


Computation = Mapping[str, Operation]


@dataclasses.dataclass(frozen=True)
class Row:
    """An operation that a program executes.

    Attributes:
        operation: it.
        times: how often.
        moved: bytes that it reads and writes each time.
    """

    operation: Operation
    times: int
    moved: int


@dataclasses.dataclass(frozen=True)
class Program:
    """A compiled program.

    Attributes:
        entry: name of the computation that it begins with.
        computations: operations by computation and name, in the order of the text.
    """

    entry: str
    computations: Mapping[str, Computation]

    @classmethod
    def parse(cls, text: str) -> Program:
        """Read a program.

        Raises:
            ValueError: the text has no entry computation.
        """
        entry, inside = "", ""
        computations: dict[str, dict[str, Operation]] = {}
        for line in text.splitlines():
            header = None if line.startswith(" ") else _HEADER.match(line)
            if header:
                inside = header[2]
                computations[inside] = {}
                entry = inside if header[1] else entry
            elif inside and (operation := _operation(line)) is not None:
                computations[inside][operation.name] = operation
        if not entry:
            raise ValueError("the text is no compiled program: it has no entry computation.")
        return cls(entry, computations)

    def rows(self, cost: Callable[[Row], float]) -> tuple[list[Row], int]:
        """What is executed, loops as often as they turn; of a conditional the dearest branch.

        Returns:
            The rows, and how many loops were taken once because the text does not tell how often
            they turn.
        """
        unknown: set[str] = set()
        walk = self._walk(self.entry, 1, lambda index: None, cost, unknown)
        return list(walk), len(unknown)

    def turns(
        self, inside: Computation, loop: Operation, outer: Known = lambda index: None
    ) -> int | None:
        """How often a loop turns; None if that is not known.

        Args:
            inside: the computation that it stands in.
            loop: a `while`.
            outer: values of that computation's own variables, if it is the body of a loop.
        """
        told = re.search(r'"known_trip_count":\{"n":"?(\d+)', loop.attributes)
        if told:
            return int(told[1])
        condition, body = (self.computations[loop.called(n)[0]] for n in ("condition", "body"))
        test = next((o for o in condition.values() if o.root), None)
        direction = re.search(r"direction=(\w+)", test.attributes) if test else None
        if test is None or test.kind != "compare" or direction is None:
            return None
        index = _variable(condition, test.operands[0])
        first = _initial(inside, loop, outer)
        limit = _value(condition, test.operands[1], self._fixed(inside, loop, outer))
        if index is None or limit is None or (start := first(index)) is None:
            return None
        step = _step(body, index)
        extra = _STEPS.get(direction[1])
        if not step or extra is None:
            return None
        return max(0, math.ceil((limit - start + math.copysign(extra, step)) / step))

    def _fixed(self, inside: Computation, loop: Operation, outer: Known) -> Known:
        """Values of a loop's variables that its body hands on unchanged."""
        body = self.computations[loop.called("body")[0]]
        root = next(operation for operation in body.values() if operation.root)
        first = _initial(inside, loop, outer)

        def value(index: int) -> int | None:
            handed = root.kind == "tuple" and _variable(body, root.operands[index]) == index
            return first(index) if handed else None

        return value

    def _walk(
        self,
        name: str,
        times: int,
        outer: Known,
        cost: Callable[[Row], float],
        unknown: set[str],
    ) -> Iterator[Row]:
        operations = self.computations[name]
        for operation in operations.values():
            if operation.kind == "while":
                turns = self.turns(operations, operation, outer)
                unknown.update([operation.name] if turns is None else [])
                often = times * (1 if turns is None else turns)
                fixed = self._fixed(operations, operation, outer)
                for part in operation.called("condition", "body"):
                    yield from self._walk(part, often, fixed, cost, unknown)
            elif operation.kind == "conditional":
                names = ("branch_computations", "true_computation", "false_computation")
                branches = [
                    list(self._walk(branch, times, lambda index: None, cost, unknown))
                    for branch in operation.called(*names)
                ]
                yield from max(branches, key=lambda rows: sum(map(cost, rows)), default=[])
            elif operation.kind in _NESTING:
                for part in operation.called("to_apply", "calls"):
                    yield from self._walk(part, times, lambda index: None, cost, unknown)
            if not operation.free:
                (body,) = operation.called("calls")[:1] or ("",)
                moved = _moved(operations, operation, self.computations.get(body, {}))
                yield Row(operation, times, moved)


def size_of(kind: str) -> int:
    """Bytes of a type such as f32[4,2]{1,0} or a tuple of some."""
    total = 0
    for element, lengths in re.findall(r"\b([a-z]+\d*\w*)\[([0-9,]*)\]", kind):
        digits = re.search(r"\d+", element)
        bits = _SIZES.get(element) or (int(digits[0]) if digits else 32)
        total += bits * math.prod(int(n) for n in lengths.split(",") if n)
    return total // 8


def _operation(line: str) -> Operation | None:
    made = re.match(r"\s+(ROOT )?%?([\w.\-]+) = ", line)
    if not made:
        return None
    rest = line[made.end() :]
    end = _closing(rest, 0) + 1 if rest.startswith("(") else rest.find(" ")
    result, rest = rest[:end], rest[end:].lstrip()
    kind, opened, _ = rest.partition("(")
    if not opened:
        return None
    end = _closing(rest, len(kind))
    inner = rest[len(kind) + 1 : end]
    operands = tuple(re.findall(r"%([\w.\-]+)", inner))
    return Operation(
        name=made[2],
        kind=kind,
        result=result,
        operands=(inner,) if kind in ("constant", "parameter") else operands,
        attributes=rest[end + 1 :],
        root=bool(made[1]),
    )


def _closing(text: str, start: int) -> int:
    """Where the bracket that opens at `start` is closed; the end if it is not."""
    depth = 0
    for place in range(start, len(text)):
        depth += (text[place] == "(") - (text[place] == ")")
        if depth == 0:
            return place
    return len(text)


def _moved(inside: Computation, operation: Operation, body: Computation) -> int:
    """Bytes that an operation reads and writes; what is updated in place is not among them.

    Of a table of which it takes rows, only those are read. `body` is what a fusion computes.
    """
    result = operation.result
    if operation.kind == "custom-call":  # without the libraries' scratch space
        result = re.sub(r"[su]8\[\d+\](\{[^}]*\})?", "", result)
    written = size_of(result)
    read: list[float] = [
        min(size_of(inside[name].result), _taken(operation, number, body))
        for number, name in enumerate(operation.operands)
        if name in inside
    ]
    in_place = operation.label.endswith(("scatter", "dynamic_update_slice"))
    return int(written + sum(read) - (2 * written if in_place and written in read else 0))


def _taken(operation: Operation, number: int, body: Computation) -> float:
    """Bytes that an operation takes of an operand of which it needs rows; else no limit."""
    if operation.kind in _TAKING:
        return size_of(operation.result) if number == 0 else math.inf
    names = [
        part.name
        for part in body.values()
        if part.kind == "parameter" and part.operands == (str(number),)
    ]
    users = [part for part in body.values() if names and names[0] in part.operands]
    if not users or any(u.kind not in _TAKING or u.operands[0] != names[0] for u in users):
        return math.inf
    return sum(size_of(user.result) for user in users)


def _variable(inside: Computation, name: str) -> int | None:
    """The index of a loop's variable, if that is what an operation gives."""
    operation = inside.get(name)
    if operation is None or operation.kind != "get-tuple-element":
        return None
    source = inside.get(operation.operands[0])
    index = re.search(r"index=(\d+)", operation.attributes)
    return int(index[1]) if index and source and source.kind == "parameter" else None


def _initial(inside: Computation, loop: Operation, outer: Known) -> Known:
    """Values that a loop's variables begin with."""
    start = inside.get(loop.operands[0])

    def value(index: int) -> int | None:
        if start is None or start.kind != "tuple" or index >= len(start.operands):
            return None
        return _value(inside, start.operands[index], outer)

    return value


def _value(inside: Computation, name: str, outer: Known) -> int | None:
    """The whole number that an operation gives, if it is known."""
    operation = inside.get(name)
    if operation is None:
        return None
    if operation.kind == "constant":
        number = re.fullmatch(r"-?\d+", operation.operands[0])
        return int(number[0]) if number else None
    if operation.kind in ("copy", "bitcast", "convert"):
        return _value(inside, operation.operands[0], outer)
    index = _variable(inside, name)
    if index is not None:
        return outer(index)
    if operation.kind == "get-tuple-element":
        source = inside.get(operation.operands[0])
        found = re.search(r"index=(\d+)", operation.attributes)
        if found and source and source.kind == "tuple":
            return _value(inside, source.operands[int(found[1])], outer)
    return None


def _step(body: Computation, index: int) -> int | None:
    """What a loop's counter grows by at each turn; 1 where a compiler hid the sum in a fusion."""
    root = next(operation for operation in body.values() if operation.root)
    grown = body.get(root.operands[index]) if root.kind == "tuple" else None
    while grown is not None and grown.kind in ("copy", "bitcast"):
        grown = body.get(grown.operands[0])
    if grown is None or grown.kind not in ("add", "subtract"):
        return 1
    found = [_value(body, operand, lambda index: None) for operand in grown.operands]
    step = next((value for value in found if value is not None), 1)
    return -step if grown.kind == "subtract" else step
