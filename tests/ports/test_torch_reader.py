"""Files that PyTorch wrote, and files like those, are read as PyTorch would read them."""

import ml_dtypes
import numpy as np
import pytest
import torch_writer as tw
from synthetic import DATA

from qdgs_jax.ports.readers.allowed import Record
from qdgs_jax.ports.readers.torch_file import (
    CheckpointError,
    named_tensors,
    open_checkpoint,
    read_checkpoint,
)

SAMPLES = DATA / "ports"
CONTAINERS = ("formats_zip.pt", "formats_legacy.pt", "formats_nested3.pkl", "formats_nested4.pkl")
WRITERS = {"zip": tw.zip_bytes, "legacy": tw.legacy_bytes, "nested": tw.nested_bytes}


@pytest.fixture(scope="module")
def expected():
    with np.load(SAMPLES / "formats.npz") as arrays:
        return dict(arrays)


@pytest.fixture
def read(tmp_path):
    def read_bytes(data: bytes):
        (tmp_path / "file.pt").write_bytes(data)
        return read_checkpoint(tmp_path / "file.pt")

    return read_bytes


@pytest.mark.parametrize("name", CONTAINERS)
def test_every_kind_of_tensor_comes_out_of_every_container(name, expected):
    content = read_checkpoint(SAMPLES / name)
    state = content["state_dict"]
    wanted = {key: array for key, array in expected.items() if not key.startswith("script.")}
    assert list(state) == list(wanted)
    for key, array in wanted.items():
        assert state[key].shape == array.shape
        np.testing.assert_array_equal(state[key].astype(array.dtype), array, err_msg=key)
    assert state["bfloat16"].dtype == ml_dtypes.bfloat16
    assert state["half"].dtype == np.float16
    assert state["flags"].dtype == np.bool_


@pytest.mark.parametrize("name", CONTAINERS)
def test_what_surrounds_the_tensors_is_plain_data(name):
    content = read_checkpoint(SAMPLES / name)
    assert (content["epoch"], content["lr"], content["score"]) == (3, 1e-3, 0.25)
    assert content["milestones"] == {12: 1, 20: 2}
    assert type(content["args"]) is Record
    assert content["args"].state == {"size": 256, "name": "run"}
    assert content["shape"] == (2, 3)


def test_a_torchscript_archive_is_a_tree_of_records(expected):
    root = read_checkpoint(SAMPLES / "formats_script.pt")
    assert root.class_name == "__torch__.Root"
    conv = root.state["conv"].state
    np.testing.assert_array_equal(conv["weight"], expected["script.conv.weight"])
    np.testing.assert_array_equal(root.state["steps"], expected["script.steps"])


@pytest.mark.parametrize("writer", WRITERS.values(), ids=WRITERS)
class TestEveryContainer:
    def test_tensors_share_a_storage(self, writer, read):
        storage = tw.Storage(np.arange(12, dtype=np.float32))
        first, rest = tw.Tensor(storage, (2, 3), (3, 1)), tw.Tensor(storage, (6,), (1,), 6)
        found = read(writer({"a": first, "b": rest}))
        np.testing.assert_array_equal(found["a"], [[0, 1, 2], [3, 4, 5]])
        np.testing.assert_array_equal(found["b"], [6, 7, 8, 9, 10, 11])

    def test_the_same_state_dict_may_stand_in_the_file_several_times(self, writer, read):
        state = {"w": tw.of_array(np.arange(10_000, dtype=np.float32))}
        found = read(writer({"model": state, "ema": state, "best": state}))
        for name in ("model", "ema", "best"):
            np.testing.assert_array_equal(found[name]["w"], np.arange(10_000))

    def test_a_file_saved_from_a_gpu_is_read_all_the_same(self, writer, read):
        for device, module in (("cuda:0", "torch"), ("cuda:1", "torch.cuda")):
            storage = tw.Storage(np.arange(3, dtype=np.float32), device, module)
            assert read(writer(tw.Tensor(storage, (3,), (1,)))).tolist() == [0, 1, 2]

    def test_published_state_dicts_carry_metadata(self, writer, read):
        state = tw.ordered({"w": np.ones(2, np.float32)}, metadata=True)
        found = read(writer(state))
        assert list(found) == ["w"]

    def test_parameters_half_precision_and_lists_of_pairs(self, writer, read):
        pairs = [["w", tw.Parameter(np.full(2, 0.5, tw.BFLOAT16))], ["h", np.ones(1, np.float16)]]
        found = read(writer(tw.Call(tw.ORDERED_DICT, (pairs,))))
        assert found["w"].astype(np.float32).tolist() == [0.5, 0.5]
        assert found["h"].dtype == np.float16

    def test_tensors_without_elements_and_without_axes(self, writer, read):
        found = read(writer([np.zeros((0, 5), np.float32), np.full((), 2, np.float32)]))
        assert found[0].shape == (0, 5)
        assert found[1].shape == ()
        assert found[1] == 2

    def test_an_expanded_axis_of_size_one_may_have_any_stride(self, writer, read):
        storage = tw.Storage(np.arange(4, dtype=np.int64))
        assert read(writer(tw.Tensor(storage, (1, 4), (0, 1)))).tolist() == [[0, 1, 2, 3]]


