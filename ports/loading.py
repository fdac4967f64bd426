"""Model folders as models: one call from `qdgs port`'s output to a network that computes."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, cast

import jax
import numpy as np

from qdgs_jax.ports.errors import CheckpointError
from qdgs_jax.ports.mapping import SHAPES_ONLY, Model, fill_model
from qdgs_jax.ports.model_folder import load_model
from qdgs_jax.ports.registry import kind_of


def load(folder: str | Path, model: type[Model], **options: Any) -> Model:
    """Load a model folder that `qdgs port` or a training script wrote.

    Args:
        folder: the folder.
        model: the class of the model: Generator (of stylegan2), CLIP, IResNet (AdaFace), VAE,
            Latents, ShapeClassifier or FaceRegressor.
        options: further arguments of the class, such as `remat=True` for a Generator.

    Returns:
        The model; its parameters are float32 whatever type they are stored in.

    Raises:
        CheckpointError: if the folder is no model, incomplete, damaged, or of another kind.
        ValueError: if folders hold no models of this class.
    """
    kind = kind_of(model)
    config, params = load_model(folder)
    if config.get("kind") != kind.name:
        raise CheckpointError(
            f"{folder} holds a model of kind {config.get('kind')!r}, not {kind.name!r}."
        )
    try:
        cfg = kind.read_config(config)
    except ValueError as error:
        raise CheckpointError(f"{folder}: {error}") from None
    if lacking := sorted(set(_names(dataclasses.asdict(cfg))) - set(_names(config)) - kind.later):
        raise CheckpointError(
            f"{Path(folder) / 'config.json'} lacks {', '.join(lacking)}, which parameters do not "
            "tell: put back the file that was written with them, or port the checkpoint again."
        )
    make = cast(Callable[..., Model], model)
    # NumPy casts and `device_put` places: otherwise JAX compiles a program for each shape.
    params = jax.device_put(jax.tree.map(lambda leaf: np.asarray(leaf, np.float32), params))
    return fill_model(lambda: make(cfg, rngs=SHAPES_ONLY, **options), params)


def _names(settings: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    """Names of settings, those in tables with dots."""
    for name, value in settings.items():
        if isinstance(value, Mapping):
            yield from _names(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}"
