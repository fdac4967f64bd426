"""Safetensors files: what is declared must be there, once, without gaps."""

import io
import json

import ml_dtypes
import numpy as np
import pytest
from checkpoint_formats import safetensors

from qdgs_jax.ports import describe
from qdgs_jax.ports.errors import CheckpointError
from qdgs_jax.ports.readers.safetensors_file import read_safetensors

ARRAYS = {
    "w": np.arange(6, dtype=np.float32).reshape(2, 3),
    "h": np.ones(4, np.float16),
    "b": np.full((1, 2), 0.5, ml_dtypes.bfloat16),
    "i": np.arange(3),
    "s": np.asarray(2, np.float32),
    "e": np.zeros((0, 3), np.float32),
}


def with_header(header, body=bytes(8)):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + body


def entry(dtype="F32", shape=(2,), data_offsets=(0, 8)):
    return {"dtype": dtype, "shape": list(shape), "data_offsets": list(data_offsets)}


def test_tensors_are_read_as_written():
    found = read_safetensors(io.BytesIO(safetensors(ARRAYS)))
    assert list(found) == list(ARRAYS)
    for name, array in ARRAYS.items():
        assert found[name].dtype == array.dtype
        np.testing.assert_array_equal(found[name].numpy(), array)


def test_the_official_implementation_writes_the_same_format(tmp_path):
    from safetensors.numpy import save_file

    arrays = {name: array for name, array in ARRAYS.items() if name != "e"}
    save_file(arrays, tmp_path / "model.safetensors", metadata={"format": "pt"})
    listed = {
        info.name: (info.shape, info.dtype) for info in describe(tmp_path / "model.safetensors")
    }
    assert listed == {name: (a.shape, a.dtype.name) for name, a in arrays.items()}
    with (tmp_path / "model.safetensors").open("rb") as file:
        found = read_safetensors(file)
        np.testing.assert_array_equal(found["w"].numpy(), arrays["w"])


HOSTILE = {
    "a header beyond the end": (
        (2**40).to_bytes(8, "little") + b"{}",
        "declares 1099511627776 bytes",
    ),
    "a header longer than the file": ((99).to_bytes(8, "little") + b"{}", "99 bytes are declared"),
    "no JSON": (with_header(b"{nonsense"), "not valid JSON"),
    "JSON that is not UTF-8": (with_header("{}".encode("utf-16-le")), "not valid JSON"),
    "JSON nested deeply": (with_header(b'{"a":' + b"[" * 100_000), "not valid JSON"),
    "no table": (with_header(b"[]"), "not a table"),
    "a name twice": (with_header(b'{"a": {}, "a": {}}'), "names a tensor twice"),
    "no entry": (with_header({"a": 1}), "'a' has the unknown type None"),
    "an unknown type": (with_header({"a": entry("F4")}), "the unknown type 'F4'"),
    "a type that is no text": (with_header({"a": entry(["F32"])}), "the unknown type a list"),
    "a place beyond the end": (
        with_header({"a": entry(data_offsets=(0, 16), shape=(4,))}),
        "16 bytes are declared",
    ),
    "a place before the start": (
        with_header({"a": entry(data_offsets=(-8, 0))}),
        "no valid shape and place",
    ),
    "a place backwards": (with_header({"a": entry(data_offsets=(8, 0))}), "-8 bytes are declared"),
    "a place of three": (with_header({"a": entry(data_offsets=(0, 4, 8))}), "no valid place"),
    "a shape that does not fill its place": (
        with_header({"a": entry(shape=(3,))}),
        "declares 3 elements",
    ),
    "a negative size": (with_header({"a": entry(shape=(-2, -1))}), "no valid shape and place"),
    "a size that is a float": (with_header({"a": entry(shape=(2.0,))}), "no valid shape and place"),
    "an impossible shape": (
        with_header({"a": entry(shape=(2**40, 2**40, 2**40))}),
        "A storage declares",
    ),
    "too many axes": (
        with_header({"a": entry(shape=(1,) * 30 + (2,))}),
        "no valid shape and place",
    ),
    "an overlap": (
        with_header({"a": entry(), "b": entry(shape=(1,), data_offsets=(4, 8))}),
        "overlap or leave a gap",
    ),
    "a gap": (with_header({"a": entry(shape=(1,), data_offsets=(4, 8))}), "overlap or leave a gap"),
    "a name that is no Unicode": (
        with_header({"\ud800": entry()}),
        "the impossible name '\\ud800'",
    ),
    "a name that steers the terminal": (
        with_header({"\x1b[2J": entry()}),
        "the impossible name '\\x1b[2J'",
    ),
    "a name of 2000 letters": (with_header({"a" * 2000: entry()}), "the impossible name 'aaa"),
    "bytes that belong to nothing": (
        with_header({"a": entry()}, bytes(9)),
        "1 bytes follow the last tensor",
    ),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_file_is_refused(name):
    data, message = HOSTILE[name]
    with pytest.raises(CheckpointError) as caught:
        read_safetensors(io.BytesIO(data))
    assert message in str(caught.value)
