"""StyleGAN2 generators: NVIDIA's network pickles and rosinality's state dicts.

NVIDIA's pickles (stylegan2-ada-pytorch, and stylegan3's StyleGAN2) hold trees of modules with their
attributes; the averaged generator `G_ema` is taken. The source code inside is never looked at.
Rosinality's files hold a state dict `g_ema`. Beside it lies the average code `latent_avg` where it
was converted from NVIDIA's; where rosinality's own training wrote it, the code is estimated. Files
from before noise was stored get noise images of a fixed seed, as the program makes them. Sizes
come from the shapes of the tensors; attributes tell what shapes do not: architecture, clamp,
learning-rate multiplier.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import re
from typing import Any

import numpy as np

from qdgs_jax.models.stylegan2 import (
    ARCHITECTURES,
    Generator,
    MappingNetwork,
    StyleGAN2Config,
    code_statistics,
)
from qdgs_jax.models.stylegan2.statistics import SAMPLES, mapped_codes
from qdgs_jax.ports.errors import CheckpointError, show
from qdgs_jax.ports.families.stylegan2_names import (
    NVIDIA_IGNORED,
    NVIDIA_RULES,
    RESAMPLE_FILTER,
    ROSINALITY_IGNORED,
    rosinality_rules,
)
from qdgs_jax.ports.mapping import SHAPES_ONLY, fill_model
from qdgs_jax.ports.params import Params, flatten, pending, unflatten
from qdgs_jax.ports.readers.allowed import Record
from qdgs_jax.ports.readers.tensors import Tensor
from qdgs_jax.ports.readers.values import Data
from qdgs_jax.ports.registry import STATISTICS
from qdgs_jax.ports.source import Content, Source, shape_of
from qdgs_jax.ports.weights import Found, Tensors, find_weights

_KNOWN_BY = ("style.1.weight", "input.input", "to_rgb1.bias")
_LOOKED_FOR = (
    "a StyleGAN2: the file holds neither G_ema (an NVIDIA pickle) nor g_ema (rosinality's "
    "stylegan2-pytorch)"
)
_FILTERS = r".*(resample_filter|blur\.kernel|upsample\.kernel)"
_DEEPEST = 64  # layers of a mapping network; published ones have 2 or 8
_WIDEST = 4096  # numbers in z or a code for which codes are sampled
_LR_MULTIPLIER = 0.01  # of the mapping network, in all published training programs


def recognise(content: Content) -> Source:
    """Recognise a StyleGAN2 generator in an opened checkpoint.

    Raises:
        CheckpointError: if it is another model, or a StyleGAN2 that computes something else.
    """
    root = content.root
    try:
        if type(root) is dict and type(root.get("G_ema")) is Record:
            return _nvidia(root["G_ema"])
        return _rosinality(find_weights(root, _LOOKED_FOR, _KNOWN_BY, ("g_ema",)))
    except CheckpointError:
        raise
    except ValueError as error:  # of the model's config
        raise CheckpointError(str(error)) from None


def _nvidia(generator: Record) -> Source:
    tensors = _module_tensors(generator)
    if not any(name.startswith("synthesis.b4.") for name in tensors):
        raise CheckpointError(
            f"G_ema is a {show(generator.class_name)} without synthesis.b4: only StyleGAN2 "
            "generators are read, StyleGAN3's configurations t and r are not."
        )
    _check_filters(tensors, gain=1)
    mapping = _submodule(generator, "mapping")
    resolution = _integer(generator, "img_resolution")
    last = _submodule(generator, "synthesis", f"b{resolution}")
    conv = _submodule(last, "conv1")
    multiplier = _optional_number(_submodule(mapping, "fc0"), "bias_gain")
    depth = _mapping_layers(tensors, r"mapping\.fc\d+\.weight")
    if _integer(mapping, "num_layers") != depth:
        raise CheckpointError(
            f"num_layers of the network pickle is {mapping.state['num_layers']}, but the mapping "
            f"network has {depth} layers."
        )
    cfg = StyleGAN2Config(
        resolution=resolution,
        channels=_channels(tensors, resolution, "synthesis.b{}.conv1.weight"),
        z_dim=_integer(generator, "z_dim"),
        c_dim=_integer(generator, "c_dim"),
        w_dim=_integer(generator, "w_dim"),
        img_channels=_integer(generator, "img_channels"),
        architecture=_architecture(last),
        use_noise=f"synthesis.b{resolution}.conv1.noise_const" in tensors,
        conv_clamp=_optional_number(conv, "conv_clamp"),
        mapping_layers=depth,
        mapping_dim=shape_of(tensors, "mapping.fc0.bias", 1)[0] if depth > 1 else None,
        embed_dim=_embedding(tensors),
        mapping_lr=multiplier or _LR_MULTIPLIER,
    )
    _compare_layers(generator, cfg, multiplier)
    source = _source("an NVIDIA network pickle", cfg, tensors, NVIDIA_RULES, NVIDIA_IGNORED)
    if multiplier is None:
        told = f"{_LR_MULTIPLIER}, for the mapping network's layers have no bias_gain"
        source = dataclasses.replace(source, assumed={"learning-rate multiplier": told})
    return source


def _compare_layers(generator: Record, cfg: StyleGAN2Config, multiplier: float | None) -> None:
    """Refuse a generator whose blocks and layers do not compute alike, as the model's do.

    Raises:
        CheckpointError: if one says that it has another architecture, clamp, activation or
            learning-rate multiplier.
    """
    for size in cfg.resolutions:
        path, block = f"synthesis.b{size}", _submodule(generator, "synthesis", f"b{size}")
        _compare(path, "architecture", _architecture(block), cfg.architecture)
        layers = [name for name in ("conv0", "conv1", "torgb") if name in _group(block, "_modules")]
        for name in layers:
            layer = _submodule(block, name)
            _compare(f"{path}.{name}", "activation", layer.state.get("activation"), "lrelu", None)
            if name == "conv1" or "conv_clamp" in layer.state:
                clamp = _optional_number(layer, "conv_clamp")
                _compare(f"{path}.{name}", "conv_clamp", clamp, cfg.conv_clamp)
    for number in range(cfg.mapping_layers):
        path, layer = f"mapping.fc{number}", _submodule(generator, "mapping", f"fc{number}")
        _compare(path, "activation", layer.state.get("activation"), "lrelu", None)
        if multiplier is not None:
            _compare(path, "bias_gain", _optional_number(layer, "bias_gain"), multiplier, None)


def _compare(path: str, name: str, found: Data, *wanted: Data) -> None:
    """Raise unless a module's setting is one of the wanted, the first of which is named."""
    if found not in wanted:
        raise CheckpointError(
            f"{name} of {path} is {show(found)}, not {show(wanted[0])}: only generators whose "
            "blocks and layers compute alike are read."
        )


