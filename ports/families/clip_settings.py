"""What the configs beside a CLIP's weights say: values checked, and compared with the tensors.

Pixels are normalised with the numbers of `processor_config.json` (transformers 5 keeps them under
`image_processor`) or `preprocessor_config.json`, in the order in which transformers looks for them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from qdgs_jax.models.clip import ACTIVATIONS, CLIPConfig
from qdgs_jax.ports.errors import CheckpointError, show
from qdgs_jax.ports.readers.folder import read_json

Settings = Mapping[str, Any]  # a table of a config
_PROCESSORS = ("processor_config.json", "preprocessor_config.json")
_BYTE = 1 / 255  # what pixels are multiplied with before they are normalised


def hugging_face_pixels(folder: Path, image_size: int) -> dict[str, Any]:
    """Normalisation of pixels, for CLIPConfig; nothing if no file beside the weights tells it.

    Raises:
        CheckpointError: if the processor makes images of another size or range.
    """
    together = table(read_json(folder / _PROCESSORS[0]) or {}, "image_processor")
    settings, name = together, _PROCESSORS[0]
    if not together:
        settings, name = read_json(folder / _PROCESSORS[1]) or {}, _PROCESSORS[1]
    if flag(settings, "do_rescale", True):
        factor = number(settings, "rescale_factor", _BYTE)
        if abs(factor - _BYTE) > 1e-6:
            raise CheckpointError(f"rescale_factor of {name} is {factor}: only 1 / 255 is read.")
    elif settings:
        raise CheckpointError(f"do_rescale of {name} is false: only pixels in [0, 1] are read.")
    size = settings.get("crop_size")
    if size is not None and flag(settings, "do_center_crop", True):
        sides = list(size.values()) if type(size) is dict else [size]
        compare(name, [({"crop_size": side}, "crop_size", image_size) for side in sides])
    if not flag(settings, "do_normalize", True):
        return {"image_mean": (0.0, 0.0, 0.0), "image_std": (1.0, 1.0, 1.0)}
    return normalisation(settings, "image_mean", "image_std")


def assumed_pixels(cfg: CLIPConfig, told: Mapping[str, Any], files: str) -> dict[str, str]:
    """What is assumed of the pixels where a config does not tell all of it."""
    if {"image_mean", "image_std"} <= set(told):
        return {}
    return {
        "pixels": f"mean {cfg.image_mean} and deviation {cfg.image_std}, those of OpenAI's models: "
        f"{files} tells others"
    }


def assumed_towers(cfg: CLIPConfig, vision: Settings, text: Settings) -> dict[str, str]:
    """What is assumed of the towers where Hugging Face's `config.json` does not tell it."""
    towers = (("images", vision, cfg.vision), ("texts", text, cfg.text))
    assumed = {}
    for name, key, field in (
        ("heads", "num_attention_heads", "heads"),
        ("activation", "hidden_act", "activation"),
    ):
        taken = [f"{getattr(tower, field)} ({of})" for of, told, tower in towers if key not in told]
        if taken:
            values = " and ".join(taken)
            assumed[name] = f"{values}, transformers' default: config.json has no {key} for them"
    return assumed


def compare(file: str, rows: Iterable[tuple[Settings, str, int]]) -> None:
    """Compare numbers of a config with those that the tensors tell.

    Args:
        file: name of the config.
        rows: table, key and the number found; a key that is not there tells nothing.

    Raises:
        CheckpointError: if they differ.
    """
    for settings, key, found in rows:
        told = settings.get(key)
        if told is not None and told not in (found, [found, found]):  # sizes may be per axis
            raise CheckpointError(
                f"{key} of {file} is {show(told)}, but the tensors say {found}: put this model's "
                "own config there."
            )


def compare_hugging_face(
    cfg: CLIPConfig, config: Settings, vision: Settings, text: Settings
) -> None:
    """Compare Hugging Face's `config.json` with the tensors.

    Raises:
        CheckpointError: if they differ, or no token can be the end of a text.
    """
    towers = [
        (settings, key, found)
        for settings, tower in ((vision, cfg.vision), (text, cfg.text))
        for key, found in (
            ("hidden_size", tower.width),
            ("intermediate_size", tower.mlp_width),
            ("num_hidden_layers", tower.layers),
        )
    ]
    rest = [
        (vision, "image_size", cfg.image_size),
        (vision, "patch_size", cfg.patch_size),
        (vision, "num_channels", 3),
        (text, "vocab_size", cfg.vocab_size),
        (text, "max_position_embeddings", cfg.context_length),
        (config, "projection_dim", cfg.embed_dim),
    ]
    compare("config.json", [*towers, *rest])
    if cfg.eos_token_id >= cfg.vocab_size:
        raise CheckpointError(
            f"eos_token_id of config.json is {cfg.eos_token_id}, but the tensors have "
            f"{cfg.vocab_size} tokens: put this model's own config there."
        )


