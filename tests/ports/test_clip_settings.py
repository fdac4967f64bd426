"""Files beside a CLIP: what they say is read, compared with the tensors, or told to be missing."""

import json

import checkpoint_formats as formats
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch_writer as tw
from checkpoint_formats import port, safetensors, write_folder
from flax import nnx
from synthetic import error, load_manifest, weights

from qdgs_jax import ports
from qdgs_jax.cli import app, console
from qdgs_jax.models.clip import CLIP, CLIPConfig

TINY = load_manifest("clip", "clip_tiny")
HALF = {"image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5]}
OTHER = {"image_mean": [0.1, 0.2, 0.3], "image_std": [0.4, 0.5, 0.6]}


@pytest.fixture(scope="module")
def arrays():
    return weights(TINY)


def folder_with(path, arrays, config=None, **files):
    """A Hugging Face folder; names of further files have no ending."""
    data = {f"{name}.json": json.dumps(table).encode() for name, table in files.items()}
    data["model.safetensors"] = safetensors(arrays)
    return write_folder(path, config or formats.hugging_face_config(TINY), data)


@pytest.mark.parametrize(
    ("files", "wanted"),
    [
        ({"processor_config": {"image_processor": HALF}}, HALF),
        ({"preprocessor_config": HALF}, HALF),
        ({"processor_config": {"image_processor": HALF}, "preprocessor_config": OTHER}, HALF),
        (
            {
                "processor_config": {"processor_class": "CLIPProcessor"},
                "preprocessor_config": OTHER,
            },
            OTHER,
        ),
        (
            {"preprocessor_config": {**HALF, "do_normalize": False}},
            {"image_mean": [0, 0, 0], "image_std": [1, 1, 1]},
        ),
        (
            {"preprocessor_config": {"image_mean": [0, 0, 0], "image_std": [1, 1, 1]}},
            {"image_mean": [0, 0, 0], "image_std": [1, 1, 1]},
        ),
    ],
)
def test_pixels_are_normalised_as_the_processor_says(files, wanted, arrays, tmp_path):
    config, _ = port("clip", folder_with(tmp_path / "hf", arrays, **files))
    assert {key: list(config[key]) for key in HALF} == wanted


def test_normalisation_of_transformers_5_reaches_the_embedding(arrays, tmp_path):
    settings = {"image_processor": {**HALF, "rescale_factor": 0.00392156862745098}}
    source = folder_with(tmp_path / "hf", arrays, processor_config=settings)
    ports.convert("clip", source, tmp_path / "out")
    clip = ports.load(tmp_path / "out", CLIP)
    pixels = jax.random.uniform(jax.random.key(0), (2, 32, 32, 3))
    embed = nnx.jit(lambda clip, images: clip.embed_images(images))
    found = embed(clip, clip.preprocess(pixels))
    assert error(found, np.asarray(embed(clip, 2 * pixels - 1))) < 1e-5
    usual = CLIPConfig.image_mean, CLIPConfig.image_std
    assert (
        error(embed(clip, (pixels - jnp.asarray(usual[0])) / jnp.asarray(usual[1])), found) > 0.05
    )


def test_pixels_that_nothing_tells_are_told_to_be_assumed(arrays, tmp_path, capsys):
    source = folder_with(tmp_path / "hf", arrays)
    code = console.guarded(lambda: app(["port", "clip", str(source), str(tmp_path / "out")]))
    assert code == 0
    shown = capsys.readouterr().out
    assert "assumed pixels: mean (0.48145466, 0.4578275, 0.40821073)" in shown
    assert "neither processor_config.json nor preprocessor_config.json" in shown
    assert "tokenizer: not in the folder: a search needs tokenizer.json" in shown
    assert "0.48145466" in ports.load_config(tmp_path / "out")["assumed"]["pixels"]
    assert ports.load(tmp_path / "out", CLIP).cfg.image_mean[0] == 0.48145466


def test_nothing_is_assumed_where_everything_is_told(arrays, tmp_path):
    source = folder_with(tmp_path / "hf", arrays, preprocessor_config=HALF, tokenizer={"a": 1})
    summary = ports.convert("clip", source, tmp_path / "out")
    assert summary.assumed == {}
    assert summary.details["tokenizer"] == "copied"
    assert "assumed" not in ports.load_config(tmp_path / "out")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"crop_size": {"height": 64, "width": 64}}, "crop_size of preprocessor_config.json is 64"),
        ({"crop_size": 64}, "the tensors say 32"),
        ({"rescale_factor": 1.0}, "rescale_factor of preprocessor_config.json is 1.0"),
        ({"do_rescale": False}, "do_rescale of preprocessor_config.json is false"),
        ({"image_mean": [0.5, 0.5]}, "image_mean of the config is a list, not three numbers"),
        ({"image_std": [0.5, 0.5, 0]}, "image_std of the config is 0"),
    ],
)
def test_a_processor_that_does_something_else_is_refused(settings, message, arrays, tmp_path):
    with pytest.raises(ports.CheckpointError) as caught:
        port("clip", folder_with(tmp_path / "hf", arrays, preprocessor_config=settings))
    assert message in str(caught.value)


