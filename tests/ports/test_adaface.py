"""AdaFace's backbones come out of Lightning checkpoints and bare state dicts alike."""

import checkpoint_formats as formats
import jax
import numpy as np
import pytest
import torch_writer as tw
from checkpoint_formats import port
from flax import nnx
from synthetic import error, load_manifest, load_reference, make_input, weights

from qdgs_jax.models.iresnet import IResNet, IResNetConfig
from qdgs_jax.ports import convert, load
from qdgs_jax.ports.errors import CheckpointError


@pytest.fixture(scope="module")
def manifest():
    return formats.small_adaface()


@pytest.fixture(scope="module")
def arrays(manifest):
    return weights(manifest)


def check(found, arrays):
    assert len(found) == sum(not name.endswith("num_batches_tracked") for name in arrays)
    conv = found["body.unit2.conv1.kernel"].transpose(3, 2, 0, 1)
    np.testing.assert_array_equal(conv, arrays["body.2.res_layer.1.weight"])
    np.testing.assert_array_equal(found["output.dense.kernel"].T, arrays["output_layer.3.weight"])
    variance = arrays["output_layer.4.running_var"]
    np.testing.assert_array_equal(found["output.embedding_norm.var"], variance)


@pytest.mark.parametrize("class_keyed", [False, True], ids=["name", "class"])
def test_a_lightning_checkpoint(class_keyed, manifest, arrays, tmp_path, monkeypatch):
    monkeypatch.setattr(formats, "weights", lambda _: arrays)
    path = tmp_path / "adaface.ckpt"
    path.write_bytes(tw.zip_bytes(formats.lightning(manifest, class_keyed)))
    config, found = port("adaface", path)
    check(found, arrays)
    assert config["kind"] == "adaface"
    assert IResNetConfig.from_dict(config) == IResNetConfig(18, False, 16, 8)


@pytest.mark.full
@pytest.mark.parametrize("name", ["adaface_ir18", "adaface_ir50", "adaface_ir101"])
def test_full_size_backbones_agree_with_the_original(name, tmp_path):
    manifest, ref = load_manifest("iresnet", name), load_reference("iresnet", name)
    path = tmp_path / "adaface.ckpt"
    path.write_bytes(tw.zip_bytes(formats.lightning(manifest)))
    convert("adaface", path, tmp_path / "out")
    graph, state = nnx.split(load(tmp_path / "out", IResNet))
    images = make_input(manifest, "images").transpose(0, 2, 3, 1)
    embedding, norm = jax.jit(lambda s, x: nnx.merge(graph, s)(x))(state, images)
    assert error(embedding, ref["embedding"]) <= 1e-4
    assert error(norm, ref["norm"]) <= 1e-4


def test_a_bare_state_dict(arrays, tmp_path):
    (tmp_path / "backbone.pt").write_bytes(tw.zip_bytes(arrays))
    check(port("adaface", tmp_path / "backbone.pt")[1], arrays)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("output_layer.3.weight", None, "there is no output_layer.3.weight"),
        ("output_layer.3.weight", np.ones((8, 500), np.float32), r"has shape (8, 500)"),
        ("body.7.res_layer.0.weight", None, "has 7 units; known are 4, 8, 16, 24, 49"),
        ("body.3.res_layer.2.bias", None, "no tensor gives body.unit3.norm2.bias"),
        ("ex\x1b[2Jtra", np.ones(1, np.float32), "nothing in the model takes 'ex\\x1b[2Jtra'"),
    ],
)
def test_what_does_not_fit_is_named(name, value, message, arrays, tmp_path):
    small = {k: v for k, v in arrays.items() if v.ndim != 4} | {name: value}
    small = {k: v for k, v in small.items() if v is not None}
    (tmp_path / "backbone.pt").write_bytes(tw.zip_bytes(small))
    with pytest.raises(CheckpointError) as caught:
        port("adaface", tmp_path / "backbone.pt")
    if name.startswith("body.3"):
        assert "no tensor gives" in str(caught.value)
    else:
        assert message in str(caught.value)
