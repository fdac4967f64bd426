"""Hostile files: each is refused with a clear error, and nothing that it holds is executed."""

import builtins
import io
import os
import pickle
import struct
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch_writer as tw

from qdgs_jax.ports.torch_reader import CheckpointError, read_checkpoint

SYSTEM = tw.Name("os", "system")
MARK = ("touch executed",)
FLOATS = np.arange(6, dtype=np.float32)
STORAGE = tw.Storage(FLOATS)
LOAD = tw.Name("torch.storage", "_load_from_bytes")
PERSISTENT = tw.Name("torch_utils.persistence", "_reconstruct_persistent_obj")
DTYPE = tw.Name("numpy", "dtype")
SCALAR = tw.Name("numpy.core.multiarray", "scalar")
SOURCE = "import pathlib; pathlib.Path('executed').touch()"


def tensor(shape, strides, offset=0):
    return tw.zip_bytes(tw.Tensor(STORAGE, shape, strides, offset))


def raw(opcodes: bytes) -> bytes:
    return tw.zip_bytes(tw.Raw(opcodes))


def nest(times: int) -> bytes:
    """Saved storages inside saved storages."""
    inner = tw.legacy_bytes(STORAGE)
    for _ in range(times):
        inner = tw.legacy_bytes(tw.Call(LOAD, (inner,)))
    return tw.dump(tw.Call(LOAD, (inner,)), protocol=3)


def billion_laughs() -> bytes:
    """A list of two lists of two lists ..., each recalled from the memo: 2 to the 60 leaves."""
    out = b"]q\x00"
    for level in range(60):
        out += b"](" + bytes([ord("h"), level] * 2) + b"e" + bytes([ord("q"), level + 1])
    return raw(out)