@pytest.mark.parametrize("name", ["tokenizer", "preprocessor_config", "processor_config"])
def test_a_pointer_in_place_of_a_side_file_is_refused(name, arrays, tmp_path):
    source = folder_with(tmp_path / "hf", arrays)
    pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:1\nsize 2\n"
    (source / f"{name}.json").write_bytes(pointer)
    with pytest.raises(ports.CheckpointError, match=f"{name}.json: This is a Git LFS pointer"):
        ports.convert("clip", source, tmp_path / "out")


LARGER = [
    ("vision_config", "hidden_size", 768),
    ("vision_config", "intermediate_size", 3072),
    ("vision_config", "num_hidden_layers", 12),
    ("vision_config", "image_size", 224),
    ("vision_config", "patch_size", 16),
    ("vision_config", "num_channels", 1),
    ("text_config", "hidden_size", 512),
    ("text_config", "intermediate_size", 2048),
    ("text_config", "num_hidden_layers", 12),
    ("text_config", "vocab_size", 49408),
    ("text_config", "max_position_embeddings", 77),
    (None, "projection_dim", 512),
    ("text_config", "eos_token_id", 49407),
]


@pytest.mark.parametrize(("section", "key", "value"), LARGER)
@pytest.mark.parametrize("old", [False, True], ids=["", "_dict"])
def test_a_config_that_contradicts_the_tensors_is_refused(
    section, key, value, old, arrays, tmp_path
):
    config = formats.hugging_face_config(TINY)
    if section is None:
        config = {**config, key: value}
    elif old:
        config = {**config, f"{section}_dict": {key: value}}
    else:
        config = {**config, section: {**config[section], key: value}}
    with pytest.raises(ports.CheckpointError) as caught:
        port("clip", folder_with(tmp_path / "hf", arrays, config))
    assert f"{key} of config.json is {value}, but the tensors" in str(caught.value)


def test_an_end_of_text_that_is_no_token_is_refused(arrays, tmp_path):
    config = formats.hugging_face_config(TINY)
    text = {key: value for key, value in config["text_config"].items() if key != "eos_token_id"}
    with pytest.raises(ports.CheckpointError, match=r"eos_token_id of config\.json is 49407, but"):
        port("clip", folder_with(tmp_path / "hf", arrays, {**config, "text_config": text}))


