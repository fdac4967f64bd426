"""Classifiers: trained, loaded again, and what they are trained with.

`load_classifier(folder)` loads what `qdgs train DATA` wrote.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from qdgs_jax.train.classify import Classifier, load_classifier, train_classifier

__all__ = ["Classifier", "load_classifier", "train_classifier"]


def __getattr__(name: str) -> Any:
    """Import what a classifier needs when it is first asked for; the training loop needs less."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.classify"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
