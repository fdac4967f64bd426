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

from qdgs_jax.ports.readers.torch_file import CheckpointError, read_checkpoint

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


def stack_global(module: str, name: str) -> bytes:
    """Opcodes of a global whose names are texts."""
    return b"".join(b"X" + struct.pack("<I", len(t)) + t.encode() for t in (module, name)) + b"\x93"


def nest(times: int) -> bytes:
    """Saved storages inside saved storages."""
    inner = tw.legacy_bytes(STORAGE)
    for _ in range(times):
        inner = tw.legacy_bytes(tw.Call(LOAD, (inner,)))
    return tw.dump(tw.Call(LOAD, (inner,)), protocol=3)


def billion_laughs() -> bytes:
    """A list of two lists of two lists ..., each recalled from the memo: 2 to the 60 leaves."""
    out = b"]q\x00"  # the last of these lists, and all before it, make a tuple
    for level in range(60):
        out += b"](" + bytes([ord("h"), level] * 2) + b"e" + bytes([ord("q"), level + 1])
    return raw(b"(" + out + b"t")


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
    "a call of os.system": (tw.zip_bytes(tw.Call(SYSTEM, MARK)), "the pickle names 'os.system'"),
    "the same in a legacy file": (
        tw.legacy_bytes(tw.Call(SYSTEM, MARK)),
        "the pickle names 'os.system'",
    ),
    "the same in a plain pickle": (
        tw.dump(tw.Call(SYSTEM, MARK), protocol=4),
        "the pickle names 'os.system'",
    ),
    "the same as a protocol 0 pickle": (
        pickle.dumps([1], 0) + b"cos\nsystem\n.",
        "not a PyTorch checkpoint",
    ),
    "the same by stack global": (
        tw.zip_bytes(tw.Call(tw.Raw(stack_global("os", "system")), MARK)),
        "the pickle names 'os.system'",
    ),
    "the same in a legacy file's list of storages": (
        tw.dump(tw.MAGIC)
        + tw.dump(1001)
        + tw.dump({"little_endian": True})
        + tw.dump({})
        + tw.dump(tw.Call(SYSTEM, MARK)),
        "the pickle names 'os.system'",
    ),
    "the same in nested bytes": (
        tw.dump(tw.Call(LOAD, (tw.legacy_bytes(tw.Call(SYSTEM, MARK)),)), protocol=3),
        "the pickle names 'os.system'",
    ),
    "nested bytes that are a plain pickle": (
        tw.dump(tw.Call(LOAD, (tw.dump(tw.Call(SYSTEM, MARK)),)), protocol=3),
        "the pickle names 'os.system'",
    ),
    "the same in a list in a dictionary": (
        tw.zip_bytes({"a": [tw.Call(SYSTEM, MARK)]}),
        "the pickle names 'os.system'",
    ),
    "eval as a builtin": (
        tw.zip_bytes(tw.Call(tw.Name("builtins", "eval"), (SOURCE,))),
        "the pickle names 'builtins.eval'",
    ),
    "a dotted name below an allowed one": (
        tw.zip_bytes(
            tw.Call(tw.Raw(stack_global("torch", "_utils.sys.modules.__getitem__")), ("os",))
        ),
        "the pickle names 'torch._utils.sys.modules.__getitem__'",
    ),
    "the attributes of an allowed function": (
        tw.zip_bytes(
            tw.Call(tw.Name("torch._utils", "_rebuild_tensor_v2.__globals__.get"), ("os",))
        ),
        "the pickle names 'torch._utils._rebuild_tensor_v2.__globals__.get'",
    ),
    "a name of 300 letters": (raw(stack_global("__torch__", "a" * 300)), "of '__torch__'"),
    "a TensorFlow network": (
        tw.dump(tw.Call(tw.Name("dnnlib.tflib.network", "Network"), (), {}, new=True), protocol=3),
        "legacy.py --source",
    ),
    "a dotted name in a TorchScript module": (
        tw.zip_bytes(tw.Name("__torch__", "a.b")),
        "the pickle names '__torch__.a.b'",
    ),
    "a storage class that is called": (
        tw.zip_bytes(tw.Call(tw.Name("torch", "FloatStorage"), (10**9,))),
        "the pickle calls torch.FloatStorage",
    ),
    "an instance of a class by NEWOBJ": (
        tw.zip_bytes(tw.Call(tw.Name("subprocess", "Popen"), MARK, new=True)),
        "the pickle names 'subprocess.Popen'",
    ),
    "a whole model": (
        tw.zip_bytes(tw.Call(tw.Name("torch.nn.modules.linear", "Linear"), (), {"a": 1}, new=True)),
        "save its state_dict()",
    ),
    "an object by INST": (
        raw(b"(X\x0f\x00\x00\x00touch executed ios\nsystem\n"),
        "uses opcode 0x69",
    ),
    "an extension code": (raw(b"\x82\x01"), "uses opcode 0x82"),
    "a call with many arguments": (
        tw.zip_bytes(tw.Call(tw.Name("torch.jit._pickle", "restore_type_tag"), (None,) * 999)),
        "calls torch.jit._pickle.restore_type_tag with 999 arguments",
    ),
    "a lightning callback that is called": (
        tw.zip_bytes(
            tw.Call(tw.Name("pytorch_lightning.callbacks.model_checkpoint", "ModelCheckpoint"))
        ),
        "model_checkpoint.ModelCheckpoint, and no supported checkpoint",
    ),
    # BUILD tricks.
    "state for a plain dictionary": (
        tw.zip_bytes(tw.Call(tw.ORDERED_DICT, (), {"__class__": 1})),
        "sets the state of a dict",
    ),
    "state for a global": (raw(b"ccollections\nOrderedDict\n}b"), "sets the state of a Global"),
    "state for a list": (raw(b"]}b"), "sets the state of a list"),
    "state for a tensor": (
        tw.zip_bytes(
            tw.Call(tw.REBUILD, (STORAGE, 0, (6,), (1,), False, tw.Call(tw.ORDERED_DICT)), {"a": 1})
        ),
        "sets the state of a Tensor",
    ),
    "state for nothing": (raw(b"}b"), "sets the state of nothing"),
    "state changed to be named by numbers": (
        raw(b"(c__torch__\nA\n)\x81}q\x05bh\x05(K\x05Nut"),
        "a '__torch__.A' has an attribute 5",
    ),
    "state set twice": (
        tw.zip_bytes(
            tw.Raw(
                b"cargparse\nNamespace\n)\x81}(X\x01\x00\x00\x00aK\x01ub}(X\x01\x00\x00\x00aK\x02ub"
            )
        ),
        "the state of a 'argparse.Namespace' is a dict, or set twice",
    ),
    # NumPy scalars and element types.
    "an object scalar": (
        tw.dump(tw.Call(SCALAR, (tw.Call(DTYPE, ("O8", False, True)), bytes(8))), None, 3),
        "NumPy element type 'O8'",
    ),
    "a scalar of too few bytes": (
        tw.dump(tw.Call(SCALAR, (tw.Call(DTYPE, ("f8", False, True)), b"1")), None, 3),
        "A NumPy scalar of type float64 has 1 bytes",
    ),
    "a structured element type": (
        tw.dump(
            tw.Call(DTYPE, ("f8", False, True), (3, "|", None, ("a",), {}, -1, -1, 0)), None, 3
        ),
        "structured or big-endian",
    ),
    # Persistent objects.
    "a persistent object that is not a class": (
        tw.dump(tw.Call(PERSISTENT, ({"type": "function", "module_src": SOURCE},)), protocol=3),
        "has no class and state",
    ),
    "nested bytes that are a number": (
        tw.dump(tw.Call(LOAD, (tw.dump(5),)), protocol=3),
        "not a saved storage",
    ),
    "nested bytes that are a saved text": (
        tw.dump(tw.Call(LOAD, (tw.legacy_bytes("text"),)), protocol=3),
        "not a saved storage",
    ),
    "nested storages": (nest(3), "the pickle names 'torch.storage._load_from_bytes'"),
    # Sizes, offsets and strides.
    "a negative stride": (tensor((3,), (-1,), 2), "The strides of a tensor contains -1"),
    "a negative offset": (tensor((3,), (1,), -1), "The offset of a tensor contains -1"),
    "an offset beyond the end": (
        tensor((3,), (1,), 4),
        "reaches element 7 of a storage that holds 6",
    ),
    "a shape beyond the end": (tensor((7,), (1,)), "reaches element 7 of a storage that holds 6"),
    "an impossible shape": (tensor((2**40, 2**40), (1, 1)), "declares the impossible shape"),
    "an impossible shape without elements": (
        tensor((0, 2**40, 2**40), (1, 1, 1)),
        "declares the impossible shape",
    ),
    "a zero stride": (tensor((10**9,), (0,)), "overlaps itself"),
    "overlapping rows": (tensor((2, 4), (1, 1)), "overlaps itself"),
    "a stride too few": (tensor((2, 3), (1,)), "has 2 sizes but 1 strides"),
    "a shape of floats": (tensor((2.0,), (1,)), "The shape of a tensor contains 2.0"),
    "a shape of booleans": (tensor((True,), (1,)), "The shape of a tensor contains True"),
    "too many axes": (tensor((1,) * 100, (1,) * 100), "has 100 axes, more than 16"),
    "a storage that declares more than the file": (
        tw.zip_bytes(
            tw.Pid(("storage", tw.Name("torch", "FloatStorage"), "0", "cpu", 10**12)),
            {"data/0": bytes(8)},
        ),
        "but the file holds 8 bytes",
    ),
    "a storage that declares less than nothing": (
        tw.zip_bytes(
            tw.Pid(("storage", tw.Name("torch", "FloatStorage"), "0", "cpu", -1)), {"data/0": b""}
        ),
        "A storage declares -1 elements",
    ),
    "a storage declared in two ways": (
        tw.zip_bytes(
            [
                tw.Pid(("storage", tw.Name("torch", kind), "0", "cpu", count))
                for kind, count in (("FloatStorage", 2), ("DoubleStorage", 1))
            ],
            {"data/0": bytes(8)},
        ),
        "declares one storage in two ways",
    ),
    "many large tensors of one storage": (
        tw.zip_bytes([tw.Tensor(tw.Storage(np.zeros(5000)), (5000,), (1,))] * 20),
        "they share storages more",
    ),
    # Pickle bombs.
    "a text of 4 GB": (raw(b"X\xff\xff\xff\xff"), "declares a text of 4294967295 bytes"),
    "bytes of 2**63": (raw(b"\x8e" + b"\xff" * 8), "18446744073709551615 bytes are declared"),
    "a frame beyond the end": (
        raw(b"\x95" + b"\xff" * 7 + b"\x00"),
        "72057594037927935 bytes are declared",
    ),
    "a huge integer": (raw(b"\x8a\xff" + b"\xff" * 255), "an integer of 255 bytes"),
    "a value never stored": (raw(b"h\x07"), "recalls value 7"),
    "an empty stack": (raw(b"R"), "takes a value that is not there"),
    "an empty stack to be memoized": (raw(b"q\x00"), "memoizes a value that is not there"),
    "an opcode that no checkpoint needs": (raw(b"0"), "uses opcode 0x30"),
    "a mark missing": (raw(b"t"), "a mark is missing"),
    "lists within lists": (raw(b"](" * 5000 + b"e" * 5000), "nested too deeply"),
    "tuples within tuples as a key": (
        raw(b"})" + b"\x85" * 50_000 + b"Ns"),
        "uses a tuple as a key",
    ),
    "a list within itself": (raw(b"]q\x00h\x00a"), "nested too deeply, or within itself"),
    "a billion laughs": (billion_laughs(), "unfolds to far more"),
    "a million empty lists": (raw(b"](" + b"]" * 1_000_000 + b"e"), "unfolds to far more"),
    "integers that collide as keys": (
        tw.zip_bytes({(2**61 - 1) * n: None for n in range(9)}),
        "uses 2305843009213693951 as a key",
    ),
    "a key twice": (tw.zip_bytes(tw.Raw(b"}(K\x01NK\x01Nu")), "sets the key 1 twice"),
    # Archives.
    "an entry outside": (
        archive({"a/data.pkl": b"N.", "a/../../executed": b""}),
        "an entry named 'a/../../executed'",
    ),
    "an absolute entry": (
        archive({"a/data.pkl": b"N.", "/executed": b""}),
        "an entry named '/executed'",
    ),
    "a storage key that climbs": (
        tw.zip_bytes(
            tw.Pid(("storage", tw.Name("torch", "FloatStorage"), "../../secret", "cpu", 1))
        ),
        "lacks the entry 'data/../../secret'",
    ),
    "an entry under another's name": (
        archive({"a/data.pkl": b"N.", "a/byteorder": b""}).replace(b"byteorder", b"databyte.", 1),
        "has another name inside",
    ),
    "two top folders": (
        archive({"a/data.pkl": b"N.", "b/data.pkl": b"N."}),
        "has a data.pkl, the archive has several",
    ),
    "no pickle": (archive({"a/b": b"N."}), "has a data.pkl, the archive has none"),
    "NumPy's archive": (archive({"a.npy": b"N."}), "the archive has only NumPy arrays"),
    "NumPy's array": (b"\x93NUMPY\x01\x00", "This is a NumPy array"),
    "a compressed pickle": (
        archive({"a/data.pkl": b"\x80\x02N."}, zipfile.ZIP_DEFLATED),
        "compressed or encrypted",
    ),
    "a pickle that declares more than the file": (
        lie_about_size(archive({"a/data.pkl": b"\x80\x02N."}), 2**31),
        "runs into the next one",
    ),
    "a big-endian archive": (tw.zip_bytes({}, {"byteorder": b"big"}), "on a big-endian machine"),
    "a big-endian legacy file": (
        tw.legacy_bytes({}, {"little_endian": False}),
        "not saved on a little-endian machine",
    ),
    "bytes after the pickle": (tw.dump({}) + b"x", "1 bytes follow the end of the pickle"),
    "bytes after the storages": (
        tw.legacy_bytes([FLOATS]) + b"x",
        "1 bytes follow the last storage",
    ),
}


def test_there_are_enough_of_them():
    assert len(HOSTILE) >= 25


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_file_is_refused_and_executes_nothing(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "hostile.pt"
    data, message = HOSTILE[name]
    path.write_bytes(data)
    called = []
    for module, function in ((os, "system"), (builtins, "eval")):
        monkeypatch.setattr(module, function, lambda *args: called.append(args))
    monkeypatch.setattr(subprocess, "Popen", lambda *args: called.append(args))
    zipfile.ZipFile(io.BytesIO(archive({"a": b""})))  # imports the codec of zip's file names
    modules = set(sys.modules)
    with pytest.raises(CheckpointError) as caught:
        read_checkpoint(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert message in str(caught.value)
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
