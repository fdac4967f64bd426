"""CLIP in every form its weights come in: OpenAI's, OpenCLIP's and Hugging Face's.

Widths, depths and sizes come from the tensors' shapes. What shapes do not tell (activation, number
of heads, normalisation of pixels) comes from the config in the checkpoint's folder, else from the
convention of whoever publishes such files:

- OpenAI: quick GELU, heads of 64 channels. Its files hold `input_resolution` and its like.
- OpenCLIP: GELU unless the config says `quick_gelu`; heads of 64 channels, apart from the vision
  towers of ViT-H, -g and -bigG, which have 16 heads. Where there is no config the summary says so.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

from qdgs_jax.models.clip import ACTIVATIONS, CLIP, CLIPConfig, TowerConfig
from qdgs_jax.ports.errors import CheckpointError, show
from qdgs_jax.ports.families.clip_names import (
    HUGGING_FACE_IGNORED,
    OPENAI_IGNORED,
    hugging_face_rules,
    openai_rules,
)
from qdgs_jax.ports.mapping import SHAPES_ONLY
from qdgs_jax.ports.readers.allowed import Record
from qdgs_jax.ports.readers.folder import read_json
from qdgs_jax.ports.readers.tensors import Tensor
from qdgs_jax.ports.readers.torch_file import named_tensors
from qdgs_jax.ports.source import Content, Source, shape_of

Tensors = dict[str, Tensor]
Settings = Mapping[str, Any]  # a table of a config
_SIZES = ("input_resolution", "context_length", "vocab_size")  # integers in OpenAI's files
_DEEPEST = 128  # blocks of a tower; the largest published one has 48
_SIXTEEN_HEADS = (1280, 1408, 1664)  # vision widths of OpenCLIP's H, g and bigG
_ASSUMED = (
    "gelu, which is assumed: no open_clip_config.json lies beside the weights. For a model trained "
    'with quick GELU, write one there that says {"model_cfg": {"quick_gelu": true}}'
)
_TOKENIZER = (
    "tokenizer.json",
    "tokenizer_config.json",
    "vocab.json",
    "merges.txt",
    "special_tokens_map.json",
)


def recognise(content: Content) -> Source:
    """Recognise a CLIP in an opened checkpoint.

    Raises:
        CheckpointError: if it is another model, or a CLIP without vision transformer.
    """
    tensors = _tensors(content)
    if any(name.startswith("visual.layer1.") for name in tensors):
        raise CheckpointError("This CLIP sees through a ResNet; only vision transformers are read.")
    try:
        if "visual.conv1.weight" in tensors:
            return _openai(content, tensors)
        if "vision_model.embeddings.patch_embedding.weight" in tensors:
            return _hugging_face(content, tensors)
    except ValueError as error:  # of the model's config
        raise CheckpointError(str(error)) from None
    raise CheckpointError(
        "This is not a CLIP: there is neither visual.conv1.weight (OpenAI, OpenCLIP) nor "
        "vision_model.embeddings.patch_embedding.weight (Hugging Face)."
    )


def _tensors(content: Content) -> Tensors:
    """Take the state dict: the root, a training checkpoint's, or a TorchScript module's."""
    root = content.root
    if type(root) is Record:
        return dict(named_tensors(root))
    inside = type(root) is dict and type(root.get("state_dict")) is dict
    tensors = content.state_dict("state_dict") if inside else content.state_dict()
    tensors = {name.removeprefix("module."): tensor for name, tensor in tensors.items()}
    if "text.token_embedding.weight" in tensors:  # OpenCLIP's models with a text tower class
        tensors = {name.removeprefix("text."): tensor for name, tensor in tensors.items()}
    return tensors


def _openai(content: Content, tensors: Tensors) -> Source:
    ours = all(name in tensors for name in _SIZES)
    given = None if ours else read_json(content.folder / "open_clip_config.json")
    config = given or {}
    model, pixels = _table(config, "model_cfg"), _table(config, "preprocess_cfg")
    vision, text = _table(model, "vision_cfg"), _table(model, "text_cfg")
    _refuse_variants(vision, text)
    patch = shape_of(tensors, "visual.conv1.weight", 4)[2]
    tokens, width = shape_of(tensors, "visual.positional_embedding", 2)
    context_length, text_width = shape_of(tensors, "positional_embedding", 2)
    head_width = _count(vision, "head_width", width // 16 if width in _SIXTEEN_HEADS else 64)
    activation = "quick_gelu" if ours or _flag(model, "quick_gelu") else "gelu"

    def tower(prefix: str, width: int, heads: int) -> TowerConfig:
        mlp = shape_of(tensors, f"{prefix}transformer.resblocks.0.mlp.c_fc.weight", 2)[0]
        layers = _layers(tensors, rf"{prefix}transformer\.resblocks\.(\d+)\.ln_1\.weight")
        return TowerConfig(width, layers, heads, mlp, activation)

    cfg = CLIPConfig(
        vision=tower("visual.", width, max(width // head_width, 1)),
        text=tower("", text_width, _count(text, "heads", max(text_width // 64, 1))),
        image_size=_side(tokens) * patch,
        patch_size=patch,
        vocab_size=shape_of(tensors, "token_embedding.weight", 2)[0],
        context_length=context_length,
        embed_dim=shape_of(tensors, "text_projection", 2)[1],
        **_normalisation(pixels, "mean", "std"),
    )
    if ours:
        _compare_sizes(cfg, tensors)
    _compare_config(cfg, model, vision, text)
    form = " TorchScript archive" if type(content.root) is Record else " state dict"
    return Source(
        layout=f"an {'OpenAI' if ours else 'OpenCLIP'} CLIP{form}",
        tensors=tensors,
        rules=openai_rules(cfg),
        ignored=OPENAI_IGNORED,
        **_common(content, cfg, activation if ours or given is not None else _ASSUMED),
    )


def _hugging_face(content: Content, tensors: Tensors) -> Source:
    config = read_json(content.folder / "config.json")
    if config is None or config.get("model_type") != "clip":
        raise CheckpointError(
            'A config.json with "model_type": "clip" must lie beside Hugging Face weights: it '
            "tells the number of attention heads and the activation."
        )
    pixels = read_json(content.folder / "preprocessor_config.json") or {}
    patch = shape_of(tensors, "vision_model.embeddings.patch_embedding.weight", 4)[2]
    tokens, _ = shape_of(tensors, "vision_model.embeddings.position_embedding.weight", 2)

    def tower(name: str, heads: int) -> TowerConfig:
        layers = rf"{name}_model\.encoder\.layers\.(\d+)\.layer_norm1\.weight"
        mlp = shape_of(tensors, f"{name}_model.encoder.layers.0.mlp.fc1.weight", 2)
        settings = {**_table(config, f"{name}_config"), **_table(config, f"{name}_config_dict")}
        return TowerConfig(
            width=mlp[1],
            layers=_layers(tensors, layers),
            heads=_count(settings, "num_attention_heads", heads),
            mlp_width=mlp[0],
            activation=_activation(settings.get("hidden_act", "quick_gelu")),
            norm_eps=_number(settings, "layer_norm_eps", 1e-5),
        )

    text = {**_table(config, "text_config"), **_table(config, "text_config_dict")}
    cfg = CLIPConfig(
        vision=tower("vision", 12),
        text=tower("text", 8),
        image_size=_side(tokens) * patch,
        patch_size=patch,
        vocab_size=shape_of(tensors, "text_model.embeddings.token_embedding.weight", 2)[0],
        context_length=shape_of(tensors, "text_model.embeddings.position_embedding.weight", 2)[0],
        embed_dim=shape_of(tensors, "text_projection.weight", 2)[0],
        eos_token_id=_count(text, "eos_token_id", 49407),
        **_normalisation(pixels, "image_mean", "image_std"),
    )
    return Source(
        layout="a Hugging Face CLIP",
        tensors=tensors,
        rules=hugging_face_rules(cfg),
        ignored=HUGGING_FACE_IGNORED,
        **_common(content, cfg, cfg.vision.activation),
    )


def _common(content: Content, cfg: CLIPConfig, activation: str) -> dict[str, Any]:
    """Fields of a Source that do not depend on the names; `activation` as the user is told it."""
    files = [content.path / name for name in _TOKENIZER]  # of a folder, not beside a lone file
    return {
        "config": {"kind": "clip", **cfg.to_dict()},
        "details": {
            "image size": cfg.image_size,
            "patch size": cfg.patch_size,
            "embedding": cfg.embed_dim,
            "activation": activation,
        },
        "build": lambda: CLIP(cfg, rngs=SHAPES_ONLY),
        "files": tuple(file for file in files if file.is_file()),
    }


def _layers(tensors: Tensors, pattern: str) -> int:
    layers = sum(re.fullmatch(pattern, name) is not None for name in tensors)
    if layers > _DEEPEST:
        raise CheckpointError(f"The file has {layers} blocks in a tower, more than {_DEEPEST}.")
    return layers


def _side(tokens: int) -> int:
    """Patches along a side, of a square image with a class token."""
    side = math.isqrt(max(tokens - 1, 0))
    if side < 1 or side * side + 1 != tokens:
        raise CheckpointError(f"{tokens} position embeddings are no square of patches and one.")
    return side


def _compare_sizes(cfg: CLIPConfig, tensors: Tensors) -> None:
    """Compare the integers in OpenAI's files with the shapes of the other tensors."""
    for name, wanted in zip(
        _SIZES, (cfg.image_size, cfg.context_length, cfg.vocab_size), strict=True
    ):
        found = tensors[name].numpy()
        if found.size != 1 or found.reshape(-1)[0] != wanted:
            raise CheckpointError(f"{name} is {found.reshape(-1)[:4]}, but tensors say {wanted}.")