def _rosinality(found: Found) -> Source:
    tensors = found.tensors
    _check_filters(tensors, gain=4)
    levels = sum(re.fullmatch(r"to_rgbs\.\d+\.bias", name) is not None for name in tensors)
    if levels > 8:
        raise CheckpointError(f"g_ema has {levels} RGB layers, more than a 1024 x 1024 generator.")
    resolution = 4 * 2**levels
    layer = "convs.{}.conv.weight"
    names = ["conv1.conv.weight", *(layer.format(2 * i + 1) for i in range(levels))]
    w_dim, z_dim = shape_of(tensors, "style.1.weight", 2)
    cfg = StyleGAN2Config(
        resolution=resolution,
        channels=tuple(shape_of(tensors, name, 5)[1] for name in names),
        z_dim=z_dim,
        w_dim=w_dim,
        mapping_layers=_mapping_layers(tensors, r"style\.\d+\.weight"),
    )
    assumed = {}
    average = found.beside("latent_avg")
    if average is None:
        average = _estimated_average(cfg, tensors)
        assumed["average code"] = f"estimated from {SAMPLES:,} latents, the file holds none"
    tensors = {**tensors, "latent_avg": average}
    if not any(name.startswith("noises.") for name in tensors):
        tensors |= _drawn_noise(cfg)
        assumed["noise images"] = "drawn from a fixed seed, for the file is older than stored noise"
    rules, ignored = rosinality_rules(cfg, average.shape), ROSINALITY_IGNORED
    source = _source("a rosinality state dict", cfg, tensors, rules, ignored)
    details = {**source.details, **assumed, **found.details}
    return dataclasses.replace(source, details=details, assumed=assumed)


def _drawn_noise(cfg: StyleGAN2Config) -> Tensors:
    """Noise images as the original program makes them for a new model: standard normal."""
    rng = np.random.default_rng(0)
    sides = [4, *(side for side in cfg.resolutions[1:] for _ in range(2))]
    return {
        f"noises.noise_{n}": Tensor.of_array(rng.standard_normal((1, 1, side, side), np.float32))
        for n, side in enumerate(sides)
    }


def _estimated_average(cfg: StyleGAN2Config, tensors: Tensors) -> Tensor:
    """Mean code of seeded latents, as a tensor beside those of the file."""
    if max(cfg.z_dim, cfg.w_dim) > _WIDEST:
        raise CheckpointError(
            f"latent_avg is missing beside g_ema, and codes of {cfg.w_dim} numbers from z of "
            f"{cfg.z_dim} are too many to estimate it: at most {_WIDEST}."
        )
    params: dict[str, Any] = {"w_avg": np.zeros(cfg.w_dim, np.float32)}
    for i in range(cfg.mapping_layers):
        params[f"fc{i}"] = {
            "kernel": _numbers(tensors, f"style.{i + 1}.weight", 2).T,
            "bias": _numbers(tensors, f"style.{i + 1}.bias", 1),
        }
    network = _mapping(cfg, params)
    average = mapped_codes(network).mean(axis=0, dtype=np.float64)
    return Tensor.of_array(average.astype(np.float32))


