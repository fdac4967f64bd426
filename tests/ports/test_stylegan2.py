"""StyleGAN2 generators come out of every format with the same numbers."""

import checkpoint_formats as formats
import numpy as np
import pytest
import torch_writer as tw
from checkpoint_formats import port
from synthetic import DATA, load_manifest, weights

from qdgs_jax import ports
from qdgs_jax.models.stylegan2 import StyleGAN2Config
from qdgs_jax.ports.checkpoint import flatten

SMALL, COND = (load_manifest("stylegan2", f"stylegan2_{name}") for name in ("small", "cond"))
FORMATS = {
    "ada": lambda manifest: formats.nvidia_pkl(manifest, "ada", 3),
    "ada, protocol 5": lambda manifest: formats.nvidia_pkl(manifest, "ada", 5),
    "stylegan3": lambda manifest: formats.nvidia_pkl(manifest, "sg3", 4),
    "rosinality": lambda manifest: tw.zip_bytes(formats.rosinality(manifest)),
    "rosinality, legacy": lambda manifest: tw.legacy_bytes(formats.rosinality(manifest)),
}


def check(found, manifest):
    """Compare ported parameters with the manifest's weights, axis by axis."""
    arrays = weights(manifest)
    for name, leaf in found.items():
        source = name.replace("kernel", "weight")
        array = arrays[source]
        if leaf.ndim == 4:
            leaf = leaf.transpose(3, 2, 0, 1)
        elif leaf.ndim == 3:
            leaf = leaf.transpose(2, 0, 1)
        elif name.endswith("kernel"):
            leaf = leaf.T
        np.testing.assert_array_equal(leaf, array, err_msg=name)
    filters = sum(name.endswith("resample_filter") for name in arrays)
    assert len(found) == len(arrays) - filters


@pytest.mark.parametrize("form", FORMATS)
def test_every_format_gives_the_same_numbers(form, tmp_path):
    (tmp_path / "network.pkl").write_bytes(FORMATS[form](SMALL))
    config, found = port("stylegan2", tmp_path / "network.pkl")
    check(found, SMALL)
    clamp = None if "rosinality" in form else 256.0
    assert config.pop("kind") == "stylegan2"
    cfg = StyleGAN2Config.from_dict(config)
    assert (cfg.resolution, cfg.channels) == (32, (64, 64, 64, 32))
    assert (cfg.z_dim, cfg.c_dim, cfg.w_dim, cfg.mapping_layers) == (64, 0, 64, 8)
    assert (cfg.conv_clamp, cfg.architecture, cfg.mapping_lr) == (clamp, "skip", 0.01)


@pytest.mark.full
@pytest.mark.parametrize("form", ["ada", "stylegan3", "rosinality"])
def test_the_full_size_generator_comes_out_of_every_format(form, tmp_path):
    manifest = load_manifest("stylegan2", "stylegan2_ffhq256")
    (tmp_path / "network.pkl").write_bytes(FORMATS[form](manifest))
    ports.convert("stylegan2", tmp_path / "network.pkl", tmp_path / "out")
    config, params = ports.load_model(tmp_path / "out")
    check(dict(flatten(params)), manifest)
    assert (config["resolution"], tuple(config["channels"])) == (256, (512,) * 4 + (256, 128, 64))


def test_a_conditional_generator_keeps_its_classes(tmp_path):
    (tmp_path / "network.pkl").write_bytes(formats.nvidia_pkl(COND))
    config, found = port("stylegan2", tmp_path / "network.pkl")
    check(found, COND)
    assert (config["c_dim"], config["embed_dim"], config["mapping_layers"]) == (10, 64, 2)


@pytest.mark.parametrize("flavour", ["ada", "sg3"])
def test_a_pickle_with_every_attribute_of_the_original_classes(flavour):
    _, found = port("stylegan2", DATA / "ports" / f"nvidia_{flavour}.pkl")
    check(found, formats.tiny_stylegan2())


def test_a_port_writes_a_folder_and_sums_up(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # where the embedded source would leave its mark
    said = []
    source = DATA / "ports" / "nvidia_ada.pkl"
    summary = ports.convert("stylegan2", source, "model", "bfloat16", said.append)
    assert summary.layout == "an NVIDIA network pickle"
    assert (summary.details["resolution"], summary.details["classes"]) == (8, 3)
    assert all(name.endswith("resample_filter") for name in summary.ignored)
    assert [path.name for path in tmp_path.iterdir()] == ["model"]
    assert "converting an NVIDIA network pickle: 50 %" in said
    config, params = ports.load_model("model")
    assert config["kind"] == "stylegan2"
    leaves = dict(flatten(params))
    assert sum(leaf.size for leaf in leaves.values()) == summary.parameters
    assert {leaf.dtype.name for leaf in leaves.values()} == {"bfloat16"}


def refused(root, tmp_path):
    (tmp_path / "file.pkl").write_bytes(tw.nested_bytes(root))
    with pytest.raises(ports.CheckpointError) as caught:
        port("stylegan2", tmp_path / "file.pkl")
    return str(caught.value)


def test_other_networks_are_named_for_what_they_are(tmp_path):
    meta = {"type": "class", "class_name": "Generator3", "state": {"_modules": {}}}
    network = tw.Call(tw.Name("torch_utils.persistence", "_reconstruct_persistent_obj"), (meta,))
    assert "StyleGAN3's configurations" in refused({"G_ema": network}, tmp_path)
    assert "neither G_ema" in refused({"weights": 1}, tmp_path)
    assert "neither G_ema" in refused((1, 2, 3), tmp_path)


def test_what_truncation_needs_must_be_there(tmp_path):
    root = formats.rosinality(formats.without_classes(formats.tiny_stylegan2()))
    del root["latent_avg"]
    assert "latent_avg is missing" in refused(root, tmp_path)


def test_a_generator_that_resamples_otherwise_is_refused(tmp_path):
    manifest = formats.tiny_stylegan2()
    for tensor in manifest["tensors"]:
        if tensor["name"] == "synthesis.b8.conv0.resample_filter":
            tensor["value"] = "ones"
    (tmp_path / "network.pkl").write_bytes(formats.nvidia_pkl(manifest))
    with pytest.raises(ports.CheckpointError, match=r"is not the filter \[1, 3, 3, 1\]"):
        port("stylegan2", tmp_path / "network.pkl")


@pytest.mark.parametrize("name", ["mapping.fc1.bias", "synthesis.b8.torgb.affine.weight"])
def test_a_missing_tensor_is_named(name, tmp_path):
    manifest = formats.tiny_stylegan2()
    manifest["tensors"] = [t for t in manifest["tensors"] if t["name"] != name]
    (tmp_path / "network.pkl").write_bytes(formats.nvidia_pkl(manifest))
    with pytest.raises(ports.CheckpointError, match=name.replace("weight", "kernel")):
        port("stylegan2", tmp_path / "network.pkl")