def test_scalars_that_a_search_does_not_need_keep_no_model_out(arrays, tmp_path):
    _, wanted = port("clip", folder_with(tmp_path / "plain", arrays))
    siglip = {**arrays, "logit_bias": np.full((1,), -10, np.float32)}
    siglip["logit_scale"] = arrays["logit_scale"].reshape(1)
    _, found = port("clip", folder_with(tmp_path / "siglip", siglip))
    assert found.keys() == wanted.keys()
    assert found["logit_scale"].shape == ()
    assert all((found[name] == leaf).all() for name, leaf in wanted.items())
    none = {name: array for name, array in arrays.items() if name != "logit_scale"}
    source = folder_with(tmp_path / "none", none, preprocessor_config=HALF)
    summary = ports.convert("clip", source, tmp_path / "out")
    assert list(summary.assumed) == ["logit_scale"]
    assert ports.load(tmp_path / "out", CLIP).logit_scale[...] == pytest.approx(np.log(1 / 0.07))
    two = {**arrays, "logit_scale": np.ones(2, np.float32)}
    with pytest.raises(ports.CheckpointError, match=r"logit_scale is \(2,\), should be \(1,\)"):
        port("clip", folder_with(tmp_path / "two", two))


@pytest.mark.parametrize("scale", [np.float32(np.nan), np.float32(np.inf), np.int64(3)])
def test_a_scale_that_is_no_number_keeps_no_model_out(scale, arrays, tmp_path):
    source = folder_with(
        tmp_path / "hf", {**arrays, "logit_scale": np.asarray(scale)}, preprocessor_config=HALF
    )
    summary = ports.convert("clip", source, tmp_path / "out")
    assert f"the file holds {scale.item()} of type" in summary.assumed["logit_scale"]


@pytest.mark.parametrize(
    ("key", "name", "words"),
    [
        ("num_attention_heads", "heads", "8 (texts), transformers' default"),
        ("hidden_act", "activation", "quick_gelu (texts), transformers' default"),
    ],
)
def test_what_a_config_does_not_tell_of_a_tower_is_told_to_be_assumed(
    key, name, words, arrays, tmp_path
):
    config = formats.hugging_face_config(TINY)
    text = {k: value for k, value in config["text_config"].items() if k != key}
    config = {**config, "text_config": text}
    source = folder_with(tmp_path / "hf", arrays, config, preprocessor_config=HALF)
    summary = ports.convert("clip", source, tmp_path / "out")
    assert list(summary.assumed) == [name]
    assert summary.assumed[name] == f"{words}: config.json has no {key} for them"
    assert ports.load_config(tmp_path / "out")["assumed"] == dict(summary.assumed)


def test_the_scalars_of_an_openclip_file_likewise(tmp_path):
    state = formats.stored(load_manifest("clip", "clip_openai_tiny"))
    state["logit_scale"] = state["logit_scale"].reshape(1)
    state["logit_bias"] = np.zeros((), np.float32)
    (tmp_path / "clip.pt").write_bytes(tw.zip_bytes({"state_dict": state}))
    summary = ports.convert("clip", tmp_path / "clip.pt", tmp_path / "out")
    assert "logit_bias" in summary.ignored
    assert list(summary.assumed) == ["pixels", "activation", "heads"]
    assert summary.assumed["heads"].startswith("2 (images) and 1 (texts)")


@pytest.mark.parametrize(
    ("section", "settings", "message"),
    [
        ("vision_cfg", {"mlp_ratio": 2.5}, "mlp_ratio of open_clip_config.json is 2.5"),
        ("text_cfg", {"mlp_ratio": 3}, "mlp_ratio of open_clip_config.json is 3"),
        ("vision_cfg", {"head_width": 48}, "head_width of open_clip_config.json is 48"),
        ("text_cfg", {"heads": 5}, "width 64 is not a multiple of heads 5"),
        ("vision_cfg", {"image_size": [32, 64]}, "image_size of open_clip_config.json"),
    ],
)
def test_an_openclip_config_that_contradicts_the_tensors_is_refused(
    section, settings, message, tmp_path
):
    state = formats.stored(load_manifest("clip", "clip_openai_tiny"))
    config = json.dumps({"model_cfg": {section: settings}})
    (tmp_path / "open_clip_config.json").write_text(config)
    (tmp_path / "open_clip_pytorch_model.bin").write_bytes(tw.zip_bytes(state))
    with pytest.raises(ports.CheckpointError) as caught:
        port("clip", tmp_path)
    assert message in str(caught.value)
