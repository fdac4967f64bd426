"""What stands beside the weights of a training checkpoint is passed over, and never executed."""

import io
import struct
import zipfile

import numpy as np
import pytest
import torch_writer as tw
from synthetic import DATA

from qdgs_jax import ports
from qdgs_jax.ports.readers.torch_file import CheckpointError, read_checkpoint
from qdgs_jax.ports.readers.values import Opaque

FLOATS = np.arange(6, dtype=np.float32)


def call(module, name, *arguments, state=None, items=None, new=False):
    return tw.Call(tw.Name(module, name), arguments, state, items, new)


def text_bytes(data):
    """Bytes as protocol 2 writes them."""
    return call("_codecs", "encode", data.decode("latin1"), "latin1")


def dtype(code="f4", state=(3, "<", None, None, None, -1, -1, 0)):
    return call("numpy", "dtype", code, False, True, state=state)


def array(content, code="f4", home="numpy.core.multiarray"):
    empty = (tw.Name("numpy", "ndarray"), (0,), text_bytes(b"b"))
    return call(home, "_reconstruct", *empty, state=(1, (3,), dtype(code), False, content))


LONG = bytes(range(256)) * 40
DROPPED = {
    "a path": call("pathlib", "PosixPath", "/", "data", "images"),
    "a path of Python 3.13": call("pathlib._local", "WindowsPath", "C:\\", "x"),
    "a device": call("torch", "device", "cuda", 0),
    "an array": array(text_bytes(FLOATS[:3].tobytes())),
    "a long array": array(text_bytes(LONG)),
    "an array of NumPy 2": array(text_bytes(LONG), home="numpy._core.multiarray"),
    "an array of texts": array(text_bytes(b"abc"), "U3"),
    "an array of objects": array(["a", 1, None], "O8"),
    "an array of dates": array(text_bytes(bytes(24)), "M8"),
    "an array of protocol 5": call(
        "numpy._core.numeric",
        "_frombuffer",
        tw.Raw(b"\x96" + struct.pack("<Q", 12) + FLOATS[:3].tobytes()),
        dtype(),
        (3,),
        "C",
    ),
    "a date": call("datetime", "date", text_bytes(b"\x07\xea\x0b\x1c")),
    "a time with a zone": call(
        "datetime",
        "datetime",
        text_bytes(b"\x07\xea\x0b\x1c" + bytes(6)),
        call("datetime", "timezone", call("datetime", "timedelta", 0, 3600, 0)),
    ),
    "a version of torch": call("torch.torch_version", "TorchVersion", "2.9.0"),
    "a function with arguments": call(
        "functools", "partial", tw.Name("torch.optim.adam", "Adam"), state=(1, (), {}, None)
    ),
    "a decimal": call("decimal", "Decimal", "0.1"),
    "a complex number": call("__builtin__", "complex", 1.0, 2.0),
    "a slice": call("__builtin__", "slice", 0, 3, None),
    "a range": call("__builtin__", "xrange", 0, 3, 1),
    "a bytearray": call("__builtin__", "bytearray", "abc", "latin-1"),
    "a namespace": call("types", "SimpleNamespace", state={"a": 1}),
    "an EasyDict": call("easydict", "EasyDict", state={"a": 1}, items={"a": 1}, new=True),
    "a DictConfig": call(
        "omegaconf.dictconfig",
        "DictConfig",
        new=True,
        state={
            "_content": {"lr": call("omegaconf.nodes", "AnyNode", new=True, state={"_val": 0.1})},
            "_metadata": call(
                "omegaconf.base",
                "ContainerMetadata",
                new=True,
                state={
                    "ref_type": tw.Name("typing", "Any"),
                    "object_type": tw.Name("builtins", "dict"),
                },
            ),
        },
    ),
}
KEPT = {
    "a deque": (call("collections", "deque", [], 3), []),
    "a frozen set": (call("__builtin__", "frozenset", [1, 2]), {1, 2}),
    "no bytes": (call("__builtin__", "bytes"), b""),
    "short bytes": (text_bytes(b"\xff\x00"), b"\xff\x00"),
    "settings of Lightning 2": (
        call("lightning_fabric.utilities.data", "AttributeDict", items={"m": 0.4}, new=True),
        {"m": 0.4},
    ),
}


