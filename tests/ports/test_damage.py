"""Damaged checkpoints of every format: a clear error, or the same numbers.

A byte that was flipped inside the numbers of a tensor may change that number where the format keeps
no checksum; nothing else may come out differently.
"""

import shutil

import checkpoint_formats as formats
import numpy as np
import pytest
import torch_writer as tw
from checkpoint_formats import port, safetensors, tiny_stylegan2, without_classes, write_folder
from synthetic import DATA, load_manifest, weights

from qdgs_jax.ports.errors import CheckpointError
from qdgs_jax.ports.readers.torch_file import named_tensors, open_checkpoint, read_checkpoint

TINY_CLIP = load_manifest("clip", "clip_tiny")


def vae_legacy():
    return tw.legacy_bytes(tw.ordered(read_checkpoint(DATA / "ports/vae_tiny.pt")))


def openai_tiny():
    """An OpenAI CLIP of a few kilobytes."""
    manifest = load_manifest("clip", "clip_openai_tiny")
    sizes = {128: 64, 384: 192, 512: 128, 256: 128, 100: 7, 40: 5, 192: 192, 64: 64}
    tensors = []
    for tensor in manifest["tensors"]:
        text = not tensor["name"].startswith("visual.")
        keep = {64: 64, 192: 192, 256: 256} if text else {}
        shape = [{**sizes, **keep}.get(size, size) for size in tensor["shape"]]
        if ".resblocks.1." not in tensor["name"]:
            tensors.append({**tensor, "shape": shape})
    return {**manifest, "tensors": tensors, "config": {**manifest["config"], "vocab_size": 7}}


def clip_bin():
    return tw.zip_bytes(tw.ordered(weights(TINY_CLIP)))


FILES = {  # kind, bytes of the file, name of the file
    "VAE, zip": ("vae", lambda: (DATA / "ports/vae_tiny.pt").read_bytes(), "vae.pt"),
    "VAE, legacy": ("vae", vae_legacy, "vae.pt"),
    "NVIDIA, ada": ("stylegan2", lambda: (DATA / "ports/nvidia_ada.pkl").read_bytes(), "n.pkl"),
    "NVIDIA, sg3": ("stylegan2", lambda: formats.nvidia_pkl(tiny_stylegan2(), "sg3", 4), "n.pkl"),
    "rosinality": (
        "stylegan2",
        lambda: tw.zip_bytes(formats.rosinality(without_classes(tiny_stylegan2()))),
        "n.pt",
    ),
    "OpenAI": ("clip", lambda: tw.zip_bytes(formats.openai_state(openai_tiny())), "c.pt"),
    "OpenAI, TorchScript": (
        "clip",
        lambda: formats.torchscript(formats.openai_state(openai_tiny())),
        "c.pt",
    ),
    "Hugging Face, safetensors": (
        "clip",
        lambda: safetensors(weights(TINY_CLIP)),
        "model.safetensors",
    ),
    "Hugging Face, bin": ("clip", clip_bin, "pytorch_model.bin"),
}


class Checkpoint:
    """A checkpoint of one format and what it holds."""

    def __init__(self, form, folder):
        self.kind, make, name = FILES[form]
        self.data = make()
        self.file = write_folder(folder / "x", formats.hugging_face_config(TINY_CLIP), {}) / name
        self.source = self.file.parent if form.startswith("Hugging Face") else self.file
        self.whole = self.port(self.data)

    def port(self, data):
        self.file.write_bytes(data)
        return port(self.kind, self.source)[1]

    def check_flip(self, at, value):
        """Damage one byte and port: equal, or an error, or one number that differs."""
        damaged = bytearray(self.data)
        damaged[at] = value
        try:
            found = self.port(bytes(damaged))
        except CheckpointError as error:
            assert str(error)
            return
        assert found.keys() == self.whole.keys()
        different = 0
        for name, leaf in found.items():
            assert leaf.shape == self.whole[name].shape
            different += np.count_nonzero(leaf != self.whole[name])
        assert different <= 1, f"byte {at} as {value} changed {different} numbers"


@pytest.fixture(scope="module", params=FILES)
def checkpoint(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("damage")
    yield Checkpoint(request.param, folder)
    shutil.rmtree(folder)


def flip(checkpoint, count):
    rng = np.random.default_rng(0)
    for at in rng.integers(len(checkpoint.data), size=count):
        checkpoint.check_flip(at, checkpoint.data[at] ^ int(rng.integers(1, 256)))


def truncate(checkpoint, percents):
    for percent in percents:
        with pytest.raises(CheckpointError):
            checkpoint.port(checkpoint.data[: len(checkpoint.data) * percent // 100])


def test_a_cut_file_is_refused(checkpoint):
    truncate(checkpoint, (0, 1, 37, 99))


def test_a_flipped_byte_is_noticed_or_changes_one_number(checkpoint):
    flip(checkpoint, 15)


@pytest.mark.full
def test_a_file_cut_at_every_percent_is_refused(checkpoint):
    truncate(checkpoint, range(100))


@pytest.mark.full
def test_a_thousand_flipped_bytes(checkpoint):
    flip(checkpoint, 1000)


def lightning(tmp_path):
    small = {"tensors": [{"name": "a", "shape": [7], "mean": 0, "std": 1}], "seed": 0}
    small |= {"config": {"arch": "ir_18"}}
    path = tmp_path / "adaface.ckpt"
    path.write_bytes(tw.zip_bytes(formats.lightning(small, class_keyed=True)))
    return path


def arrays(path):
    with open_checkpoint(path) as root:
        return {name: tensor.numpy().tolist() for name, tensor in named_tensors(root)}


@pytest.mark.parametrize("count", [60, pytest.param(1000, marks=pytest.mark.full)])
def test_a_damaged_lightning_checkpoint(count, tmp_path):
    path = lightning(tmp_path)
    data, whole = path.read_bytes(), arrays(path)
    for percent in range(100):
        path.write_bytes(data[: len(data) * percent // 100])
        with pytest.raises(CheckpointError):
            arrays(path)
    rng = np.random.default_rng(1)
    for at in rng.integers(len(data), size=count):
        damaged = bytearray(data)
        damaged[at] ^= int(rng.integers(1, 256))
        path.write_bytes(damaged)
        try:
            assert arrays(path) == whole
        except CheckpointError:
            continue
