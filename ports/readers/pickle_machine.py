"""A pickle machine that can only build data.

Python's own unpickler imports and calls what a file names, and allocates what a file declares.
This one is an interpreter of the opcodes that genuine checkpoints contain. It has no way to import:
a global becomes an entry of the caller's allow-list or the file is refused, and a call runs one of
our constructors on plain data. Sizes are compared with the bytes that are there; opcodes, letters
and the items that a call is given count against a budget that grows with the file; keys are
restricted to values that hash fast (deep tuples overflow the C stack, and numbers can be chosen to
collide); and byte strings stay in the file until somebody asks for them.

The opcodes are those of Python's pickletools; protocols 1 to 5.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from typing import Any, NoReturn

from qdgs_jax.ports.errors import CheckpointError, show
from qdgs_jax.ports.readers.region import Region
from qdgs_jax.ports.readers.values import Budget, Buildable, Data, Global, Opaque, check_key

_WINDOW = 1 << 16
_LONGEST_INTEGER = 32  # bytes; generators' 128-bit states are the longest seen
_LONGEST_TEXT = 1 << 24  # bytes; network source embedded in a pickle takes about 2**17
_LONGEST_GLOBAL = 256  # letters
_MOST_ARGUMENTS = 16
_CONTAINERS = (list, tuple, dict, set)


Find = Callable[[str, str], Global]
Persistent = Callable[[tuple[Data, ...]], Data]


def _no_persistent(pid: tuple[Data, ...]) -> NoReturn:
    raise CheckpointError("The pickle refers to data outside itself, which this format cannot.")


class Unpickler:
    """Reads pickles from a region, one after the other.

    Args:
        region: the bytes.
        budget: shared by all pickles of a checkpoint.
        find: gives the Global for (module, name), or raises CheckpointError.
        persistent: resolves the tuple of a persistent id.
        at: position of the first pickle; afterwards the position behind the last one read.
        old_bytes: read strings of Python 2 that are no ASCII text, or longer than 255 bytes, as
            bytes: files of that time hold pictures in them.
    """

    def __init__(
        self,
        region: Region,
        budget: Budget,
        find: Find,
        persistent: Persistent = _no_persistent,
        at: int = 0,
        *,
        old_bytes: bool = False,
    ) -> None:
        self._region, self._budget = region, budget
        self._find, self._persistent = find, persistent
        self.at, self._old_bytes = at, old_bytes
        self._window, self._window_at = b"", 0
        self._stack: list[Data] = []
        self._marks: list[list[Data]] = []
        self._memo: dict[int, Data] = {}

    def load(self) -> Data:
        """Read the next pickle.

        Raises:
            CheckpointError: if the pickle is broken, or does what no genuine checkpoint does.
        """
        self._stack, self._marks, self._memo = [], [], {}
        while True:
            self._budget.spend()
            code = self._take(1)[0]
            if code == ord("."):
                break
            operation = _OPERATIONS.get(code)
            if operation is None:
                raise CheckpointError(
                    f"Refused: the pickle uses opcode 0x{code:02x} at byte "
                    f"{self._region.start + self.at - 1}, which no supported checkpoint needs."
                )
            operation(self)
        value = self._pop()
        if self._stack or self._marks:
            raise CheckpointError("The pickle is broken: it leaves values behind.")
        return value

    def _take(self, count: int) -> bytes:
        start = self.at - self._window_at
        if not 0 <= start <= len(self._window) - count:
            self._region.part(self.at, count)  # raises if they are not there
            length = min(max(count, _WINDOW), self._region.length - self.at)
            self._window, self._window_at = self._region.read(self.at, length), self.at
            start = 0
        self.at += count
        return self._window[start : start + count]

    def _number(self, layout: str) -> int:
        value: int = struct.unpack(layout, self._take(struct.calcsize(layout)))[0]
        return value

    def _line(self) -> str:
        text = bytearray()
        while (byte := self._take(1)) != b"\n":
            text += byte
            if len(text) > _LONGEST_GLOBAL:
                raise CheckpointError("The pickle is broken: a global's name does not end.")
        return _decode(bytes(text))

    def _pop(self) -> Data:
        if not self._stack:
            raise CheckpointError("The pickle is broken: it takes a value that is not there.")
        return self._stack.pop()

    def _top(self, kind: type, action: str) -> Data:
        if not self._stack or type(self._stack[-1]) is not kind:
            raise CheckpointError(
                f"The pickle is broken: it {action} what is not a {kind.__name__}."
            )
        return self._stack[-1]

    def _pop_to_mark(self) -> list[Data]:
        if not self._marks:
            raise CheckpointError("The pickle is broken: a mark is missing.")
        items, self._stack = self._stack, self._marks.pop()
        return items

    # Each operation below is named after its opcode in pickletools.

    def _protocol(self) -> None:
        version = self._take(1)[0]
        if version > 5:
            raise CheckpointError(f"Pickle protocol {version} is not supported.")

    def _frame(self) -> None:
        length = self._number("<Q")
        self._region.part(self.at, length)

    def _mark(self) -> None:
        self._marks.append(self._stack)
        self._stack = []

    def _integer(self, layout: str) -> None:
        self._stack.append(self._number(layout))

    def _long1(self) -> None:
        count = self._take(1)[0]
        if count > _LONGEST_INTEGER:
            raise CheckpointError(f"The pickle holds an integer of {count} bytes.")
        self._stack.append(int.from_bytes(self._take(count), "little", signed=True))

    def _float(self) -> None:
        self._stack.append(struct.unpack(">d", self._take(8))[0])

    def _text(self, layout: str) -> None:
        count = self._number(layout)
        if not 0 <= count <= _LONGEST_TEXT:
            raise CheckpointError(f"The pickle declares a text of {count} bytes.")
        self._budget.spend_text(count)
        self._stack.append(_decode(self._take(count)))

    def _old_text(self, layout: str) -> None:
        """BINSTRING and SHORT_BINSTRING: a text, or bytes."""
        start = self.at
        count = self._number(layout)
        if self._old_bytes and (layout != "<B" or not self._take(count).isascii()):
            self._stack.append(self._region.part(start + struct.calcsize(layout), count))
            self.at = start + struct.calcsize(layout) + count
            return
        self.at = start
        self._text(layout)

    def _bytes(self, layout: str) -> None:
        count = self._number(layout)
        self._stack.append(self._region.part(self.at, count))
        self.at += count

    def _tuple(self, count: int) -> None:
        items = [self._pop() for _ in range(count)]
        self._stack.append(tuple(reversed(items)))

    def _marked_tuple(self) -> None:
        items = self._pop_to_mark()
        self._stack.append(tuple(items))

    def _append(self) -> None:
        item = self._pop()
        if not self._drops():
            self._top(list, "appends to").append(item)

    def _appends(self) -> None:
        items = self._pop_to_mark()
        if not self._drops():
            self._top(list, "appends to").extend(items)

    def _set_item(self) -> None:
        value, key = self._pop(), self._pop()
        if not self._drops():
            _fill(self._top(dict, "sets an item of"), [key, value])

    def _set_items(self) -> None:
        items = self._pop_to_mark()
        if not self._drops():
            _fill(self._top(dict, "sets items of"), items)

    def _drops(self) -> bool:
        """Whether the value on top drops what it is given."""
        return bool(self._stack) and type(self._stack[-1]) is Opaque

    def _add_items(self) -> None:
        items = self._pop_to_mark()
        self._top(set, "adds items to").update(check_key(item) for item in items)

    def _frozen_set(self) -> None:
        items = self._pop_to_mark()
        self._stack.append({check_key(item) for item in items})

    def _put(self, layout: str) -> None:
        index = self._number(layout)
        if not self._stack:
            raise CheckpointError("The pickle is broken: it memoizes a value that is not there.")
        self._memo[index] = self._stack[-1]

    def _memoize(self) -> None:
        if not self._stack:
            raise CheckpointError("The pickle is broken: it memoizes a value that is not there.")
        self._memo[len(self._memo)] = self._stack[-1]

    def _get(self, layout: str) -> None:
        index = self._number(layout)
        if index not in self._memo:
            raise CheckpointError(f"The pickle is broken: it recalls value {index}, never stored.")
        self._stack.append(self._memo[index])

    def _global(self) -> None:
        module, name = self._line(), self._line()
        self._stack.append(self._find(module, name))

    def _stack_global(self) -> None:
        name, module = self._pop(), self._pop()
        if type(name) is not str or type(module) is not str:
            raise CheckpointError("The pickle is broken: a global's name is not a text.")
        if max(len(module), len(name)) > _LONGEST_GLOBAL:
            raise CheckpointError(f"Refused: the pickle names {show(name)} of {show(module)}.")
        self._stack.append(self._find(module, name))

    def _call(self) -> None:
        """REDUCE and NEWOBJ: run one of our constructors."""
        arguments, target = self._pop(), self._pop()
        if type(target) is not Global or target.build is None or type(arguments) is not tuple:
            name = target.name if type(target) is Global else show(target)
            raise CheckpointError(
                f"Refused: the pickle calls {name}, and no supported checkpoint needs that."
            )
        if len(arguments) > _MOST_ARGUMENTS:
            raise CheckpointError(
                f"Refused: the pickle calls {target.name} with {len(arguments)} arguments."
            )
        # What the constructor may copy.
        self._budget.spend(sum(len(item) for item in arguments if type(item) in _CONTAINERS))
        self._stack.append(target.build(arguments))

    def _build(self) -> None:
        state = self._pop()
        if not self._stack:
            raise CheckpointError("The pickle is broken: it sets the state of nothing.")
        target = self._stack[-1]
        if isinstance(target, Buildable):
            target.set_state(state)
        elif type(target) is not dict or not _is_metadata(state):
            raise CheckpointError(
                f"Refused: the pickle sets the state of {show(target)}, and no supported "
                "checkpoint needs that."
            )

    def _persistent_id(self) -> None:
        pid = self._pop()
        if type(pid) is not tuple:
            raise CheckpointError(f"The pickle is broken: {show(pid)} names external data.")
        self._stack.append(self._persistent(pid))


def _decode(data: bytes) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError:
        raise CheckpointError("The pickle is broken: a text is not UTF-8.") from None


def _is_metadata(state: Data) -> bool:
    """Whether this is the version information that PyTorch hangs on a state dict; it is dropped."""
    return type(state) is dict and all(key == "_metadata" for key in state)


def _fill(target: dict[Data, Data], items: list[Data]) -> None:
    if len(items) % 2:
        raise CheckpointError("The pickle is broken: a key has no value.")
    for key, value in zip(items[::2], items[1::2], strict=True):
        if check_key(key) in target:
            raise CheckpointError(f"The pickle sets the key {show(key)} twice.")
        target[key] = value


_Operation = Callable[[Unpickler], None]


def _push(make: Callable[[], Data]) -> _Operation:
    return lambda machine: machine._stack.append(make())


def _with(method: Callable[[Unpickler, Any], None], argument: Any) -> _Operation:
    return lambda machine: method(machine, argument)


_OPERATIONS: Mapping[int, _Operation] = {
    0x80: Unpickler._protocol,
    0x95: Unpickler._frame,
    ord("("): Unpickler._mark,
    ord("N"): _push(lambda: None),
    0x88: _push(lambda: True),
    0x89: _push(lambda: False),
    ord("J"): _with(Unpickler._integer, "<i"),
    ord("K"): _with(Unpickler._integer, "<B"),
    ord("M"): _with(Unpickler._integer, "<H"),
    0x8A: Unpickler._long1,
    ord("G"): Unpickler._float,
    ord("X"): _with(Unpickler._text, "<I"),
    0x8C: _with(Unpickler._text, "<B"),
    0x8D: _with(Unpickler._text, "<Q"),
    ord("T"): _with(Unpickler._old_text, "<i"),  # text of Python 2
    ord("U"): _with(Unpickler._old_text, "<B"),  # text of Python 2
    ord("B"): _with(Unpickler._bytes, "<I"),
    ord("C"): _with(Unpickler._bytes, "<B"),
    0x8E: _with(Unpickler._bytes, "<Q"),
    0x96: _with(Unpickler._bytes, "<Q"),  # a bytearray
    ord(")"): _push(tuple),
    0x85: _with(Unpickler._tuple, 1),
    0x86: _with(Unpickler._tuple, 2),
    0x87: _with(Unpickler._tuple, 3),
    ord("t"): Unpickler._marked_tuple,
    ord("]"): _push(list),
    ord("a"): Unpickler._append,
    ord("e"): Unpickler._appends,
    ord("}"): _push(dict),
    ord("s"): Unpickler._set_item,
    ord("u"): Unpickler._set_items,
    0x8F: _push(set),
    0x90: Unpickler._add_items,
    0x91: Unpickler._frozen_set,
    ord("q"): _with(Unpickler._put, "<B"),
    ord("r"): _with(Unpickler._put, "<I"),
    0x94: Unpickler._memoize,
    ord("h"): _with(Unpickler._get, "<B"),
    ord("j"): _with(Unpickler._get, "<I"),
    ord("c"): Unpickler._global,
    0x93: Unpickler._stack_global,
    ord("R"): Unpickler._call,
    0x81: Unpickler._call,
    ord("b"): Unpickler._build,
    ord("Q"): Unpickler._persistent_id,
}