def read(root, tmp_path, write=tw.zip_bytes):
    (tmp_path / "file.pt").write_bytes(write(root))
    return read_checkpoint(tmp_path / "file.pt")


@pytest.mark.parametrize("name", DROPPED)
@pytest.mark.parametrize("write", [tw.zip_bytes, tw.legacy_bytes], ids=["zip", "legacy"])
def test_data_that_no_model_needs_is_dropped(name, write, tmp_path):
    root = {"hyper_parameters": {"x": DROPPED[name], "after": 7}, "w": FLOATS}
    found = read(root, tmp_path, write)
    assert type(found["hyper_parameters"]["x"]) is Opaque
    assert found["hyper_parameters"]["after"] == 7
    np.testing.assert_array_equal(found["w"], FLOATS)


@pytest.mark.parametrize("name", KEPT)
def test_data_that_is_plain_is_kept(name, tmp_path):
    value, wanted = KEPT[name]
    assert read({"x": value}, tmp_path)["x"] == wanted


def test_a_deque_is_filled_behind_its_call(tmp_path):
    opcodes = tw.dump(call("collections", "deque", (), 5))[2:-1] + b"(K\x01K\x02e"
    assert read({"x": tw.Raw(opcodes)}, tmp_path)["x"] == [1, 2]


def test_a_path_may_be_a_key(tmp_path):
    path = call("pathlib", "PosixPath", "a")
    opcodes = b"}(" + tw.dump(path)[2:-1] + b"K\x01u"
    assert list(read(tw.Raw(opcodes), tmp_path).values()) == [1]


def test_a_lightning_checkpoint_with_all_of_it_is_converted(tmp_path):
    state = dict(ports.read_checkpoint(DATA / "ports/vae_tiny.pt"))
    root = {"state_dict": tw.ordered(state), "hyper_parameters": DROPPED, "epoch": 3}
    (tmp_path / "vae.ckpt").write_bytes(tw.zip_bytes(root))
    assert ports.convert("vae", tmp_path / "vae.ckpt", tmp_path / "out").parameters == 2543


def test_parameters_with_attributes_are_tensors(tmp_path):
    hooks, state = tw.Call(tw.ORDERED_DICT), {"tag": call("pathlib", "PosixPath", "x")}
    rebuild = tw.Name("torch._utils", "_rebuild_parameter_with_state")
    parameter = tw.Call(rebuild, (FLOATS, True, hooks, state))
    subclass = call(
        "torch._tensor",
        "_rebuild_from_type_v2",
        tw.REBUILD,
        tw.Name("torch", "Tensor"),
        (tw.Storage(FLOATS), 0, (6,), (1,), False, hooks),
        {"tag": 1},
    )
    for value in (parameter, subclass):
        np.testing.assert_array_equal(read({"w": value}, tmp_path)["w"], FLOATS)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (call("os", "getcwd"), "names 'os.getcwd'"),
        (call("my_project.config", "Config", state={"a": 1}, new=True), "names 'my_project.config"),
        (call("pathlib", "os.system", "true"), "names 'pathlib.os.system'"),
        (call("omegaconf.a", "b.c"), "names 'omegaconf.a.b.c'"),
        (call("builtins", "dict", [(1, 2)]), "calls builtins.dict"),
        (call("torch", "Tensor", 5), "calls torch.Tensor"),
        (
            call(
                "torch._tensor",
                "_rebuild_from_type_v2",
                tw.Name("torch", "Size"),
                tw.Name("torch", "Tensor"),
                ((1,),),
                None,
            ),
            "a tensor is made by 'torch.Size'",
        ),
        (
            call("numpy.core.multiarray", "scalar", dtype("U3", None), text_bytes(b"abc")),
            "type 'U3' of a scalar",
        ),
    ],
)
def test_other_names_are_refused_still(value, message, tmp_path):
    with pytest.raises(CheckpointError, match="Refused") as caught:
        read({"x": value}, tmp_path)
    assert message in str(caught.value)


