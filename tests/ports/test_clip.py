"""CLIP comes out of every format with the same numbers, and computes what the originals compute."""

import json
import shutil

import checkpoint_formats as formats
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch_writer as tw
from checkpoint_formats import hugging_face, openai_state, port, safetensors, write_folder
from flax import nnx
from synthetic import error, load_manifest, load_reference, make_input, weights

from qdgs_jax import ports
from qdgs_jax.models.clip import CLIP, CLIPConfig
from qdgs_jax.ports.conversion import recognise
from qdgs_jax.ports.mapping import SHAPES_ONLY, fill_model
from qdgs_jax.ports.params import flatten, unflatten
from qdgs_jax.ports.source import open_content

TOLERANCE = 1e-4
TINY, GELU, OPENAI = (
    load_manifest("clip", name) for name in ("clip_tiny", "clip_tiny_gelu", "clip_openai_tiny")
)


def half(arrays):
    return {name: array.astype(np.float16) for name, array in arrays.items()}


def write(form, manifest, folder):
    """Write a checkpoint of an OpenAI CLIP in one of the formats; return its place."""
    state, config = openai_state(manifest), formats.hugging_face_config(manifest)
    plain = formats.stored(manifest)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "clip.pt"
    match form:
        case "OpenAI state dict":
            path.write_bytes(tw.zip_bytes(tw.ordered(state, metadata=True)))
        case "OpenAI state dict, legacy":
            path.write_bytes(tw.legacy_bytes(tw.ordered(state)))
        case "OpenAI TorchScript":
            path.write_bytes(formats.torchscript(state))
        case "Hugging Face safetensors":
            files = {"model.safetensors": safetensors(hugging_face(plain))}
            return write_folder(folder / "hf", config, files)
        case "Hugging Face bin":
            data = tw.zip_bytes(tw.ordered(hugging_face(plain), metadata=True))
            return write_folder(folder / "hf", config, {"pytorch_model.bin": data})
        case "Hugging Face shards":
            return write_shards(folder / "hf", config, hugging_face(plain))
        case "OpenCLIP training checkpoint":
            state = {f"module.{name}": array for name, array in plain.items()}
            path.write_bytes(tw.zip_bytes({"epoch": 3, "name": "run", "state_dict": state}))
        case "OpenCLIP folder":
            model = {"embed_dim": 40, "quick_gelu": True, "vision_cfg": {}, "text_cfg": {}}
            data = safetensors(plain)
            out = write_folder(folder / "open", {}, {"open_clip_model.safetensors": data})
            (out / "open_clip_config.json").write_text(json.dumps({"model_cfg": model}))
            return out
        case "OpenCLIP with a text tower class":
            state = {
                name if name == "logit_scale" or name.startswith("visual.") else f"text.{name}": a
                for name, a in plain.items()
            }
            path.write_bytes(tw.zip_bytes(state))
    return path


def write_shards(path, config, arrays):
    names = sorted(arrays)
    parts = {"a.safetensors": names[::2], "b.safetensors": names[1::2]}
    files = {name: safetensors({n: arrays[n] for n in part}) for name, part in parts.items()}
    index = {"weight_map": {n: name for name, part in parts.items() for n in part}}
    files["model.safetensors.index.json"] = json.dumps(index).encode()
    return write_folder(path, config, files)


FORMS = (
    "OpenAI state dict",
    "OpenAI state dict, legacy",
    "OpenAI TorchScript",
    "Hugging Face safetensors",
    "Hugging Face bin",
    "Hugging Face shards",
    "OpenCLIP training checkpoint",
    "OpenCLIP folder",
    "OpenCLIP with a text tower class",
)


@pytest.fixture(scope="module")
def openai(tmp_path_factory):
    return port("clip", write(FORMS[0], OPENAI, tmp_path_factory.mktemp("clip")))


@pytest.mark.parametrize("form", FORMS)
def test_every_format_gives_the_same_numbers(form, openai, tmp_path):
    config, found = port("clip", write(form, OPENAI, tmp_path))
    assert found.keys() == openai[1].keys()
    for name, leaf in found.items():
        np.testing.assert_array_equal(leaf, openai[1][name], err_msg=name)
    wanted = dict(openai[0])
    if form in ("OpenCLIP training checkpoint", "OpenCLIP with a text tower class"):
        for tower in ("vision", "text"):  # nothing in these files tells quick GELU
            assert config[tower]["activation"] == "gelu"
            wanted[tower] = {**wanted[tower], "activation": "gelu"}
    assert config == wanted


