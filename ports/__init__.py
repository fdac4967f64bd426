"""Foreign checkpoints in, Orbax checkpoints out; needs neither PyTorch nor a network."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from qdgs_jax.ports.conversion import PortSummary, TensorInfo, convert, describe
    from qdgs_jax.ports.errors import CheckpointError
    from qdgs_jax.ports.loading import load
    from qdgs_jax.ports.model_folder import load_config, load_model, save_model
    from qdgs_jax.ports.readers.torch_file import read_checkpoint

__all__ = [
    "CheckpointError",
    "PortSummary",
    "TensorInfo",
    "convert",
    "describe",
    "load",
    "load_config",
    "load_model",
    "read_checkpoint",
    "save_model",
]

_HOMES = {
    "CheckpointError": "errors",
    "PortSummary": "conversion",
    "TensorInfo": "conversion",
    "convert": "conversion",
    "describe": "conversion",
    "load": "loading",
    "load_config": "model_folder",
    "load_model": "model_folder",
    "read_checkpoint": "readers.torch_file",
    "save_model": "model_folder",
}


def __getattr__(name: str) -> Any:
    """Import the public names on first use: importing the models behind them takes seconds."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