def archive(names: dict[str, bytes], compression: int = zipfile.ZIP_STORED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as file:
        for name, data in names.items():
            file.writestr(name, data)
    return buffer.getvalue()


def lie_about_size(data: bytes, size: int) -> bytes:
    """A zip whose directory declares another size for its first entry."""
    at = data.rfind(b"PK\x01\x02", 0, data.find(b"PK\x01\x02") + 4)
    return data[: at + 20] + struct.pack("<II", size, size) + data[at + 28 :]


HOSTILE = {
    # Code.
    "a call of os.system": tw.zip_bytes(tw.Call(SYSTEM, MARK)),
    "the same in a legacy file": tw.legacy_bytes(tw.Call(SYSTEM, MARK)),
    "the same in a plain pickle": tw.dump(tw.Call(SYSTEM, MARK), protocol=4),
    "the same as a protocol 0 pickle": pickle.dumps([1], 0) + b"cos\nsystem\n.",
    "the same by stack global": tw.zip_bytes(
        tw.Call(tw.Raw(b"\x8c\x02os\x8c\x06system\x93"), MARK)
    ),
    "the same in a legacy file's list of storages": tw.dump(tw.MAGIC)
    + tw.dump(1001)
    + tw.dump({"little_endian": True})
    + tw.dump({})
    + tw.dump(tw.Call(SYSTEM, MARK)),
    "the same in nested bytes": tw.dump(
        tw.Call(LOAD, (tw.legacy_bytes(tw.Call(SYSTEM, MARK)),)), protocol=3
    ),
    "nested bytes that are a plain pickle": tw.dump(
        tw.Call(LOAD, (tw.dump(tw.Call(SYSTEM, MARK)),)), protocol=3
    ),
    "the same as a key, a value and an item": tw.zip_bytes({"a": [tw.Call(SYSTEM, MARK)]}),
    "eval as a builtin": tw.zip_bytes(tw.Call(tw.Name("builtins", "eval"), (SOURCE,))),
    "a dotted name below an allowed one": tw.zip_bytes(
        tw.Call(tw.Raw(b"\x8c\x05torch\x8c\x1d_utils.sys.modules.__getitem__\x93"), ("os",))
    ),
    "a dotted name in a TorchScript module": tw.zip_bytes(tw.Name("__torch__", "a.b")),
    "a storage class that is called": tw.zip_bytes(
        tw.Call(tw.Name("torch", "FloatStorage"), (10**9,))
    ),
    "an instance of a class by NEWOBJ": tw.zip_bytes(
        tw.Call(tw.Name("subprocess", "Popen"), MARK, new=True)
    ),
    "a whole model": tw.zip_bytes(
        tw.Call(tw.Name("torch.nn.modules.linear", "Linear"), (), {"a": 1}, new=True)
    ),
    "an object by INST": raw(b"(X\x0f\x00\x00\x00touch executed ios\nsystem\n"),
    "an extension code": raw(b"\x82\x01"),
    "a lightning callback that is called": tw.zip_bytes(
        tw.Call(tw.Name("pytorch_lightning.callbacks.model_checkpoint", "ModelCheckpoint"))
    ),
    # BUILD tricks.
    "state for a plain dictionary": tw.zip_bytes(tw.Call(tw.ORDERED_DICT, (), {"__class__": 1})),
    "state for a global": raw(b"ccollections\nOrderedDict\n}b"),
    "state for a tensor": tw.zip_bytes(tw.Raw(b"]}b")),
    "state set twice": tw.zip_bytes(
        tw.Raw(b"cargparse\nNamespace\n)\x81}(X\x01\x00\x00\x00aK\x01ub}(X\x01\x00\x00\x00aK\x02ub")
    ),
    # NumPy scalars and element types.
    "an object scalar": tw.dump(
        tw.Call(SCALAR, (tw.Call(DTYPE, ("O8", False, True)), bytes(8))), None, 3
    ),
    "a scalar of too few bytes": tw.dump(
        tw.Call(SCALAR, (tw.Call(DTYPE, ("f8", False, True)), b"1")), None, 3
    ),
    "a structured element type": tw.dump(
        tw.Call(DTYPE, ("f8", False, True), (3, "|", None, ("a",), {}, -1, -1, 0)), None, 3
    ),
    # Persistent objects.
    "a persistent object that is not a class": tw.dump(
        tw.Call(PERSISTENT, ({"type": "function", "module_src": SOURCE},)), protocol=3
    ),
    "bytes that are not a storage": tw.dump(tw.Call(LOAD, (b"abc",)), protocol=3),
    "nested storages": nest(3),
    # Sizes, offsets and strides.
    "a negative stride": tensor((3,), (-1,), 2),
    "a negative offset": tensor((3,), (1,), -1),
    "an offset beyond the end": tensor((3,), (1,), 4),
    "a shape beyond the end": tensor((7,), (1,)),
    "an impossible shape": tensor((2**40, 2**40), (1, 1)),
    "an impossible shape without elements": tensor((0, 2**40, 2**40), (1, 1, 1)),
    "a zero stride": tensor((10**9,), (0,)),
    "overlapping rows": tensor((2, 4), (1, 1)),
    "a stride too few": tensor((2, 3), (1,)),
    "a shape of floats": tensor((2.0,), (1,)),
    "a shape of booleans": tensor((True,), (1,)),
    "too many axes": tensor((1,) * 100, (1,) * 100),
    "a storage that declares more than the file": tw.zip_bytes(
        tw.Pid(("storage", tw.Name("torch", "FloatStorage"), "0", "cpu", 10**12)),
        {"data/0": bytes(8)},
    ),
    "a storage that declares less than nothing": tw.zip_bytes(
        tw.Pid(("storage", tw.Name("torch", "FloatStorage"), "0", "cpu", -1)), {"data/0": b""}
    ),
    "a storage declared in two ways": tw.zip_bytes(
        [
            tw.Pid(("storage", tw.Name("torch", kind), "0", "cpu", count))
            for kind, count in (("FloatStorage", 2), ("DoubleStorage", 1))
        ],
        {"data/0": bytes(8)},
    ),
    "many large tensors of one storage": tw.zip_bytes(
        [tw.Tensor(tw.Storage(np.zeros(5000)), (5000,), (1,))] * 9
    ),
    # Pickle bombs.
    "a text of 4 GB": raw(b"X\xff\xff\xff\xff"),
    "bytes of 2**63": raw(b"\x8e" + b"\xff" * 8),
    "a frame beyond the end": raw(b"\x95" + b"\xff" * 7 + b"\x00"),
    "a huge integer": raw(b"\x8a\xff" + b"\xff" * 255),
    "a value never stored": raw(b"h\x07"),
    "an empty stack": raw(b"0"),
    "a mark missing": raw(b"t"),
    "lists within lists": raw(b"](" * 5000 + b"e" * 5000),
    "tuples within tuples as a key": raw(b"})" + b"\x85" * 50_000 + b"Ns"),
    "a list within itself": raw(b"]q\x00h\x00a"),
    "a billion laughs": billion_laughs(),
    "a million empty lists": raw(b"](" + b"]" * 1_000_000 + b"e"),
    "a key twice": tw.zip_bytes(tw.Raw(b"}(K\x01NK\x01Nu")),
    # Archives.
    "an entry outside": archive({"a/data.pkl": b"N.", "a/../../executed": b""}),
    "an absolute entry": archive({"a/data.pkl": b"N.", "/executed": b""}),
    "a storage key that climbs": tw.zip_bytes(
        tw.Pid(("storage", tw.Name("torch", "FloatStorage"), "../../secret", "cpu", 1))
    ),
    "two top folders": archive({"a/data.pkl": b"N.", "b/data.pkl": b"N."}),
    "no pickle": archive({"a/b": b"N."}),
    "a compressed pickle": archive({"a/data.pkl": b"\x80\x02N."}, zipfile.ZIP_DEFLATED),
    "a pickle that declares more than the file": lie_about_size(
        archive({"a/data.pkl": b"\x80\x02N."}), 2**31
    ),
    "a big-endian archive": tw.zip_bytes({}, {"byteorder": b"big"}),
    "a big-endian legacy file": tw.legacy_bytes({}, {"little_endian": False}),
    "bytes after the pickle": tw.dump({}) + b"x",
    "bytes after the storages": tw.legacy_bytes([FLOATS]) + b"x",
}


def test_there_are_enough_of_them():
    assert len(HOSTILE) >= 25


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_file_is_refused_and_executes_nothing(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "hostile.pt"
    path.write_bytes(HOSTILE[name])
    called = []
    for module, function in ((os, "system"), (builtins, "eval")):
        monkeypatch.setattr(module, function, lambda *args: called.append(args))
    monkeypatch.setattr(subprocess, "Popen", lambda *args: called.append(args))
    zipfile.ZipFile(io.BytesIO(archive({"a": b""})))  # imports the codec of zip's file names
    modules = set(sys.modules)
    with pytest.raises(CheckpointError) as caught:
        read_checkpoint(path)
    assert str(path) in str(caught.value)
    assert len(str(caught.value)) < 1000
    assert called == []
    assert set(sys.modules) == modules
    assert [p.name for p in Path().iterdir()] == ["hostile.pt"]


def test_embedded_source_is_dropped_unread(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    meta = {
        "type": "class",
        "version": 6,
        "module_src": SOURCE,
        "class_name": "Generator",
        "state": {"z_dim": 4},
    }
    (tmp_path / "network.pkl").write_bytes(tw.dump({"G": tw.Call(PERSISTENT, (meta,))}, None, 3))
    found = read_checkpoint(tmp_path / "network.pkl")["G"]
    assert (found.class_name, found.state) == ("Generator", {"z_dim": 4})
    assert not (tmp_path / "executed").exists()
