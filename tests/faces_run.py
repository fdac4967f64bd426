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


def port_generator(folder: Path, size: int = 16) -> Path:
    """The folder of a generator of made-up weights, 16 or 32 pixels wide, from NVIDIA's format."""
    name = {16: "stylegan2_cond", 32: "stylegan2_small"}[size]
    manifest = formats.without_classes(load_manifest("stylegan2", name))
    (folder / f"{name}.pkl").write_bytes(formats.nvidia_pkl(manifest))
    ports.convert("stylegan2", folder / f"{name}.pkl", folder / f"generator-{size}")
    return folder / f"generator-{size}"


def write_clip(folder: Path) -> Path:
    """The folder of a CLIP of 16 x 16 pixels with random weights and the embedded tokenizer."""
    tower = TowerConfig(width=32, layers=1, heads=2, mlp_width=32)
    cfg = CLIPConfig(tower, tower, 16, 8, 1024, 40, 16, eos_token_id=1)
    params = nnx.to_pure_dict(nnx.state(CLIP(cfg, rngs=nnx.Rngs(0))))
    ports.save_model(folder / "clip", {"kind": "clip", **cfg.to_dict()}, params)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copyfile(ASSETS / "shapes-clip" / name, folder / "clip" / name)
    return folder / "clip"
