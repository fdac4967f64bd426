"""Names of StyleGAN2 generators' tensors: NVIDIA's networks and rosinality's stylegan2-pytorch.

Both hold the same numbers; rosinality's state dict counts layers through and adds unit axes, and
its average code stands beside it in the file. Tables are for `mapping.plan_rules`.

The resampling filters are ignored because the model has [1, 3, 3, 1] built in; a reader compares
them with `RESAMPLE_FILTER` first (rosinality's hold 4 times as much, the gain of upsampling).
"""

from __future__ import annotations

import numpy as np

from qdgs_jax.models.stylegan2 import StyleGAN2Config
from qdgs_jax.ports.mapping import Regroup, Rule

RESAMPLE_FILTER = np.outer([1, 3, 3, 1], [1, 3, 3, 1]).astype(np.float32) / 64

NVIDIA_RULES: tuple[Rule, ...] = (
    (r"mapping\.(embed|fc\d+)\.weight", r"mapping.\1.kernel", (1, 0)),
    (r"mapping\.(embed|fc\d+)\.bias", r"mapping.\1.bias", None),
    (r"mapping\.w_avg", "mapping.w_avg", None),
    (r"synthesis\.b4\.const", "synthesis.b4.const", (1, 2, 0)),
    (r"synthesis\.(b\d+\.\w+)\.weight", r"synthesis.\1.kernel", (2, 3, 1, 0)),  # OIHW to HWIO
    (r"synthesis\.(b\d+\.\w+)\.affine\.weight", r"synthesis.\1.affine.kernel", (1, 0)),
    (r"synthesis\.(b\d+\.\w+(?:\.affine)?)\.bias", r"synthesis.\1.bias", None),
    (r"synthesis\.(b\d+\.conv[01]\.noise_(?:const|strength))", r"synthesis.\1", None),
)
NVIDIA_IGNORED = (r"synthesis\.b\d+(\.\w+)?\.resample_filter",)

ROSINALITY_IGNORED = (r"convs\.\d+\.conv\.blur\.kernel", r"to_rgbs\.\d+\.upsample\.kernel")


def rosinality_rules(cfg: StyleGAN2Config, average: tuple[int, ...]) -> tuple[Rule, ...]:
    """List the rules for rosinality's `g_ema` with `latent_avg` beside it, of shape `average`.

    Layer n is conv1 of block 4 for n = 0, then conv0 and conv1 of each further block.
    """
    rules: list[Rule] = [
        (r"latent_avg", "mapping.w_avg", _without_unit_axes(cfg.w_dim, average)),
        (r"input\.input", "synthesis.b4.const", _drop_first(cfg.channels[0], 4, 4, axes=(1, 2, 0))),
    ]
    for i in range(cfg.mapping_layers):  # style.0 normalises and holds nothing
        rules.append((rf"style\.{i + 1}\.weight", f"mapping.fc{i}.kernel", (1, 0)))
        rules.append((rf"style\.{i + 1}\.bias", f"mapping.fc{i}.bias", None))
    for level, resolution in enumerate(cfg.resolutions):
        c_out, block = cfg.channels[level], f"synthesis.b{resolution}"
        c_in = cfg.channels[max(level - 1, 0)]
        if level:
            rules += _layer(2 * level - 1, f"{block}.conv0", c_in, c_out, resolution)
        rules += _layer(2 * level, f"{block}.conv1", c_out, c_out, resolution)
        head = rf"to_rgbs\.{level - 1}" if level else "to_rgb1"
        rules += _modulated(head, f"{block}.torgb", c_out, cfg.img_channels, size=1)
        bias = Regroup((1, cfg.img_channels, 1, 1), (cfg.img_channels,), (0,))
        rules.append((rf"{head}\.bias", f"{block}.torgb.bias", bias))
    return tuple(rules)


def _layer(n: int, target: str, c_in: int, c_out: int, resolution: int) -> list[Rule]:
    source = rf"convs\.{n - 1}" if n else "conv1"
    noise = _drop_first(1, resolution, resolution, axes=(0, 1, 2))
    return [
        *_modulated(source, target, c_in, c_out, size=3),
        (rf"{source}\.activate\.bias", f"{target}.bias", None),
        (rf"{source}\.noise\.weight", f"{target}.noise_strength", Regroup((1,), (), ())),
        (rf"noises\.noise_{n}", f"{target}.noise_const", noise),
    ]


def _modulated(source: str, target: str, c_in: int, c_out: int, size: int) -> list[Rule]:
    weight = _drop_first(c_out, c_in, size, size, axes=(2, 3, 1, 0))
    return [
        (rf"{source}\.conv\.weight", f"{target}.kernel", weight),
        (rf"{source}\.conv\.modulation\.weight", f"{target}.affine.kernel", (1, 0)),
        (rf"{source}\.conv\.modulation\.bias", f"{target}.affine.bias", None),
    ]


def _without_unit_axes(width: int, found: tuple[int, ...]) -> Regroup:
    """Take a code of shape [w_dim], [1, w_dim] and so on."""
    return Regroup((*(1 for _ in found[1:]), width), (width,), (0,))


def _drop_first(*shape: int, axes: tuple[int, ...]) -> Regroup:
    """Remove a leading unit axis, then permute."""
    return Regroup((1, *shape), shape, axes)
