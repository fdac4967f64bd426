"""Sizes of networks, from model folders, files of settings or published names: never weights.

A job can be sized before there is a checkpoint: what a run file calls its generator and its CLIP
may be replaced by the name of a published model or by a file of settings.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from qdgs_jax.domains.faces import read_statistics
from qdgs_jax.domains.weights import EMBEDDED, checkpoint_folder
from qdgs_jax.models.clip import CLIPConfig, TowerConfig
from qdgs_jax.models.stylegan2 import StyleGAN2Config
from qdgs_jax.models.vae import VAEConfig
from qdgs_jax.ports.errors import CheckpointError
from qdgs_jax.ports.model_folder import load_config
from qdgs_jax.ports.registry import find_kind

_TEXTS: Mapping[str, Any] = {"vocab_size": 49408, "context_length": 77}
_TEXT_512, _TEXT_768 = TowerConfig(512, 12, 8, 2048), TowerConfig(768, 12, 12, 3072)
_VIT_B, _VIT_L = TowerConfig(768, 12, 12, 3072), TowerConfig(1024, 24, 16, 4096)

# Published models by name: OpenAI's CLIPs (Radford et al. 2021, table 20), and StyleGAN2 for FFHQ
# with the channels of its authors' configs (Karras et al. 2020; at 256 pixels half of them).
SIZES: Mapping[str, Mapping[str, Any]] = {
    "clip": {
        "vit-b-32": CLIPConfig(_VIT_B, _TEXT_512, 224, 32, embed_dim=512, **_TEXTS),
        "vit-b-16": CLIPConfig(_VIT_B, _TEXT_512, 224, 16, embed_dim=512, **_TEXTS),
        "vit-l-14": CLIPConfig(_VIT_L, _TEXT_768, 224, 14, embed_dim=768, **_TEXTS),
        "vit-l-14-336": CLIPConfig(_VIT_L, _TEXT_768, 336, 14, embed_dim=768, **_TEXTS),
    },
    "stylegan2": {
        "ffhq-256": StyleGAN2Config.from_base(256, channel_base=16384, conv_clamp=256.0),
        "ffhq-512": StyleGAN2Config.from_base(512, conv_clamp=256.0),
        "ffhq-1024": StyleGAN2Config.from_base(1024, conv_clamp=256.0),
    },
    "vae": {"shapes-128": VAEConfig()},
}


def read_sizes(kind: str, name: str) -> Any:
    """The settings of a network.

    Args:
        kind: "clip", "stylegan2" or "vae".
        name: `embedded:NAME` or a model folder, of which only config.json is read; a file of
            settings in JSON, of ours or, for a CLIP, of Hugging Face's; or a name in `SIZES`.

    Returns:
        A `CLIPConfig`, `StyleGAN2Config` or `VAEConfig`.

    Raises:
        CheckpointError: there is no such folder or file, or it is that of another model.
    """
    if name in SIZES[kind]:
        return SIZES[kind][name]
    place = checkpoint_folder(name)
    if place.suffix == ".json":
        fields: Mapping[str, Any] = _settings_file(place)
        if kind == "clip" and fields.get("model_type") == "clip":
            fields = _of_hugging_face(place, fields)
        if fields.get("kind", kind) != kind:
            raise CheckpointError(f"{place} describes a {fields['kind']!r}, not a {kind!r}.")
    else:
        fields = _folder(kind, name, place)
    try:
        cfg = find_kind(kind).read_config(fields)
    except (TypeError, ValueError) as error:
        raise CheckpointError(f"{place}: {error}") from None
    if kind == "stylegan2" and place.suffix != ".json":
        read_statistics(place, cfg)
    return cfg


def _folder(kind: str, name: str, folder: Path) -> Mapping[str, Any]:
    """Settings of a model folder."""
    try:
        fields = load_config(folder)
    except CheckpointError as error:
        if name.startswith(EMBEDDED) or folder.exists():
            raise
        known = ", ".join(SIZES[kind])
        raise CheckpointError(
            f"{error} To size a job without it, name a file of settings in JSON or one of {known}."
        ) from None
    if fields.get("kind") != kind:
        raise CheckpointError(
            f"{folder} holds a model of kind {fields.get('kind')!r}, not {kind!r}."
        )
    return fields


def _settings_file(file: Path) -> dict[str, Any]:
    """Settings in a file: as in a model folder, or these alone."""
    try:
        fields = json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise CheckpointError(f"{file} cannot be read ({error.strerror}).") from None
    except ValueError as error:
        raise CheckpointError(f"{file} is not valid JSON: {error}.") from None
    if isinstance(fields, dict) and isinstance(fields.get("config"), dict):
        fields = fields["config"]
    if not isinstance(fields, dict):
        raise CheckpointError(f"{file} holds no table of settings.")
    return fields


def _of_hugging_face(file: Path, fields: Mapping[str, Any]) -> dict[str, Any]:
    """Settings of ours from Hugging Face's config.json of a CLIP."""
    towers: dict[str, Any] = {}
    found: dict[str, Mapping[str, Any]] = {}
    try:
        for name in ("vision", "text"):
            table = found[name] = fields[f"{name}_config"]
            towers[name] = {
                "width": table["hidden_size"],
                "layers": table["num_hidden_layers"],
                "heads": table["num_attention_heads"],
                "mlp_width": table["intermediate_size"],
            }
        return {
            **towers,
            "image_size": found["vision"]["image_size"],
            "patch_size": found["vision"]["patch_size"],
            "vocab_size": found["text"].get("vocab_size", _TEXTS["vocab_size"]),
            "context_length": found["text"].get("max_position_embeddings", 77),
            "embed_dim": fields["projection_dim"],
        }
    except (KeyError, TypeError) as error:
        raise CheckpointError(f"{file} lacks {error} of a CLIP's settings.") from None
