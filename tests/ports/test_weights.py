"""State dicts are found behind whatever training programs wrap them in, in every family."""

import itertools
import math

import checkpoint_formats as formats
import numpy as np
import pytest
import torch_writer as tw
from checkpoint_formats import port, safetensors
from synthetic import DATA, load_manifest, weights

from qdgs_jax import ports
from qdgs_jax.ports.readers.torch_file import open_checkpoint
from qdgs_jax.ports.weights import find_weights, top_of

KEYS = ("state_dict", "model_state_dict", "model", "net", "weights", "ema_model", "generator")
AVERAGED = ("state_dict_ema", "ema_state_dict", "params_ema")
ONE = np.ones(1, np.float32)
PREFIXES = ("module.", "_orig_mod.", "model.", "net.", "_forward_module.", "_module.")


def vae():
    return dict(ports.read_checkpoint(DATA / "ports/vae_tiny.pt"))


def adaface():
    arrays = weights(formats.small_adaface())
    return {name: array for name, array in arrays.items() if array.nbytes < 1 << 20}


STATES = {
    "vae": vae,
    "clip": lambda: weights(load_manifest("clip", "clip_tiny")),
    "adaface": adaface,
    "stylegan2": lambda: dict(
        formats.rosinality(formats.without_classes(formats.tiny_stylegan2()))["g_ema"].items
    ),
}
KNOWN_BY = {
    "vae": "encoder.conv1.weight",
    "clip": "vision_model.embeddings.patch_embedding.weight",
    "adaface": "output_layer.3.weight",
    "stylegan2": "style.1.weight",
}


@pytest.fixture(scope="module")
def states():
    return {kind: make() for kind, make in STATES.items()}


def found_in(root, kind, tmp_path):
    (tmp_path / "x.pt").write_bytes(tw.zip_bytes(root))
    with open_checkpoint(tmp_path / "x.pt") as content:
        return find_weights(content, kind, (KNOWN_BY[kind],), ("g_ema",))


@pytest.mark.parametrize("kind", STATES)
@pytest.mark.parametrize("key", [*KEYS, *AVERAGED, "g_ema"])
def test_a_wrapped_state_dict_is_found_whole(kind, key, states, tmp_path):
    state = states[kind]
    for prefix in ("", *PREFIXES, "module._orig_mod.", "model.module.net."):
        small = {f"{prefix}{name}": np.ones(1, np.float32) for name in state}
        root = {"epoch": 3, key: small, "optimizer": {"state": [np.ones(2, np.float32)]}}
        assert found_in(root, kind, tmp_path).tensors.keys() == state.keys()


@pytest.mark.parametrize("keys", list(itertools.permutations(KEYS[:3], 2)))
def test_keys_nest_in_any_order(keys, states, tmp_path):
    outer, inner = keys
    found = found_in({outer: {inner: tw.ordered(states["vae"])}}, "vae", tmp_path)
    assert found.tensors.keys() == states["vae"].keys()
    assert found.details == {"found below": f"{outer}.{inner}"}


def test_compiled_parts_inside_a_model_are_seen_through(states, tmp_path):
    state = {
        name.replace("encoder.", "encoder._orig_mod.module."): array
        for name, array in states["vae"].items()
    }
    assert found_in((3, [state]), "vae", tmp_path).tensors.keys() == states["vae"].keys()


def test_what_is_not_behind_the_same_wrapper_is_another_part(states, tmp_path):
    state = {f"model.{name}": array for name, array in states["vae"].items()}
    state |= {"head.weight": np.ones(3, np.float32), "model_ema.x": np.ones(1, np.float32)}
    (tmp_path / "vae.pt").write_bytes(tw.zip_bytes({"state_dict": state, "teacher": state}))
    summary = ports.convert("vae", tmp_path / "vae.pt", tmp_path / "out")
    assert summary.details["found below"] == "state_dict.model"
    assert summary.elsewhere == {"state_dict.head": 1, "state_dict.model_ema": 1, "teacher": 20}
    assert summary.ignored == ()


def test_counters_of_averaged_models_are_passed_over(states, tmp_path):
    state = {f"module.{name}": array for name, array in states["vae"].items()}
    averaged = {"n_averaged": np.asarray(7), **state}  # torch.optim.swa_utils.AveragedModel
    (tmp_path / "vae.pt").write_bytes(tw.zip_bytes({"state_dict_ema": averaged}))
    summary = ports.convert("vae", tmp_path / "vae.pt", tmp_path / "out")
    assert summary.details["found below"] == "state_dict_ema"
    assert summary.elsewhere == {"state_dict_ema.n_averaged": 1}


def test_names_that_become_equal_are_refused(states, tmp_path):
    state = {**states["vae"], "module.encoder.conv1.bias": np.ones(4, np.float32)}
    with pytest.raises(ports.CheckpointError, match=r"'encoder\.conv1\.bias' stands there twice"):
        found_in(state, "vae", tmp_path)