def build(config, params):
    cfg = CLIPConfig.from_dict(config)
    model = fill_model(lambda: CLIP(cfg, rngs=SHAPES_ONLY), unflatten(params))
    return nnx.split(model)


def compute(ported, images, tokens, mask, cotangent):
    """Embeddings, their normalised forms and gradients of both with respect to the images."""
    graph, state = build(*ported)

    @jax.jit
    def everything(state, images):
        model = nnx.merge(graph, state)

        def normalise(x):
            return x / jnp.linalg.norm(x, axis=-1, keepdims=True)

        embed, pull = jax.vjp(model.embed_images, images)
        unit, pull_unit = jax.vjp(lambda x: normalise(model.embed_images(x)), images)
        text = model.embed_texts(tokens, mask)
        logits = jnp.exp(model.logit_scale[...]) * unit @ normalise(text).T
        grads = [g[0].transpose(0, 3, 1, 2) for g in (pull(cotangent), pull_unit(cotangent))]
        return (embed, unit, *grads, text, normalise(text), logits, model.logit_scale[...])

    with jax.default_matmul_precision("highest"):
        return everything(state, jnp.asarray(images.transpose(0, 2, 3, 1)))


@pytest.mark.parametrize("manifest", [TINY, GELU], ids=["quick GELU", "GELU"])
def test_hugging_faces_model_agrees(manifest, tmp_path):
    arrays = weights(manifest)
    files = {"model.safetensors": safetensors(arrays)}
    folder = write_folder(tmp_path / "hf", formats.hugging_face_config(manifest), files)
    ported = port("clip", folder)
    ref = load_reference("clip", manifest["name"])
    found = compute(
        ported,
        ref["pixel_values"],
        jnp.asarray(ref["input_ids"]),
        jnp.asarray(ref["attention_mask"]),
        jnp.asarray(ref["cotangent"]),
    )
    names = (
        "image_embed",
        "image_embed_normalized",
        "grad_pixel_values",
        "grad_pixel_values_normalized",
        "text_embed",
        "text_embed_normalized",
        "logits_per_image",
        "logit_scale",
    )
    for name, array in zip(names, found, strict=True):
        assert error(array, ref[name]) <= TOLERANCE, name
    graph, state = build(*ported)
    unmasked = jax.jit(lambda s: nnx.merge(graph, s).embed_texts(jnp.asarray(ref["input_ids"])))
    assert error(unmasked(state), ref["text_embed_no_mask"]) <= TOLERANCE


def check_openais(ported, manifest, ref, cotangent):
    """Compare all that a reference of OpenAI's model holds."""
    images = make_input(manifest, "pixel_values")
    found = compute(ported, images, jnp.asarray(ref["token_ids"]), None, cotangent)
    names = (
        "image_features",
        "image_features_normalized",
        "grad_pixel_values",
        None,
        "text_features",
        "text_features_normalized",
        "logits_per_image",
        "logit_scale",
    )
    arrays = {name: array for name, array in zip(names, found, strict=True) if name in ref}
    assert set(ref) - {"token_ids", "cotangent"} == set(arrays)
    for name, array in arrays.items():
        assert error(array, ref[name]) <= TOLERANCE, name


def test_openais_model_agrees(openai):
    ref = load_reference("clip", "clip_openai_tiny")
    check_openais(openai, OPENAI, ref, jnp.asarray(ref["cotangent"]))


@pytest.mark.full
@pytest.mark.parametrize("form", [FORMS[0], FORMS[2], FORMS[3]])
def test_vit_b32_agrees_with_the_original(form, tmp_path):
    manifest, ref = load_manifest("clip", "clip_vit_b32"), load_reference("clip", "clip_vit_b32")
    ports.convert("clip", write(form, manifest, tmp_path), tmp_path / "out")
    config, params = ports.load_model(tmp_path / "out")
    ported = config, dict(flatten(params))
    check_openais(ported, manifest, ref, jnp.ones_like(ref["image_features"]))


