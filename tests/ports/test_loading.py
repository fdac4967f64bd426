"""Converted folders become models that compute, in one call."""

import dataclasses
import json
from pathlib import Path

import checkpoint_formats as formats
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from synthetic import error, load_manifest, load_reference

import qdgs_jax
from qdgs_jax import ports
from qdgs_jax.models.clip import CLIP, CLIPConfig
from qdgs_jax.models.iresnet import IResNetConfig
from qdgs_jax.models.shape_classifier import ShapeClassifier, ShapeClassifierConfig
from qdgs_jax.models.stylegan2 import Generator, StyleGAN2Config
from qdgs_jax.models.vae import VAE, VAEConfig
from qdgs_jax.ports.registry import KINDS, PORTED, kind_of

VAE_FOLDER = Path(qdgs_jax.__file__).parent / "assets" / "shapes-vae"

TINY_CLIP = {
    "image_size": 8,
    "patch_size": 4,
    "vocab_size": 9,
    "context_length": 5,
    "embed_dim": 6,
    "vision": {"width": 8, "layers": 1, "heads": 2, "mlp_width": 16},
    "text": {"width": 8, "layers": 1, "heads": 2, "mlp_width": 16},
}
CONFIGS = {
    StyleGAN2Config: {"resolution": 4, "channels": [8]},
    CLIPConfig: TINY_CLIP,
    IResNetConfig: {"depth": 18},
    VAEConfig: {"latent_dim": 3, "channels": [2, 3, 4]},
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("stylegan2")
    manifest = load_manifest("stylegan2", "stylegan2_small")
    (path / "network.pkl").write_bytes(formats.nvidia_pkl(manifest))
    ports.convert("stylegan2", path / "network.pkl", path / "model", "bfloat16")
    return path / "model"


def test_a_generator_is_loaded_in_float32_with_options(folder):
    generator = ports.load(folder, Generator, remat=True)
    assert generator.synthesis.remat
    reference = load_reference("stylegan2", "stylegan2_small")
    ws = generator.mapping(jnp.asarray(reference["z"]))
    stored = jax.tree.leaves(ports.load_model(folder)[1])
    assert {leaf.dtype.name for leaf in stored} == {"bfloat16"}
    assert generator.mapping.w_avg[...].dtype == jnp.float32
    assert error(ws, reference["ws_psi1"]) <= 0.05  # of parameters kept as bfloat16


def test_another_model_is_refused(folder):
    with pytest.raises(ports.CheckpointError, match="kind 'stylegan2', not 'clip'"):
        ports.load(folder, CLIP)
    names = "'Generator', 'CLIP', 'IResNet', 'VAE', 'Latents', 'ShapeClassifier'"
    with pytest.raises(ValueError, match=f"give one of .*{names}"):
        ports.load(folder, nnx.Linear)


def test_a_trained_classifier_is_loaded_with_what_describes_it(tmp_path):
    cfg = ShapeClassifierConfig(16, (2, 3, 4), 5)
    network = nnx.jit(lambda: ShapeClassifier(cfg, rngs=nnx.Rngs(0)))()
    config = {"kind": "shape_classifier", **dataclasses.asdict(cfg), "label_names": ["a", "b"]}
    ports.save_model(tmp_path / "model", config, nnx.to_pure_dict(nnx.state(network, nnx.Param)))
    assert ports.load_config(tmp_path / "model")["label_names"] == ["a", "b"]
    loaded = ports.load(tmp_path / "model", ShapeClassifier)
    assert loaded.cfg == cfg
    for found, wanted in zip(
        jax.tree.leaves(nnx.state(loaded)), jax.tree.leaves(nnx.state(network)), strict=True
    ):
        np.testing.assert_array_equal(found, wanted.astype(jnp.float32))


def test_every_kind_names_classes_that_are_there():
    for name, kind in KINDS.items():
        assert kind_of(kind.model).name == name
        if name in PORTED:
            assert callable(kind.recognise)
    with pytest.raises(
        ports.CheckpointError, match=r"shape_classifier is trained here.* latents\."
    ):
        ports.convert("shape_classifier", "any", "out")


def test_folders_of_the_first_version_still_load():
    assert json.loads((VAE_FOLDER / "config.json").read_text())["version"] == 1
    vae = ports.load(VAE_FOLDER, VAE)
    assert vae.decoder.fc1.kernel[...].shape[0] == vae.cfg.latent_dim


def test_a_config_that_does_not_fit_is_named(folder, tmp_path):
    (tmp_path / "params").symlink_to(folder / "params")
    header = json.loads((folder / "config.json").read_text())
    header["config"]["fmaps"] = 1
    (tmp_path / "config.json").write_text(json.dumps(header))
    with pytest.raises(ports.CheckpointError, match=r"unknown StyleGAN2 settings \['fmaps'\]"):
        ports.load(tmp_path, Generator)


@pytest.mark.parametrize(
    ("name", "model", "path"),
    [
        ("shapes-clip", CLIP, ("image_mean",)),
        ("shapes-clip", CLIP, ("eos_token_id",)),
        ("shapes-clip", CLIP, ("vision", "activation")),
        ("faces-stylegan2", Generator, ("mapping_lr",)),
    ],
)
def test_a_setting_that_was_lost_is_not_taken_from_a_default(name, model, path, tmp_path):
    source = VAE_FOLDER.with_name(name)
    (tmp_path / "params").symlink_to(source / "params")
    header = json.loads((source / "config.json").read_text())
    *tables, setting = path
    table = header["config"]
    for key in tables:
        table = table[key]
    del table[setting]
    (tmp_path / "config.json").write_text(json.dumps(header))
    with pytest.raises(ports.CheckpointError, match=rf"config\.json lacks {'.'.join(path)}, which"):
        ports.load(tmp_path, model)


@pytest.mark.parametrize("config", CONFIGS)
def test_configs_are_read_alike(config):
    fields = CONFIGS[config]
    cfg = config.from_dict({"kind": "any", **fields})
    assert config.from_dict(json.loads(json.dumps(cfg.to_dict()))) == cfg
    with pytest.raises(ValueError, match=r"unknown \w+ settings \['fmaps'\]"):
        config.from_dict({**fields, "fmaps": 1})


@pytest.mark.parametrize("config", [StyleGAN2Config, CLIPConfig, IResNetConfig])
def test_a_missing_setting_is_named(config):
    first = next(iter(CONFIGS[config]))
    with pytest.raises(ValueError, match=rf"settings \['{first}'\] are missing"):
        config.from_dict({name: value for name, value in CONFIGS[config].items() if name != first})


def test_settings_of_clips_towers_are_checked_too():
    with pytest.raises(ValueError, match=r"unknown Tower settings \['depth'\]"):
        CLIPConfig.from_dict({**TINY_CLIP, "text": {**TINY_CLIP["text"], "depth": 3}})
    with pytest.raises(ValueError, match="the settings are a list"):
        CLIPConfig.from_dict({**TINY_CLIP, "vision": [8, 1]})
