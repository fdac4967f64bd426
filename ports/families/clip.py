"""CLIP in every form its weights come in: OpenAI's, OpenCLIP's and Hugging Face's.

Widths, depths and sizes come from the tensors' shapes. What shapes do not tell (activation, number
of heads, normalisation of pixels) comes from the config in the checkpoint's folder, else from the
convention of whoever publishes such files:

- OpenAI: quick GELU, heads of 64 channels. Its files hold `input_resolution` and its like.
- OpenCLIP: GELU unless the config says `quick_gelu`; heads of 64 channels, apart from the vision
  towers of ViT-H, -g and -bigG, which have 16 heads. Where there is no config the summary says so.
"""

from __future__ import annotations

import dataclasses
import math
import re
from typing import Any

import numpy as np

from qdgs_jax.models.clip import CLIP, CLIPConfig, TowerConfig
from qdgs_jax.ports.errors import CheckpointError
from qdgs_jax.ports.families import clip_settings as told
from qdgs_jax.ports.families.clip_names import (
    HUGGING_FACE_IGNORED,
    OPENAI_IGNORED,
    hugging_face_rules,
    openai_rules,
)
from qdgs_jax.ports.mapping import DTYPES, SHAPES_ONLY
from qdgs_jax.ports.readers.allowed import Record
from qdgs_jax.ports.readers.folder import read_json, refuse_stand_in
from qdgs_jax.ports.readers.tensors import Tensor
from qdgs_jax.ports.source import Content, Source, shape_of
from qdgs_jax.ports.weights import Tensors, find_weights