def test_a_folder_is_ported_with_its_tokenizer_and_pixel_settings(tmp_path):
    arrays = half({k: v for k, v in weights(TINY).items() if "position_ids" not in k})
    pixels = json.dumps({"image_mean": [0.5, 0.4, 0.3], "image_std": [0.2, 0.2, 0.1]})
    files = {
        "model.safetensors": safetensors(arrays),
        "tokenizer.json": b"{}",
        "vocab.json": b"{}",
        "preprocessor_config.json": pixels.encode(),
        "notes.txt": b"",
    }
    folder = write_folder(tmp_path / "hf", formats.hugging_face_config(TINY), files)
    summary = ports.convert("clip", folder, tmp_path / "out")
    names = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert names == ["config.json", "params", "tokenizer.json", "vocab.json"]
    config, params = ports.load_model(tmp_path / "out")
    assert (config["image_mean"], config["image_std"]) == ([0.5, 0.4, 0.3], [0.2, 0.2, 0.1])
    assert params["visual"]["class_token"].dtype == np.float32
    assert summary.details["activation"] == "quick_gelu"
    assert CLIPConfig.from_dict(config).eos_token_id == 99


def refused(source):
    with pytest.raises(ports.CheckpointError) as caught:
        port("clip", source)
    return str(caught.value)


@pytest.mark.parametrize(
    ("section", "key", "value", "message"),
    [
        ("text_config", "num_attention_heads", 0, "num_attention_heads of the config is 0"),
        ("vision_config", "num_attention_heads", 3, "not a multiple of heads 3"),
        ("vision_config", "hidden_act", "gelu_new", "is 'gelu_new': known are quick_gelu, gelu"),
        ("vision_config", "hidden_act", ["gelu"], "hidden_act of the config is a list"),
        ("text_config", "layer_norm_eps", 10**400, "layer_norm_eps of the config is 1000"),
        ("text_config", "eos_token_id", "x", "eos_token_id of the config is 'x'"),
        (None, "model_type", "siglip", '"model_type": "clip"'),
        (None, "vision_config", [], "vision_config of the config is a list"),
    ],
)
def test_a_config_that_does_not_fit_is_refused(section, key, value, message, tmp_path):
    config = formats.hugging_face_config(TINY)
    if section is None:
        config = {**config, key: value}
    else:
        config = {**config, section: {**config[section], key: value}}
    files = {"model.safetensors": safetensors(weights(TINY))}
    assert message in refused(write_folder(tmp_path / "hf", config, files))


def test_files_of_a_folder_are_checked(tmp_path):
    config = formats.hugging_face_config(TINY)
    assert "holds none of model.safetensors" in refused(write_folder(tmp_path / "a", config, {}))
    index = json.dumps({"weight_map": {"w": "../secret.safetensors"}}).encode()
    climbing = write_folder(tmp_path / "b", config, {"model.safetensors.index.json": index})
    assert "'../secret.safetensors', which is not in its folder" in refused(climbing)
    data = safetensors(weights(TINY))
    folder = write_folder(tmp_path / "c", config, {"model.safetensors": data})
    (folder / "config.json").unlink()
    assert "must lie beside Hugging Face weights" in refused(folder)
    (folder / "config.json").write_text("{")
    assert "is not valid JSON" in refused(folder)


def test_other_models_are_named_for_what_they_are(tmp_path):
    state = openai_state(OPENAI)
    (tmp_path / "resnet.pt").write_bytes(
        tw.zip_bytes({"visual.layer1.0.conv1.weight": np.ones(1, np.float32)})
    )
    assert "sees through a ResNet" in refused(tmp_path / "resnet.pt")
    (tmp_path / "vae.pt").write_bytes(tw.zip_bytes({"a": np.ones(1, np.float32)}))
    assert "This is not a CLIP" in refused(tmp_path / "vae.pt")
    lie = {**state, "input_resolution": np.asarray(64)}
    (tmp_path / "lie.pt").write_bytes(tw.zip_bytes(lie))
    assert "input_resolution is [64]" in refused(tmp_path / "lie.pt")


def test_a_tower_of_many_blocks_is_refused_before_it_is_built(tmp_path):
    empty = np.ones(0, np.float32)
    blocks = {f"visual.transformer.resblocks.{i}.ln_1.weight": empty for i in range(129)}
    (tmp_path / "deep.pt").write_bytes(tw.zip_bytes({**openai_state(OPENAI), **blocks}))
    assert "has 129 blocks in a tower, more than 128" in refused(tmp_path / "deep.pt")