def test_newer_tensors_name_their_type_apart_from_an_untyped_storage(read):
    raw = np.array([1.5, -2.0], np.float32).view(np.uint8)
    storage = tw.Storage(raw)
    pid = tw.Pid(("storage", tw.Name("torch.storage", "UntypedStorage"), "0", "cpu", 8))
    rebuild = tw.Name("torch._utils", "_rebuild_tensor_v3")
    arguments = (pid, 0, (2,), (1,), False, tw.Call(tw.ORDERED_DICT), tw.Name("torch", "float32"))
    data = tw.zip_bytes(tw.Call(rebuild, arguments), {"data/0": storage.elements.tobytes()})
    assert read(data).tolist() == [1.5, -2.0]


def test_tensors_stay_in_the_file_until_they_are_asked_for(tmp_path):
    data = bytearray(tw.zip_bytes([np.full(9, 7, np.float32), np.full(9, 8, np.float32)]))
    place = data.find(np.full(9, 8, np.float32).tobytes())
    data[place] ^= 1
    (tmp_path / "file.pt").write_bytes(data)
    with open_checkpoint(tmp_path / "file.pt") as root:
        assert root[0].numpy().tolist() == [7] * 9
        with pytest.raises(CheckpointError, match=r"file\.pt: .* checksum"):
            root[1].numpy()


def test_what_stands_in_several_places_is_read_once(read):
    tensor = tw.dump(np.ones(3, np.float32), tw.Storages(5).place)[2:-1]
    values = b"(" + tensor + b"q\x01h\x01" + b"C\x03abcq\x02h\x02" + b"t"
    found = read(tw.zip_bytes(tw.Raw(values), {"data/0": np.ones(3, np.float32).tobytes()}))
    assert found[0] is found[1]
    assert found[2] is found[3]
    assert found[2] == b"abc"


def test_a_bare_tensor_has_a_name(tmp_path):
    (tmp_path / "file.pt").write_bytes(tw.zip_bytes(np.ones(3, np.float32)))
    with open_checkpoint(tmp_path / "file.pt") as root:
        assert [name for name, _ in named_tensors(root)] == ["(unnamed)"]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "not a PyTorch checkpoint"),
        (b"\x89PNG\r\n\x1a\n" + bytes(300), "not a PyTorch checkpoint"),
        (bytes(257) + b"ustar" + bytes(300), "tar format"),
        (b"\x93NUMPY\x01\x00v\x00{'descr': '<f4'}", "not a PyTorch checkpoint"),
    ],
)
def test_other_files_are_named_for_what_they_are(data, message, read):
    with pytest.raises(CheckpointError, match=message):
        read(data)


def test_a_missing_file_is_an_error_with_its_name(tmp_path):
    with pytest.raises(CheckpointError, match=r"nowhere\.pt: The file cannot be read"):
        read_checkpoint(tmp_path / "nowhere.pt")


def test_an_archive_that_was_packed_again_has_entries_for_folders(read):
    folders = {"": b"", "data/": b"", ".data/": b""}
    found = read(tw.zip_bytes({"w": np.arange(3, dtype=np.float32)}, folders))
    np.testing.assert_array_equal(found["w"], [0, 1, 2])
