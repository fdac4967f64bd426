"""Small files that would take much memory: what is allocated stays in proportion to the file."""

import copy
import io
import struct
import zipfile

import numpy as np
import pytest
import torch_writer as tw
from memory import at_most

from qdgs_jax.ports.errors import CheckpointError
from qdgs_jax.ports.readers.folder import open_weights
from qdgs_jax.ports.readers.torch_file import named_tensors, read_checkpoint

MEGABYTE = 1 << 20
LOAD = tw.Name("torch.storage", "_load_from_bytes")
EMPTY = tw.of_array(np.zeros(0, np.float32))


def raw(opcodes: bytes) -> bytes:
    return tw.zip_bytes(tw.Raw(opcodes))


def encode(value: object) -> bytes:
    return tw.dump(value)[2:-1]


def repeat(name: str, arguments: tuple[object, ...], times: int = 3000) -> bytes:
    """One call again and again, its name and its arguments recalled from the memo."""
    module, _, function = name.rpartition(".")
    call = encode(tw.Name(module, function)) + b"q\x01" + encode(arguments) + b"q\x02"
    return raw(b"(" + call + b"h\x01h\x02R" * times + b"t")


def recall(value: bytes, times: int) -> bytes:
    """A list of one value again and again."""
    return raw(b"](" + value + b"q\x01" + b"h\x01" * times + b"e")


def nested(root: object, view: bool = False, about: str = "", times: int = 200) -> bytes:
    """A stream of the legacy format, which a plain pickle loads again and again."""
    stream = tw.legacy_bytes(root, {"about": about})
    load = encode(LOAD) + b"q\x01" + encode((stream,)) + b"q\x02"
    one = b"h\x01h\x02R"
    if view:  # one element of it
        load += encode(tw.REBUILD) + b"q\x03"
        one = b"h\x03(" + one + b"K\x00K\x01\x85K\x01\x85tR"
    return b"\x80\x03](" + load + one * times + b"e."


def zip_of_one_entry(times: int = 200) -> bytes:
    """A zip whose directory lists the same bytes under many names."""
    pids = [
        tw.Pid(("storage", tw.Name("torch", "ByteStorage"), str(key), "cpu", MEGABYTE))
        for key in range(times)
    ]
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        file.writestr("a/data.pkl", tw.dump(pids))
        file.writestr("a/data/0", bytes(MEGABYTE))
        for key in range(1, times):
            twin = copy.copy(file.getinfo("a/data/0"))
            twin.filename = f"a/data/{key}"
            file.filelist.append(twin)
    return buffer.getvalue()


def zip_of_many_entries(count: int = 100_000) -> bytes:
    entry = b"PK\x01\x02" + bytes(24) + struct.pack("<H", 1) + bytes(16) + b"a"
    end = struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, 1, 1, count * len(entry), 30, 0)
    return b"PK\x03\x04" + bytes(26) + entry * count + end


def long_path() -> bytes:
    """Tensors without elements, whose names take 60 KB each."""
    tree = tw.Raw(b"](" + encode_tensor() + b"q\x01" + b"h\x01" * 5000 + b"e")
    for _ in range(60):
        tree = {"a" * 1000: tree}
    return tw.zip_bytes(tree, {"data/0": b""})


def encode_tensor() -> bytes:
    return tw.dump(EMPTY, tw.Storages(5).place)[2:-1]


def header(text: bytes) -> bytes:
    return struct.pack("<Q", len(text)) + text


STORAGE = tw.Storage(np.zeros(MEGABYTE, np.uint8))
NUMBERS = list(range(2000))
FAR_MORE = "unfolds to far more"
BOMBS = {  # the file, and what is said; None if it may be read
    "sets of a list": (repeat("builtins.set", (NUMBERS,)), FAR_MORE),
    "copies of a dictionary": (
        repeat("collections.OrderedDict", (dict.fromkeys(NUMBERS),)),
        FAR_MORE,
    ),
    "dictionaries of pairs": (
        repeat("collections.OrderedDict", ([(n, n) for n in NUMBERS],)),
        FAR_MORE,
    ),
    "tuples of a list": (repeat("torch.Size", (NUMBERS * 10,)), FAR_MORE),
    "bytes of a text": (repeat("_codecs.encode", ("a" * 100_000, "latin1"), 2000), None),
    "empty sets": (raw(b"(" + b"\x8f" * 900_000 + b"t"), FAR_MORE),
    "one byte string in many places": (recall(encode(bytes(MEGABYTE)), 200), None),
    "one storage in many places": (
        tw.zip_bytes(
            [tw.Pid(("storage", tw.Name("torch", "ByteStorage"), "0", "cpu", MEGABYTE))] * 200,
            {"data/0": bytes(MEGABYTE)},
        ),
        None,
    ),
    "one nested storage loaded many times": (
        nested(STORAGE),
        "The storages overlap",
    ),
    "one element of a nested storage loaded many times": (
        nested(STORAGE, view=True),
        "The storages overlap",
    ),
    "one nested text loaded many times": (
        nested("a" * MEGABYTE),
        "not a saved storage",
    ),
    "one nested text decoded many times": (
        nested(tw.Storage(np.zeros(1)), about="a" * MEGABYTE),
        FAR_MORE,
    ),
    "one zip entry under many names": (zip_of_one_entry(), "lists the same bytes twice"),
    "a zip of many entries": (zip_of_many_entries(), "directory takes 4700000 bytes"),
    "a long name": (tw.zip_bytes({"a" * MEGABYTE: [EMPTY] * 200}), "as a key"),
    "long paths": (long_path(), FAR_MORE),
    "a large safetensors header": (
        header(b'{"__metadata__":[' + b"{}," * 2_000_000 + b"{}]}"),
        "header declares 6000021 bytes",
    ),
}


@pytest.mark.parametrize("name", BOMBS)
def test_memory_is_bounded_by_the_file(name, tmp_path):
    data, message = BOMBS[name]
    path = tmp_path / "bomb"
    path.write_bytes(data)

    def read():
        with open_weights(path) as root:
            assert sum(len(tensor) for tensor, _ in list(named_tensors(root))) <= len(data)
        read_checkpoint(path)

    with at_most(32 * MEGABYTE + 3 * len(data)):
        if message is None:
            read()
        else:
            with pytest.raises(CheckpointError, match=message):
                read()