@pytest.fixture(scope="module")
def openclip(tmp_path_factory):
    return write("OpenCLIP folder", OPENAI, tmp_path_factory.mktemp("openclip"))


def openclip_with(folder, tmp_path, config):
    """A copy of an OpenCLIP folder with another config; None for none."""
    shutil.copytree(folder, tmp_path / "copy")
    (tmp_path / "copy" / "open_clip_config.json").unlink()
    if config is not None:
        (tmp_path / "copy" / "open_clip_config.json").write_text(json.dumps(config))
    return tmp_path / "copy"


@pytest.mark.parametrize(
    ("section", "key", "value", "message"),
    [
        ("text_cfg", "no_causal_mask", True, "has no_causal_mask = True"),
        ("vision_cfg", "timm_model_name", "vit", "has timm_model_name = 'vit'"),
        ("text_cfg", "pool_type", "last", "has pool_type = 'last'"),
        ("vision_cfg", "act_kwargs", {"approximate": "tanh"}, "has act_kwargs = a dict"),
        ("text_cfg", "act_kwargs", {"approximate": "tanh"}, "has act_kwargs = a dict"),
        ("vision_cfg", "norm_kwargs", {"eps": 1e-6}, "has norm_kwargs = a dict"),
        ("text_cfg", "norm_kwargs", {"eps": 1e-6}, "has norm_kwargs = a dict"),
        (
            "vision_cfg",
            "layers",
            99,
            "layers of open_clip_config.json is 99, but",
        ),
        ("vision_cfg", "image_size", [32, 64], "image_size of open_clip_config.json is a list"),
        ("text_cfg", "vocab_size", 49408, "vocab_size of open_clip_config.json is 49408"),
        (None, "embed_dim", 512, "embed_dim of open_clip_config.json is 512"),
        (None, "quick_gelu", "yes", "quick_gelu of the config is 'yes': give true or false"),
        ("text_cfg", "heads", 3, "not a multiple of heads 3"),
    ],
)
def test_openclip_models_that_compute_something_else_are_refused(
    section, key, value, message, openclip, tmp_path
):
    model = {section: {key: value}} if section else {key: value}
    assert message in refused(openclip_with(openclip, tmp_path, {"model_cfg": model}))


def test_openclips_full_config_is_accepted(openclip, tmp_path):
    vision = {"image_size": [32, 32], "layers": 2, "width": 128, "patch_size": 8, "norm_kwargs": {}}
    text = {"context_length": 16, "vocab_size": 100, "width": 64, "heads": 1, "layers": 2}
    model = {"embed_dim": 40, "quick_gelu": False, "vision_cfg": vision, "text_cfg": text}
    found, _ = port("clip", openclip_with(openclip, tmp_path, {"model_cfg": model}))
    assert found["image_size"] == 32


@pytest.mark.parametrize("inside", ["", "open_clip_model.safetensors"], ids=["folder", "file"])
def test_openclips_config_tells_activation_heads_and_pixels(inside, openclip, tmp_path):
    config = {
        "model_cfg": {
            "quick_gelu": True,
            "vision_cfg": {"head_width": 32},
            "text_cfg": {"heads": 4},
        },
        "preprocess_cfg": {"mean": [0.1, 0.2, 0.3], "std": [1, 1, 1]},
    }
    found, _ = port("clip", openclip_with(openclip, tmp_path, config) / inside)
    assert (found["vision"]["heads"], found["text"]["heads"]) == (4, 4)
    assert found["image_mean"] == (0.1, 0.2, 0.3)
    assert found["vision"]["activation"] == found["text"]["activation"] == "quick_gelu"


@pytest.mark.parametrize("config", [None, {"model_cfg": {}}], ids=["no config", "a config"])
def test_an_assumed_activation_is_told(config, openclip, tmp_path):
    source = openclip_with(openclip, tmp_path, config) / "open_clip_model.safetensors"
    with open_content(source) as content:
        found = recognise("clip", content)
    assert found.config["vision"]["activation"] == "gelu"
    assert ("assumed" in found.details["activation"]) == (config is None)