_OPENAI, _HUGGING_FACE = (
    "visual.conv1.weight",
    "vision_model.embeddings.patch_embedding.weight",
)
_RESNET = "visual.layer1.0.conv1.weight"
_SIZES = ("input_resolution", "context_length", "vocab_size")  # integers in OpenAI's files
_DEEPEST = 128  # blocks of a tower; the largest published one has 48
_SIXTEEN_HEADS = (1280, 1408, 1664)  # vision widths of OpenCLIP's H, g and bigG
_NO_CONFIG = (
    "no open_clip_config.json lies beside the weights. For a model trained with quick GELU, write "
    'one there that says {"model_cfg": {"quick_gelu": true}}'
)
_NO_PROCESSOR = "neither processor_config.json nor preprocessor_config.json beside the weights"
_NO_TOKENIZER = (
    "not in the folder: a search needs tokenizer.json, or vocab.json and merges.txt, in the "
    "converted folder"
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
    names = (_OPENAI, _HUGGING_FACE, _RESNET)
    found = find_weights(content.root, "a CLIP", names)
    tensors = found.tensors
    if "text.token_embedding.weight" in tensors:  # OpenCLIP's models with a text tower class
        tensors = {name.removeprefix("text."): tensor for name, tensor in tensors.items()}
    if _RESNET in tensors:
        raise CheckpointError("This CLIP sees through a ResNet; only vision transformers are read.")
    tensors, assumed = _with_scale(tensors)
    make = _openai if _OPENAI in tensors else _hugging_face
    try:
        source = make(content, tensors)
    except CheckpointError:
        raise
    except ValueError as error:  # of the model's config
        raise CheckpointError(str(error)) from None
    return dataclasses.replace(
        source,
        details={**source.details, **found.details},
        assumed={**source.assumed, **assumed},
    )


def _with_scale(tensors: Tensors) -> tuple[Tensors, dict[str, str]]:
    """Put a scale of the logits where there is none to use: only training computes with it."""
    held = tensors.get("logit_scale")
    if held is not None and (held.size != 1 or _is_number(held)):
        return tensors, {}
    scale = Tensor.of_array(np.float32(math.log(1 / 0.07)))
    holds = "none" if held is None else f"{held.numpy().item()} of type {held.dtype}"
    reason = f"its value at the start of training, for the file holds {holds}; searches need none"
    return {**tensors, "logit_scale": scale}, {"logit_scale": reason}


def _is_number(scalar: Tensor) -> bool:
    """Whether a tensor of one element is a finite floating-point number."""
    floating = scalar.dtype.kind == "f" or scalar.dtype in DTYPES.values()
    return floating and math.isfinite(float(scalar.numpy().item()))


def _openai(content: Content, tensors: Tensors) -> Source:
    ours = all(name in tensors for name in _SIZES)
    given = None if ours else read_json(content.folder / "open_clip_config.json")
    config = given or {}
    model, pixels = told.table(config, "model_cfg"), told.table(config, "preprocess_cfg")
    vision, text = told.table(model, "vision_cfg"), told.table(model, "text_cfg")
    told.refuse_variants(vision, text)
    patch = shape_of(tensors, "visual.conv1.weight", 4)[2]
    tokens, width = shape_of(tensors, "visual.positional_embedding", 2)
    context_length, text_width = shape_of(tensors, "positional_embedding", 2)
    head_width = told.count(vision, "head_width", width // 16 if width in _SIXTEEN_HEADS else 64)
    guessed = not ours and given is None
    activation = "quick_gelu" if ours or told.flag(model, "quick_gelu") else "gelu"

    normalisation = told.normalisation(pixels, "mean", "std")

    def tower(prefix: str, width: int, heads: int) -> TowerConfig:
        mlp = shape_of(tensors, f"{prefix}transformer.resblocks.0.mlp.c_fc.weight", 2)[0]
        layers = _layers(tensors, rf"{prefix}transformer\.resblocks\.(\d+)\.ln_1\.weight")
        return TowerConfig(width, layers, heads, mlp, activation)

    cfg = CLIPConfig(
        vision=tower("visual.", width, max(width // head_width, 1)),
        text=tower("", text_width, told.count(text, "heads", max(text_width // 64, 1))),
        image_size=_side(tokens) * patch,
        patch_size=patch,
        vocab_size=shape_of(tensors, "token_embedding.weight", 2)[0],
        context_length=context_length,
        embed_dim=shape_of(tensors, "text_projection", 2)[1],
        **normalisation,
    )
    if ours:
        _compare_sizes(cfg, tensors)
    told.compare_openclip(cfg, model, vision, text)
    told.compare("open_clip_config.json", [(pixels, "size", cfg.image_size)])
    assumed = {}
    if not ours:
        assumed = told.assumed_pixels(cfg, normalisation, "no open_clip_config.json")
        if guessed:
            heads = f"{cfg.vision.heads} (images) and {cfg.text.heads} (texts)"
            assumed |= {"activation": f"gelu: {_NO_CONFIG}", "heads": f"{heads}, likewise"}
    form = " TorchScript archive" if type(content.root) is Record else " state dict"
    return Source(
        layout=f"an {'OpenAI' if ours else 'OpenCLIP'} CLIP{form}",
        tensors=tensors,
        rules=openai_rules(cfg, tensors["logit_scale"].shape),
        ignored=OPENAI_IGNORED,
        assumed=assumed,
        **_common(content, cfg, f"gelu, which is assumed: {_NO_CONFIG}" if guessed else activation),
    )


def _hugging_face(content: Content, tensors: Tensors) -> Source:
    config = read_json(content.folder / "config.json")
    if config is None or config.get("model_type") != "clip":
        raise CheckpointError(
            'A config.json with "model_type": "clip" must lie beside Hugging Face weights: it '
            "tells the number of attention heads and the activation."
        )
    vision, text = (
        {**told.table(config, f"{name}_config"), **told.table(config, f"{name}_config_dict")}
        for name in ("vision", "text")
    )
    patch = shape_of(tensors, "vision_model.embeddings.patch_embedding.weight", 4)[2]
    tokens, _ = shape_of(tensors, "vision_model.embeddings.position_embedding.weight", 2)

    image_size = _side(tokens) * patch
    normalisation = told.hugging_face_pixels(content.folder, image_size)

    def tower(name: str, settings: told.Settings, heads: int) -> TowerConfig:
        layers = rf"{name}_model\.encoder\.layers\.(\d+)\.layer_norm1\.weight"
        mlp = shape_of(tensors, f"{name}_model.encoder.layers.0.mlp.fc1.weight", 2)
        return TowerConfig(
            width=mlp[1],
            layers=_layers(tensors, layers),
            heads=told.count(settings, "num_attention_heads", heads),
            mlp_width=mlp[0],
            activation=told.activation(settings),
            norm_eps=told.number(settings, "layer_norm_eps", 1e-5),
        )

    cfg = CLIPConfig(
        vision=tower("vision", vision, 12),
        text=tower("text", text, 8),
        image_size=image_size,
        patch_size=patch,
        vocab_size=shape_of(tensors, "text_model.embeddings.token_embedding.weight", 2)[0],
        context_length=shape_of(tensors, "text_model.embeddings.position_embedding.weight", 2)[0],
        embed_dim=shape_of(tensors, "text_projection.weight", 2)[0],
        eos_token_id=told.count(text, "eos_token_id", 49407),
        **normalisation,
    )
    told.compare_hugging_face(cfg, config, vision, text)
    return Source(
        layout="a Hugging Face CLIP",
        tensors=tensors,
        rules=hugging_face_rules(cfg, tensors["logit_scale"].shape),
        ignored=HUGGING_FACE_IGNORED,
        assumed={
            **told.assumed_pixels(cfg, normalisation, _NO_PROCESSOR),
            **told.assumed_towers(cfg, vision, text),
        },
        **_common(content, cfg, cfg.vision.activation),
    )


def _common(content: Content, cfg: CLIPConfig, activation: str) -> dict[str, Any]:
    """Fields of a Source that do not depend on the names; `activation` as the user is told it."""
    paths = [content.path / name for name in _TOKENIZER]  # of a folder, not beside a lone file
    files = tuple(file for file in paths if file.is_file())
    names = {file.name for file in files}
    tokenizer = "tokenizer.json" in names or {"vocab.json", "merges.txt"} <= names
    for file in files:
        refuse_stand_in(file)
    return {
        "config": {"kind": "clip", **cfg.to_dict()},
        "details": {
            "image size": cfg.image_size,
            "patch size": cfg.patch_size,
            "embedding": cfg.embed_dim,
            "activation": activation,
            "tokenizer": "copied" if tokenizer else _NO_TOKENIZER,
        },
        "build": lambda: CLIP(cfg, rngs=SHAPES_ONLY),
        "files": files,
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