def test_adaface_below_net_as_its_authors_publish_it(tmp_path):
    arrays = weights(formats.small_adaface())
    state = {f"net.{name}": array for name, array in arrays.items()}
    path = tmp_path / "model.safetensors"
    path.write_bytes(safetensors(state))
    config, found = port("adaface", path)
    assert (config["depth"], config["embed_dim"]) == (18, 8)
    kernel = arrays["output_layer.3.weight"]
    np.testing.assert_array_equal(found["output.dense.kernel"].T, kernel)


@pytest.mark.parametrize(
    ("root", "message"),
    [
        ({"a": ONE, "b": {"c": [ONE, ONE]}}, "a, b (2 tensors)"),
        ({f"k{i}": i for i in range(9)}, "k0, k1, k2, k3, k4, k5 and 3 more"),
        ({}, "an empty dictionary"),
        ([1, 2], "no state dict but a list"),
        ({"\x1b[2J": 1}, r"\x1b[2J"),
        (tw.Call(tw.Name("argparse", "Namespace"), (), {"lr": 1}), "'argparse.Namespace' with lr"),
    ],
)
@pytest.mark.parametrize("kind", STATES)
def test_an_error_says_what_the_file_holds_at_its_top(root, message, kind, tmp_path):
    (tmp_path / "x.pt").write_bytes(tw.zip_bytes(root))
    with pytest.raises(ports.CheckpointError) as caught:
        port(kind, tmp_path / "x.pt")
    assert message in str(caught.value)
    assert KNOWN_BY[kind] in str(caught.value) or kind == "clip"
    assert str(caught.value).isprintable()


def test_the_top_of_a_large_checkpoint_is_told_in_short():
    assert len(top_of({"k" * 900 + str(i): None for i in range(99)})) < 700


def test_a_generator_from_before_noise_was_stored_gets_noise_images(tmp_path):
    manifest = formats.without_classes(formats.tiny_stylegan2())
    root = formats.rosinality(manifest)
    whole = dict(root["g_ema"].items)
    kept = {name: array for name, array in whole.items() if not name.startswith("noises.")}
    assert len(whole) - len(kept) == 3
    (tmp_path / "g.pt").write_bytes(tw.zip_bytes({**root, "g_ema": tw.ordered(whole)}))
    _, wanted = port("stylegan2", tmp_path / "g.pt")
    (tmp_path / "g.pt").write_bytes(tw.zip_bytes({**root, "g_ema": tw.ordered(kept)}))
    config, found = port("stylegan2", tmp_path / "g.pt")
    assert config["use_noise"]
    assert found.keys() == wanted.keys()
    noise = {name: leaf for name, leaf in found.items() if name.endswith("noise_const")}
    assert sorted(leaf.shape for leaf in noise.values()) == [(4, 4), (8, 8), (8, 8)]
    for name, leaf in found.items():
        if name not in noise:
            np.testing.assert_array_equal(leaf, wanted[name], err_msg=name)
    numbers = np.concatenate([leaf.ravel() for leaf in noise.values()])
    assert abs(numbers.mean()) < 4 / math.sqrt(numbers.size)
    assert abs(numbers.std() - 1) < 4 / math.sqrt(2 * numbers.size)
    assert len(np.unique(numbers)) == numbers.size
    again = port("stylegan2", tmp_path / "g.pt")[1]
    assert all((again[name] == leaf).all() for name, leaf in found.items())
    summary = ports.convert("stylegan2", tmp_path / "g.pt", tmp_path / "out")
    assert "fixed seed" in summary.assumed["noise images"]
    assert ports.load_config(tmp_path / "out")["assumed"] == dict(summary.assumed)


def test_a_bare_generator_without_g_ema_is_taken(tmp_path):
    manifest = formats.without_classes(formats.tiny_stylegan2())
    root = formats.rosinality(manifest)
    state = {f"module.{name}": array for name, array in root["g_ema"].items.items()}
    both = {"model": state, "latent_avg": root["latent_avg"]}
    (tmp_path / "g.pt").write_bytes(tw.zip_bytes(both))
    _, found = port("stylegan2", tmp_path / "g.pt")
    np.testing.assert_array_equal(found["mapping.w_avg"], root["latent_avg"])


@pytest.mark.parametrize("shape", [(1, 5), (1, 1, 5)])
def test_an_average_code_may_have_unit_axes(shape, tmp_path):
    root = formats.rosinality(formats.without_classes(formats.tiny_stylegan2()))
    code = root["latent_avg"]
    (tmp_path / "g.pt").write_bytes(tw.zip_bytes({**root, "latent_avg": code.reshape(shape)}))
    _, found = port("stylegan2", tmp_path / "g.pt")
    np.testing.assert_array_equal(found["mapping.w_avg"], code)
