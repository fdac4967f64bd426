"""StyleGAN2 generators come out of every format with the same numbers."""

import math

import checkpoint_formats as formats
import numpy as np
import pytest
import torch_writer as tw
from checkpoint_formats import port
from synthetic import DATA, load_manifest, weights

from qdgs_jax import ports
from qdgs_jax.models.stylegan2 import Generator, StyleGAN2Config
from qdgs_jax.ports.params import flatten

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


def trained(manifest):
    """What rosinality's train.py writes: more than g_ema, but no latent_avg."""
    root = formats.rosinality(manifest)
    del root["latent_avg"]
    arguments = tw.Call(tw.Name("argparse", "Namespace"), (), {"size": 8, "mixing": 0.9})
    optimiser = {"state": {0: {"step": 7, "exp_avg": np.zeros(3, np.float32)}}, "param_groups": []}
    others = {"g": root["g_ema"], "d": tw.ordered({"conv.bias": np.ones(4, np.float32)})}
    others |= {"g_optim": optimiser, "d_optim": optimiser}
    return {**others, **root, "args": arguments, "ada_aug_p": 0.0}


def test_an_average_code_that_the_file_lacks_is_estimated(tmp_path):
    manifest = formats.without_classes(formats.tiny_stylegan2())
    (tmp_path / "train.pt").write_bytes(tw.zip_bytes(trained(manifest)))
    summary = ports.convert("stylegan2", tmp_path / "train.pt", tmp_path / "out")
    assert "estimated from 10,000 latents" in summary.details["average code"]
    found = ports.load_model(tmp_path / "out")[1]["mapping"]["w_avg"]
    x = other_codes(manifest)
    assert np.all(np.abs(found - x.mean(axis=0)) < 5 * x.std(axis=0) / np.sqrt(10_000))
    assert np.all(np.abs(found - weights(manifest)["mapping.w_avg"]) > 0.01)


def test_a_folder_holds_the_statistics_of_its_codes(tmp_path):
    manifest = formats.without_classes(formats.tiny_stylegan2())
    (tmp_path / "network.pkl").write_bytes(formats.nvidia_pkl(manifest))
    for name in ("once", "again"):
        ports.convert("stylegan2", tmp_path / "network.pkl", tmp_path / name)
    config = ports.load_config(tmp_path / "once")
    found = config["latent_statistics"]
    assert found == ports.load_config(tmp_path / "again")["latent_statistics"]
    assert found["samples"] == 10_000

    x = other_codes(manifest)
    q = (x - weights(manifest)["mapping.w_avg"]) / x.std(axis=0)
    norm = np.linalg.norm(np.tile(q, StyleGAN2Config.from_base(8).num_ws), axis=1).mean()
    np.testing.assert_allclose(found["w_std"], x.std(axis=0), rtol=0.04)
    np.testing.assert_allclose(found["mean_norm"], norm, rtol=0.02)
    ports.load(tmp_path / "once", Generator)


def test_a_generator_with_classes_has_no_statistics(tmp_path):
    ports.convert("stylegan2", DATA / "ports" / "nvidia_ada.pkl", tmp_path / "out")
    assert "latent_statistics" not in ports.load_config(tmp_path / "out")


def other_codes(manifest, count=100_000):
    """Codes of the original program's mapping network, of other latents than ours."""
    arrays = weights(manifest)
    x = np.random.default_rng(1).standard_normal((count, 5))
    x /= np.sqrt(np.mean(x**2, axis=1, keepdims=True) + 1e-8)
    for i in range(manifest["config"]["mapping_kwargs"]["num_layers"]):
        weight, bias = (arrays[f"mapping.fc{i}.{leaf}"] for leaf in ("weight", "bias"))
        x = x @ weight.T * (0.01 / np.sqrt(weight.shape[1])) + 0.01 * bias
        x = np.where(x >= 0, x, 0.2 * x) * np.sqrt(2)
    return x


