"""A small ported StyleGAN2, a small CLIP, and a run file for both, for the tests of faces."""

from __future__ import annotations

import shutil
from pathlib import Path

import checkpoint_formats as formats
from flax import nnx
from synthetic import load_manifest

from qdgs_jax import ports
from qdgs_jax.domains.weights import ASSETS
from qdgs_jax.models.clip import CLIP, CLIPConfig, TowerConfig

RUN = (ASSETS / "faces.toml").read_text(encoding="utf-8")


def port_generator(folder: Path, size: int = 8) -> Path:
    """The folder of a generator of made-up weights, 8 or 32 pixels wide, from NVIDIA's format."""
    manifest = load_manifest("stylegan2", "stylegan2_small")
    if size == 8:
        manifest = formats.without_classes(formats.tiny_stylegan2())
    (folder / f"{size}.pkl").write_bytes(formats.nvidia_pkl(manifest))
    ports.convert("stylegan2", folder / f"{size}.pkl", folder / f"generator-{size}")
    return folder / f"generator-{size}"


def write_clip(folder: Path) -> Path:
    """The folder of a CLIP of 8 x 8 pixels with random weights and the embedded tokenizer."""
    tower = TowerConfig(width=16, layers=1, heads=2, mlp_width=16)
    cfg = CLIPConfig(tower, tower, 8, 4, 1024, 40, 16, eos_token_id=1)
    params = nnx.to_pure_dict(nnx.state(nnx.jit(lambda: CLIP(cfg, rngs=nnx.Rngs(0)))()))
    ports.save_model(folder / "clip", {"kind": "clip", **cfg.to_dict()}, params)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copyfile(ASSETS / "shapes-clip" / name, folder / "clip" / name)
    return folder / "clip"