def compare_openclip(cfg: CLIPConfig, model: Settings, vision: Settings, text: Settings) -> None:
    """Compare `open_clip_config.json` with the tensors.

    Raises:
        CheckpointError: if they differ.
    """
    rows = [
        (model, "embed_dim", cfg.embed_dim),
        (vision, "image_size", cfg.image_size),
        (vision, "patch_size", cfg.patch_size),
        (vision, "width", cfg.vision.width),
        (vision, "layers", cfg.vision.layers),
        (text, "context_length", cfg.context_length),
        (text, "vocab_size", cfg.vocab_size),
        (text, "width", cfg.text.width),
        (text, "layers", cfg.text.layers),
    ]
    compare("open_clip_config.json", rows)
    for settings, tower in ((vision, cfg.vision), (text, cfg.text)):
        ratio = number(settings, "mlp_ratio", tower.mlp_width / tower.width)
        if int(ratio * tower.width) != tower.mlp_width:  # rounded as OpenCLIP does
            raise CheckpointError(
                f"mlp_ratio of open_clip_config.json is {ratio:g}, but the tensors say "
                f"{tower.mlp_width / tower.width:g}: put this model's own config there."
            )
    head_width = count(vision, "head_width", 1)
    if cfg.vision.width % head_width:
        raise CheckpointError(
            f"head_width of open_clip_config.json is {head_width}, which does not divide the "
            f"width {cfg.vision.width} of the tensors: put this model's own config there."
        )


def refuse_variants(vision: Settings, text: Settings) -> None:
    """Refuse OpenCLIP models that compute something else from tensors of the same names.

    Raises:
        CheckpointError: if this is one; the message names the setting.
    """
    for settings, key, plain in (
        (vision, "timm_model_name", None),
        (vision, "attentional_pool", False),
        (vision, "global_average_pool", False),
        (vision, "pool_type", "tok"),
        (vision, "act_kwargs", {}),
        (vision, "norm_kwargs", {}),
        (text, "hf_model_name", None),
        (text, "embed_cls", False),
        (text, "no_causal_mask", False),
        (text, "pool_type", "argmax"),
        (text, "proj_type", "linear"),
        (text, "act_kwargs", {}),
        (text, "norm_kwargs", {}),
    ):
        if settings.get(key, plain) not in (plain, None):
            raise CheckpointError(
                f"This OpenCLIP model has {key} = {show(settings[key])}, which is not supported."
            )


def table(config: Settings, key: str) -> Settings:
    """Look up a table within a config; an empty one if it is not there."""
    found = config.get(key)
    if found is not None and type(found) is not dict:
        raise CheckpointError(f"{key} of the config is {show(found)}, not a table.")
    return found or {}


def count(settings: Settings, key: str, default: int) -> int:
    """Look up a positive integer."""
    value = settings.get(key, default)
    if type(value) is not int or not 0 < value < 2**31:
        raise CheckpointError(f"{key} of the config is {show(value)}, not a positive integer.")
    return value


def flag(settings: Settings, key: str, default: bool = False) -> bool:
    """Look up a switch."""
    value = settings.get(key, default)
    if type(value) is not bool:
        raise CheckpointError(f"{key} of the config is {show(value)}: give true or false.")
    return value


def activation(settings: Settings) -> str:
    """Look up the activation of a tower of Hugging Face's."""
    value = settings.get("hidden_act", "quick_gelu")
    if type(value) is not str or value not in ACTIVATIONS:
        raise CheckpointError(
            f"hidden_act of the config is {show(value)}: known are {', '.join(ACTIVATIONS)}."
        )
    return value


def number(settings: Settings, key: str, default: float) -> float:
    """Look up a positive number."""
    value = settings.get(key, default)
    if type(value) not in (int, float) or not 0 < value < 1e30:  # JSON's integers know no bound
        raise CheckpointError(f"{key} of the config is {show(value)}, not a positive number.")
    return float(value)


def normalisation(settings: Settings, mean: str, std: str) -> dict[str, Any]:
    """Normalisation of pixels, for CLIPConfig; nothing of what the settings do not tell."""
    out = {}
    for field, key in (("image_mean", mean), ("image_std", std)):
        values = settings.get(key)
        if values is None:
            continue
        if type(values) is not list or len(values) != 3:
            raise CheckpointError(f"{key} of the config is {show(values)}, not three numbers.")
        out[field] = tuple(_channel(key, value, least=field == "image_std") for value in values)
    return out


def _channel(key: str, value: Any, least: bool) -> float:
    """A channel's mean, 0 or more, or its deviation, more than 0."""
    if value == 0 and type(value) in (int, float) and not least:
        return 0.0
    return number({key: value}, key, 0.0)