def _compare_config(cfg: CLIPConfig, model: Settings, vision: Settings, text: Settings) -> None:
    """Compare the sizes in OpenCLIP's config with those of the tensors."""
    for table, key, found in (
        (model, "embed_dim", cfg.embed_dim),
        (vision, "image_size", cfg.image_size),
        (vision, "patch_size", cfg.patch_size),
        (vision, "width", cfg.vision.width),
        (vision, "layers", cfg.vision.layers),
        (text, "context_length", cfg.context_length),
        (text, "vocab_size", cfg.vocab_size),
        (text, "width", cfg.text.width),
        (text, "layers", cfg.text.layers),
    ):
        told = table.get(key, found)
        if told not in (found, [found, found]):  # sizes of images may be given per axis
            raise CheckpointError(
                f"{key} of open_clip_config.json is {show(told)}, but the tensors say {found}: put "
                "this model's own config there."
            )


def _refuse_variants(vision: Settings, text: Settings) -> None:
    """Refuse OpenCLIP models that compute something else from tensors of the same names."""
    for table, key, plain in (
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
        if table.get(key, plain) not in (plain, None):
            raise CheckpointError(
                f"This OpenCLIP model has {key} = {show(table[key])}, which is not supported."
            )


def _table(config: Settings, key: str) -> Settings:
    table = config.get(key)
    if table is not None and type(table) is not dict:
        raise CheckpointError(f"{key} of the config is {show(table)}, not a table.")
    return table or {}


def _count(settings: Settings, key: str, default: int) -> int:
    value = settings.get(key, default)
    if type(value) is not int or not 0 < value < 2**31:
        raise CheckpointError(f"{key} of the config is {show(value)}, not a positive integer.")
    return value


def _flag(settings: Settings, key: str) -> bool:
    value = settings.get(key, False)
    if type(value) is not bool:
        raise CheckpointError(f"{key} of the config is {show(value)}: give true or false.")
    return value


def _activation(value: Any) -> str:
    if type(value) is not str or value not in ACTIVATIONS:
        raise CheckpointError(
            f"hidden_act of the config is {show(value)}: known are {', '.join(ACTIVATIONS)}."
        )
    return value


def _number(settings: Settings, key: str, default: float) -> float:
    value = settings.get(key, default)
    if type(value) not in (int, float) or not 0 < value < 1e30:  # JSON's integers know no bound
        raise CheckpointError(f"{key} of the config is {show(value)}, not a positive number.")
    return float(value)


def _normalisation(settings: Settings, mean: str, std: str) -> dict[str, Any]:
    """Normalisation of pixels, for CLIPConfig; nothing if the settings do not tell."""
    out = {}
    for field, key in (("image_mean", mean), ("image_std", std)):
        values = settings.get(key)
        if values is None:
            continue
        if type(values) is not list or len(values) != 3:
            raise CheckpointError(f"{key} of the config is {show(values)}, not three numbers.")
        out[field] = tuple(_number({key: value}, key, 0.0) for value in values)
    return out