@pytest.mark.parametrize(
    ("name", "array", "message"),
    [
        ("style.1.weight", np.ones((5, 5000), np.float32), "too many to estimate it"),
        ("style.1.weight", np.ones((5000, 5), np.float32), "too many to estimate it"),
        ("style.2.weight", np.ones((5, 6), np.float32), "fc1.kernel is (6, 5), should be (5, 5)"),
        ("style.2.bias", None, "there is no style.2.bias"),
    ],
)
def test_an_average_code_is_estimated_from_what_fits_alone(name, array, message, tmp_path):
    root = trained(formats.without_classes(formats.tiny_stylegan2()))
    state = {key: value for key, value in root["g_ema"].items.items() if key != name}
    root["g_ema"] = tw.ordered(state if array is None else {**state, name: array})
    assert message in refused(root, tmp_path)


def changed_network(path, key, value):
    """NVIDIA's pickle of the tiny generator with another attribute of a module."""
    root = formats.tiny_stylegan2()
    network = formats.nvidia_network(weights(root), root, "ada")
    module = network
    for name in path:
        module = module.arguments[0]["state"]["_modules"].items[name]
    module.arguments[0]["state"][key] = value
    return {"G_ema": network}


@pytest.mark.parametrize(
    ("path", "key", "value", "message"),
    [
        (["mapping"], "num_layers", 300, "is 300, but the mapping network has 2 layers"),
        (["synthesis", "b8"], "architecture", "u-net", "pickle is 'u-net': known are skip"),
        (
            ["synthesis", "b8"],
            "architecture",
            ("x" * 10**6,) * 9,
            "network pickle is a tuple: known",
        ),
        (["synthesis", "b8", "conv1"], "conv_clamp", math.nan, "network pickle is nan"),
        (
            ["synthesis", "b8", "conv1"],
            "conv_clamp",
            -1.0,
            "network pickle is -1.0",
        ),
        (["synthesis", "b4"], "architecture", "resnet", "of synthesis.b4 is 'resnet', not 'skip'"),
        (
            ["synthesis", "b4", "conv1"],
            "conv_clamp",
            None,
            "of synthesis.b4.conv1 is None, not 256",
        ),
        (["synthesis", "b8", "conv0"], "conv_clamp", 1, "of synthesis.b8.conv0 is 1.0, not 256.0"),
        (["synthesis", "b8", "torgb"], "conv_clamp", 1, "of synthesis.b8.torgb is 1.0, not 256.0"),
        (["synthesis", "b8", "conv0"], "activation", "relu", "conv0 is 'relu', not 'lrelu'"),
        (["mapping", "fc1"], "activation", "linear", "mapping.fc1 is 'linear', not 'lrelu'"),
        (["mapping", "fc1"], "bias_gain", 1.0, "bias_gain of mapping.fc1 is 1.0, not 0.01"),
    ],
)
def test_attributes_that_do_not_fit_are_named_in_short(path, key, value, message, tmp_path):
    found = refused(changed_network(path, key, value), tmp_path)
    assert message in found
    assert len(found) < 1000


def test_a_learning_rate_multiplier_that_the_file_lacks_is_told(tmp_path):
    for value, told in ((0.01, []), (None, ["learning-rate multiplier"])):
        network = changed_network(["mapping", "fc0"], "bias_gain", value)
        (tmp_path / "network.pkl").write_bytes(tw.nested_bytes(network))
        summary = ports.convert("stylegan2", tmp_path / "network.pkl", tmp_path / f"{value}")
        assert list(summary.assumed) == told


def test_a_mapping_network_of_many_layers_is_refused_before_it_is_built(tmp_path, monkeypatch):
    monkeypatch.setattr("qdgs_jax.ports.families.stylegan2.Generator", None)
    root = formats.rosinality(formats.without_classes(formats.tiny_stylegan2()))
    layers = {f"style.{i}.weight": np.ones((5, 5), np.float32) for i in range(1, 301)}
    root["g_ema"] = tw.ordered({**root["g_ema"].items, **layers})
    assert "has 300 layers; from 1 to 64 are read" in refused(root, tmp_path)


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
