"""Safetensors files: what is declared must be there, once, without gaps."""

import io
import json

import ml_dtypes
import numpy as np
import pytest
from checkpoint_formats import safetensors

from qdgs_jax.ports import describe
from qdgs_jax.ports.errors import CheckpointError
from qdgs_jax.ports.safetensors_reader import read_safetensors

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
    "a header beyond the end": (2**40).to_bytes(8, "little") + b"{}",
    "a header longer than the file": (99).to_bytes(8, "little") + b"{}",
    "no JSON": with_header(b"{nonsense"),
    "JSON nested deeply": with_header(b'{"a":' + b"[" * 100_000),
    "no table": with_header(b"[]"),
    "a name twice": with_header(b'{"a": {}, "a": {}}'),
    "no entry": with_header({"a": 1}),
    "an unknown type": with_header({"a": entry("F4")}),
    "a type that is no text": with_header({"a": entry(["F32"])}),
    "a place beyond the end": with_header({"a": entry(data_offsets=(0, 16), shape=(4,))}),
    "a place before the start": with_header({"a": entry(data_offsets=(-8, 0))}),
    "a place backwards": with_header({"a": entry(data_offsets=(8, 0))}),
    "a place of three": with_header({"a": entry(data_offsets=(0, 4, 8))}),
    "a shape that does not fill its place": with_header({"a": entry(shape=(3,))}),
    "a negative size": with_header({"a": entry(shape=(-2, -1))}),
    "a size that is a float": with_header({"a": entry(shape=(2.0,))}),
    "an impossible shape": with_header({"a": entry(shape=(2**40, 2**40, 2**40))}),
    "too many axes": with_header({"a": entry(shape=(1,) * 30 + (2,))}),
    "an overlap": with_header({"a": entry(), "b": entry(shape=(1,), data_offsets=(4, 8))}),
    "a gap": with_header({"a": entry(shape=(1,), data_offsets=(4, 8))}),
    "bytes that belong to nothing": with_header({"a": entry()}, bytes(9)),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_file_is_refused(name):
    with pytest.raises(CheckpointError):
        read_safetensors(io.BytesIO(HOSTILE[name]))
