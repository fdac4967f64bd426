"""Weights that run files name: those in the package, and model folders.

Run files are checked with what stands here before JAX is imported, so models are imported late.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from qdgs_jax.ports.errors import CheckpointError

if TYPE_CHECKING:
    from qdgs_jax.domains.evaluation import Computation
    from qdgs_jax.domains.prompts import Tokenizer
    from qdgs_jax.domains.protocol import DomainSettings
    from qdgs_jax.models.clip import CLIP

EMBEDDED = "embedded:"  # prefix of the names of weights that the package carries
ASSETS = Path(__file__).parents[1] / "assets"


def checkpoint_folder(name: str) -> Path:
    """The folder that a run file means by `embedded:NAME` or a path.

    Raises:
        CheckpointError: if the package carries no weights of that name.
    """
    if not name.startswith(EMBEDDED):
        return Path(name)
    folder = ASSETS / name.removeprefix(EMBEDDED)
    if not (folder / "config.json").is_file():
        known = sorted(path.parent.name for path in ASSETS.glob("*/config.json"))
        raise CheckpointError(
            f"there are no weights {name!r}: known are {', '.join(EMBEDDED + k for k in known)}."
        )
    return folder


def fingerprints(domain: DomainSettings) -> dict[str, str]:
    """What tells a run's weights from others that may lie in their place later.

    Args:
        domain: the table [domain] of its run file.

    Returns:
        For "generator" and "clip" the SHA-256 of the model's settings, of the checksums of its
        parameters and of its tokenizer; nothing of what is no model folder, such as a generator of
        one's own.
    """
    found: dict[str, str] = {}
    for field in ("generator", "clip"):
        if field == "clip" or domain.kind != "external":
            digest = _fingerprint(checkpoint_folder(getattr(domain, field)))
            found |= {} if digest is None else {field: digest}
    return found


def _fingerprint(folder: Path) -> str | None:
    try:
        header = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        settings = {key: v for key, v in header["config"].items() if key != "assumed"}
        about = json.dumps([settings, header["parameters"]], sort_keys=True)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None  # whoever loads it says what is wrong
    digest = hashlib.sha256(about.encode())
    for name in ("tokenizer.json", "vocab.json", "merges.txt"):
        if (folder / name).is_file():
            digest.update((folder / name).read_bytes())
    return digest.hexdigest()


def load_clip(name: str, computation: Computation | None = None) -> tuple[CLIP, Tokenizer]:
    """A CLIP and its tokenizer, from a folder that `qdgs port clip` or a training script wrote.

    Args:
        name: `embedded:NAME` or a folder.
        computation: how its image tower computes; None for float32.

    Raises:
        CheckpointError: if the checkpoint is missing, damaged or has no tokenizer.
    """
    from qdgs_jax.domains.evaluation import Computation
    from qdgs_jax.models.clip import CLIP
    from qdgs_jax.ports.loading import load

    folder = checkpoint_folder(name)
    computation = computation or Computation()
    clip = load(folder, CLIP, dtype=computation.dtype, remat=computation.remat)
    return clip, load_tokenizer(folder)


def load_tokenizer(folder: Path) -> Tokenizer:
    """The tokenizer of a CLIP's folder.

    Raises:
        CheckpointError: if there is none.
    """
    with _without_advice():
        from transformers import CLIPTokenizerFast

    tokenizers = (("tokenizer.json",), ("vocab.json", "merges.txt"))
    if not any(all((folder / file).is_file() for file in files) for files in tokenizers):
        raise CheckpointError(
            f"{folder} has no tokenizer: put CLIP's tokenizer.json there, or both vocab.json and "
            "merges.txt."
        )
    tokenizer: Tokenizer = CLIPTokenizerFast.from_pretrained(str(folder), local_files_only=True)
    return tokenizer


@contextlib.contextmanager
def _without_advice() -> Iterator[None]:
    """Keep transformers from mentioning that PyTorch is missing: only its tokenizers are used."""
    name = "TRANSFORMERS_NO_ADVISORY_WARNINGS"
    before = os.environ.get(name)
    os.environ.setdefault(name, "1")
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