def _measure(cfg: StyleGAN2Config, params: Params) -> dict[str, Any]:
    """Statistics of the codes for our config.json; none where a search could not use them."""
    widths = (cfg.z_dim, cfg.w_dim, cfg.mapping_dim or 0)
    if cfg.c_dim or max(widths) > _WIDEST:
        return {}
    leaves = {name: pending(leaf).make() for name, leaf in flatten(params["mapping"])}
    network = _mapping(cfg, unflatten({n: x.astype(np.float32) for n, x in leaves.items()}))
    try:
        return {STATISTICS: code_statistics(network, cfg.num_ws).to_dict()}
    except ValueError:  # codes that do not vary; the generator draws one image
        return {}


def _mapping(cfg: StyleGAN2Config, params: Params) -> MappingNetwork:
    """The mapping network alone, which repeats a code as seldom as can be."""
    small = dataclasses.replace(cfg, resolution=4, channels=cfg.channels[:1])
    return fill_model(lambda: MappingNetwork(small, rngs=SHAPES_ONLY), params)


def _numbers(tensors: Tensors, name: str, rank: int) -> np.ndarray:
    shape_of(tensors, name, rank)
    return tensors[name].numpy().astype(np.float32)


def _source(
    layout: str,
    cfg: StyleGAN2Config,
    tensors: Tensors,
    rules: tuple[Any, ...],
    ignored: tuple[str, ...],
) -> Source:
    return Source(
        layout=layout,
        config={"kind": "stylegan2", **cfg.to_dict()},
        details={
            "resolution": cfg.resolution,
            "channels": ", ".join(map(str, cfg.channels)),
            "z, w": f"{cfg.z_dim}, {cfg.w_dim}",
            "classes": cfg.c_dim,
            "architecture": cfg.architecture,
        },
        build=lambda: Generator(cfg, rngs=SHAPES_ONLY),
        tensors=tensors,
        rules=rules,
        ignored=ignored,
        measure=functools.partial(_measure, cfg),
    )


def _module_tensors(module: Data, prefix: str = "") -> Tensors:
    """Parameters and buffers of a tree of pickled modules, named as in a state dict."""
    out: Tensors = {}
    for group in ("_parameters", "_buffers"):
        for name, tensor in _group(module, group).items():
            if tensor is not None and type(tensor) is not Tensor:
                raise CheckpointError(f"{show(prefix + name)} is {show(tensor)}, not a tensor.")
            if tensor is not None:
                out[prefix + name] = tensor
    for name, child in _group(module, "_modules").items():
        out |= _module_tensors(child, f"{prefix}{name}.")
    return out


def _group(module: Data, group: str) -> dict[str, Data]:
    """One of the dictionaries that PyTorch modules keep their content in."""
    found = module.state.get(group, {}) if type(module) is Record else None
    if type(found) is not dict or not all(type(name) is str for name in found):
        raise CheckpointError(f"The network pickle has {show(found)} for {group} of a module.")
    return found


def _submodule(module: Record, *path: str) -> Record:
    for name in path:
        child = _group(module, "_modules").get(name)
        if type(child) is not Record:
            raise CheckpointError(f"The network pickle has no module {name}.")
        module = child
    return module


def _integer(module: Record, key: str) -> int:
    value = module.state.get(key)
    if type(value) is not int or not 0 <= value < 2**20:
        raise CheckpointError(f"{key} of the network pickle is {show(value)}.")
    return value


def _optional_number(module: Record, key: str) -> float | None:
    value = module.state.get(key)
    if value is None:
        return None
    if type(value) not in (int, float) or not 0 < value < math.inf:
        raise CheckpointError(f"{key} of the network pickle is {show(value)}.")
    return float(value)


def _architecture(block: Record) -> str:
    value = block.state.get("architecture", "skip")
    if type(value) is not str or value not in ARCHITECTURES:
        raise CheckpointError(
            f"architecture of the network pickle is {show(value)}: known are "
            f"{', '.join(ARCHITECTURES)}."
        )
    return value


def _mapping_layers(tensors: Tensors, pattern: str) -> int:
    layers = sum(re.fullmatch(pattern, name) is not None for name in tensors)
    if not 0 < layers <= _DEEPEST:
        raise CheckpointError(
            f"The mapping network has {layers} layers; from 1 to {_DEEPEST} are read."
        )
    return layers


def _channels(tensors: Tensors, resolution: int, name: str) -> tuple[int, ...]:
    if resolution not in (4, 8, 16, 32, 64, 128, 256, 512, 1024):
        raise CheckpointError(f"img_resolution is {resolution}, not a power of two up to 1024.")
    sizes = [2**i for i in range(2, resolution.bit_length())]
    return tuple(shape_of(tensors, name.format(size), 4)[0] for size in sizes)


def _embedding(tensors: Tensors) -> int | None:
    """Width of the class embedding, if there is one."""
    name = "mapping.embed.bias"
    return shape_of(tensors, name, 1)[0] if name in tensors else None


def _check_filters(tensors: Tensors, gain: float) -> None:
    """Refuse a generator that resamples with another filter than the model's."""
    for name, tensor in tensors.items():
        if re.fullmatch(_FILTERS, name):
            found = tensor.numpy()
            if found.shape != (4, 4) or np.abs(found - gain * RESAMPLE_FILTER).max() > 1e-6:
                raise CheckpointError(f"{show(name)} is not the filter [1, 3, 3, 1].")
