"""Model folders as models: one call from `qdgs port`'s output to a network that computes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, cast

import jax
import jax.numpy as jnp

from qdgs_jax.models.clip import CLIP, CLIPConfig
from qdgs_jax.models.iresnet import IResNet, IResNetConfig
from qdgs_jax.models.shape_classifier import ShapeClassifier, ShapeClassifierConfig
from qdgs_jax.models.stylegan2 import Generator, StyleGAN2Config
from qdgs_jax.models.vae import VAE, VAEConfig
from qdgs_jax.ports.errors import CheckpointError
from qdgs_jax.ports.mapping import SHAPES_ONLY, Model, fill_model
from qdgs_jax.ports.model_folder import load_model

_KINDS: Mapping[type, tuple[str, Any]] = {
    Generator: ("stylegan2", StyleGAN2Config),
    CLIP: ("clip", CLIPConfig),
    IResNet: ("adaface", IResNetConfig),
    VAE: ("vae", VAEConfig),
    ShapeClassifier: ("shape_classifier", ShapeClassifierConfig),
}


def load(folder: str | Path, model: type[Model], **options: Any) -> Model:
    """Load a model folder that `qdgs port` or a training script wrote.

    Args:
        folder: the folder.
        model: the class of the model: Generator (of stylegan2), CLIP, IResNet (AdaFace) or VAE.
        options: further arguments of the class, such as `remat=True` for a Generator.

    Returns:
        The model; its parameters are float32 whatever type they are stored in.

    Raises:
        CheckpointError: if the folder is no model, incomplete, damaged, or of another kind.
    """
    if model not in _KINDS:
        raise ValueError(f"model is {model}: give one of {[known.__name__ for known in _KINDS]}.")
    kind, settings = _KINDS[model]
    config, params = load_model(folder)
    if config.get("kind") != kind:
        raise CheckpointError(
            f"{folder} holds a model of kind {config.get('kind')!r}, not {kind!r}."
        )
    try:
        if model is ShapeClassifier:
            sizes = {name: config[name] for name in ("image_size", "hidden", "num_classes")}
            cfg = settings(channels=tuple(config["channels"]), **sizes)
        else:
            cfg = settings.from_dict(config)
    except ValueError as error:
        raise CheckpointError(f"{folder}: {error}") from None
    make = cast(Callable[..., Model], model)
    params = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float32), params)
    return fill_model(lambda: make(cfg, rngs=SHAPES_ONLY, **options), params)