def without_checksums(data, keep=()):
    """A zip whose entries have 0 for a checksum, but for some."""
    out = bytearray(data)
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        directory = archive.start_dir
        infos = archive.infolist()
    for info in infos:
        place = directory + 16
        if info.filename not in keep:
            out[info.header_offset + 14 : info.header_offset + 18] = bytes(4)
            out[place : place + 4] = bytes(4)
        directory += 46 + len(info.filename.encode()) + len(info.extra) + len(info.comment)
    return bytes(out)


def test_an_archive_without_checksums_is_read(tmp_path):
    data = tw.zip_bytes({"w": FLOATS})
    (tmp_path / "file.pt").write_bytes(without_checksums(data))
    np.testing.assert_array_equal(read_checkpoint(tmp_path / "file.pt")["w"], FLOATS)
    (tmp_path / "vae.pt").write_bytes(without_checksums((DATA / "ports/vae_tiny.pt").read_bytes()))
    wanted = ports.read_checkpoint(DATA / "ports/vae_tiny.pt")
    found = ports.read_checkpoint(tmp_path / "vae.pt")
    assert all((found[name] == leaf).all() for name, leaf in wanted.items())


@pytest.mark.parametrize("kept", ["archive/data/0", "archive/data.pkl", "archive/version"])
def test_a_checksum_that_is_missing_among_others_is_damage(kept, tmp_path):
    data = without_checksums(tw.zip_bytes({"w": FLOATS}), keep=(kept,))
    (tmp_path / "file.pt").write_bytes(data)
    with pytest.raises(CheckpointError, match="checksum"):
        read_checkpoint(tmp_path / "file.pt")


def test_a_wrong_checksum_is_damage(tmp_path):
    data = bytearray(tw.zip_bytes({"w": FLOATS}))
    data[data.find(FLOATS.tobytes())] ^= 1
    (tmp_path / "file.pt").write_bytes(data)
    with pytest.raises(CheckpointError, match="checksum"):
        read_checkpoint(tmp_path / "file.pt")


POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a2146\nsize 12345\n"
STAND_INS = {
    "a pointer": (POINTER, "a Git LFS pointer"),
    "a page": (b"\n<!DOCTYPE html>\n<html><head>", "a web page"),
    "a page of a server": (b"<HTML><BODY>404", "a web page"),
    "a refusal": (b"Entry not found", "It is a text that begins with 'Entry not found'"),
    "nothing": (b"", "The file is empty"),
    "a gzip archive": (b"\x1f\x8b\x08" + bytes(99), "a gzip archive"),
    "a Keras file": (b"\x89HDF\r\n\x1a\n" + bytes(99), "an HDF5 file"),
}


@pytest.mark.parametrize("name", STAND_INS)
@pytest.mark.parametrize("file", ["model.pt", "model.safetensors", "hf"])
def test_a_file_that_stands_in_for_another_is_named(name, file, tmp_path):
    data, message = STAND_INS[name]
    path = tmp_path / file
    if file == "hf":
        path.mkdir()
    weights = path / "pytorch_model.bin" if file == "hf" else path
    weights.write_bytes(data)
    for kind in ("clip", "stylegan2", "vae"):
        with pytest.raises(CheckpointError) as caught:
            ports.convert(kind, path, tmp_path / "out")
        assert str(caught.value).startswith(f"{weights}: ")
        assert message in str(caught.value)


@pytest.mark.parametrize(
    "url",
    [
        "https://huggingface.co/openai/clip-vit-base-patch32",
        "https:/openaipublic.azureedge.net/clip/ViT-B-32.pt",  # as a path writes it
        "hf://openai/clip",
        "s3://bucket/model.pt",
    ],
)
def test_an_address_is_not_fetched(url, tmp_path):
    message = "is an address, and nothing is downloaded"
    with pytest.raises(CheckpointError, match=message):
        ports.convert("clip", url, tmp_path / "out")
    with pytest.raises(CheckpointError, match=message):
        ports.describe(url)


def test_a_name_on_a_hub_is_not_fetched(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(CheckpointError, match="model's name on a website, nothing is downloaded"):
        ports.convert("clip", "openai/clip-vit-base-patch32", "out")
    (tmp_path / "openai").mkdir()  # now it is a path with a slip
    with pytest.raises(CheckpointError, match=r"This path does not exist\.$"):
        ports.convert("clip", "openai/clip-vit-base-patch32", "out")
