"""The ported VAE computes what the PyTorch one computes, and a broken one is not ported at all."""

import os
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch_writer as tw
from flax import nnx
from synthetic import DATA, error

from qdgs_jax import ports
from qdgs_jax.models.vae import VAE

SHARED = Path(os.environ.get("QDGS_SHARED", DATA.parent.parent.parent / "shared"))
CASES = {
    "small": (DATA / "ports/vae_tiny.pt", DATA / "ports/vae_tiny.npz"),
    "published": (SHARED / "data/vae-shapes.pt", SHARED / "fixtures/qdgs/vae_shapes.npz"),
}


@pytest.fixture(scope="module", params=CASES)
def case(request, tmp_path_factory):
    checkpoint, reference = CASES[request.param]
    if not checkpoint.exists():
        pytest.skip(f"needs {checkpoint}, which has no licence to be shared")
    folder = tmp_path_factory.mktemp("vae") / "model"
    summary = ports.convert("vae", checkpoint, folder)
    with np.load(reference) as arrays:
        return summary, ports.load(folder, VAE), dict(arrays)


def test_images_latent_gradients_and_encodings_agree(case):
    _, vae, reference = case
    cotangent = jnp.asarray(reference["cotangent"], jnp.float32).transpose(0, 2, 3, 1)

    wanted = jnp.asarray(reference["images_nchw"].transpose(0, 2, 3, 1))

    @jax.jit
    def compute(z, images):
        decoded, pull = jax.vjp(vae.decode, z)
        return decoded, pull(cotangent)[0], vae.encode(images)

    images, grad, (mean, log_variance) = compute(jnp.asarray(reference["z"]), wanted)
    assert np.abs(images - wanted).max() <= 1e-5
    assert error(grad, reference["grad_z"]) <= 1e-4
    assert error(mean, reference["mu"]) <= 1e-4
    assert error(log_variance, reference["logvar"]) <= 1e-4


def test_the_summary_counts_what_was_written(case):
    summary, vae, _ = case
    leaves = jax.tree.leaves(nnx.state(vae, nnx.Param))
    assert summary.parameters == sum(leaf.size for leaf in leaves)
    assert summary.details["image size"] == vae.cfg.image_size
    assert summary.ignored == ()


def test_the_published_sizes_are_found():
    checkpoint = CASES["published"][0]
    if not checkpoint.exists():
        pytest.skip(f"needs {checkpoint}")
    shapes = {info.name: info.shape for info in ports.describe(checkpoint)}
    assert shapes["encoder.fc_mu.weight"] == (6, 8192)
    assert len(shapes) == 18


@pytest.fixture(scope="module")
def state():
    return dict(ports.read_checkpoint(CASES["small"][0]))


def refused(state, tmp_path, dtype=None):
    """The error of a port that must leave nothing behind."""
    source, folder = tmp_path / "vae.pt", tmp_path / "model"
    source.write_bytes(state if isinstance(state, bytes) else tw.zip_bytes(tw.ordered(state)))
    with pytest.raises(ports.CheckpointError) as caught:
        ports.convert("vae", source, folder, dtype)
    assert [path.name for path in tmp_path.iterdir()] == ["vae.pt"]
    return str(caught.value)


def test_a_file_of_our_own_writing_is_ported_like_pytorchs(state, tmp_path):
    (tmp_path / "vae.pt").write_bytes(tw.legacy_bytes(tw.ordered(state, metadata=True)))
    ports.convert("vae", tmp_path / "vae.pt", tmp_path / "model", "bfloat16")
    _, params = ports.load_model(tmp_path / "model")
    kernel = params["encoder"]["conv2"]["kernel"]
    assert kernel.dtype == jnp.bfloat16
    wanted = state["encoder.conv2.weight"].transpose(2, 3, 1, 0)
    np.testing.assert_array_equal(kernel, wanted.astype(jnp.bfloat16))


def test_a_missing_an_extra_and_a_misshaped_tensor_are_named(state, tmp_path):
    broken = dict(state)
    del broken["decoder.convT2.bias"]
    broken["encoder.conv9.gamma"] = np.ones(3, np.float32)
    broken["decoder.convT1.weight"] = np.ones((6, 5, 4, 3), np.float32)
    message = refused(broken, tmp_path)
    assert "no tensor gives decoder.convT2.bias" in message
    assert "nothing in the model takes 'encoder.conv9.gamma'" in message
    assert "decoder.convT1.weight is (6, 5, 4, 3), should be (6, 5, 4, 4)" in message


def test_of_many_missing_tensors_the_first_few_are_named(state, tmp_path):
    message = refused({k: v for k, v in state.items() if k.startswith("encoder")}, tmp_path)
    assert "decoder.convT1.bias, decoder.convT1.kernel" in message
    assert "and 4 more" in message


@pytest.mark.parametrize(
    ("name", "value", "wanted"),
    [
        ("encoder.fc_mu.weight", np.ones((3, 97), np.float32), "no square of 6 channels"),
        ("encoder.fc_mu.weight", np.ones(3, np.float32), "should have 2 axes"),
        ("encoder.conv1.bias", np.arange(4), "int64, not floating-point"),
        ("encoder.conv1.bias", np.full(4, np.nan, np.float32), "not finite"),
        ("decoder.fc1.bias", np.ones(95, np.float32), "decoder.fc1.bias is (95,), should be (96,)"),
    ],
)
def test_wrong_values_are_named(state, tmp_path, name, value, wanted):
    assert wanted in refused({**state, name: value}, tmp_path)


def test_numbers_that_do_not_fit_the_type_are_refused(state, tmp_path):
    large = {**state, "encoder.conv1.bias": np.full(4, 1e6, np.float32)}
    assert "not finite in float16" in refused(large, tmp_path, "float16")


def test_other_files_and_types_are_refused(state, tmp_path):
    assert "there is no encoder.conv1.weight" in refused({"a": np.ones(1, np.float32)}, tmp_path)
    assert "no state dict" in refused(tw.zip_bytes([1, 2]), tmp_path)
    assert "'int8': give one of float32, bfloat16" in refused(state, tmp_path, "int8")


@pytest.mark.parametrize("percent", range(0, 100, 4))
def test_a_truncated_file_is_refused(percent, tmp_path):
    data = CASES["small"][0].read_bytes()
    refused(data[: len(data) * percent // 100], tmp_path)


def test_an_unknown_model_and_a_missing_file_are_named(tmp_path):
    with pytest.raises(ports.CheckpointError, match="no model 'gan': give one of"):
        ports.convert("gan", CASES["small"][0], tmp_path / "model")
    with pytest.raises(ports.CheckpointError, match="does not exist"):
        ports.convert("vae", tmp_path / "nowhere.pt", tmp_path / "model")
