"""Synthetic weights of the true names and shapes, regenerated from a manifest.

A manifest (tests/data/*/*.json) lists every tensor of a published model's state dict with the
recipe of its numbers, so that a few kilobytes stand for a checkpoint of hundreds of megabytes. A
tensor is drawn from `numpy.random.default_rng([seed, crc32(name)])` and does not depend on the
others. The reference arrays beside a manifest (.npz) are what the original PyTorch programs
computed, in float64, from the same weights.
"""

from __future__ import annotations

import dataclasses
import json
import zlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import jax
import numpy as np
from flax import nnx
from numpy.typing import NDArray

from qdgs_jax.ports.mapping import Rule, parameter_shapes, plan_rules

DATA = Path(__file__).resolve().parent / "data"

Array = NDArray[Any]
Manifest = Mapping[str, Any]
Model = TypeVar("Model", bound=nnx.Module)


def load_manifest(family: str, name: str) -> dict[str, Any]:
    """Manifest `tests/data/<family>/<name>.json`."""
    manifest: dict[str, Any] = json.loads((DATA / family / f"{name}.json").read_text())
    return manifest


def load_reference(family: str, name: str) -> dict[str, Array]:
    """Reference arrays `tests/data/<family>/<name>.npz`."""
    with np.load(DATA / family / f"{name}.npz") as arrays:
        return dict(arrays)


def draw(manifest: Manifest, tensor: Mapping[str, Any]) -> Array:
    """Numbers of one entry of `manifest["tensors"]`, or of any recipe with a name and a shape.

    Normal unless a `value` tag says otherwise. dtype float16 rounds to half precision and returns
    float32, so that a file that stores halves loses nothing.
    """
    name, shape = tensor["name"], tuple(tensor["shape"])
    dtype, value = np.dtype(tensor.get("dtype", "float32")), tensor.get("value", "normal")
    rng = np.random.default_rng([manifest["seed"], zlib.crc32(name.encode())])
    match value:
        case "normal":
            unit = np.asarray(rng.standard_normal(shape, dtype=np.float32))
            array = unit * np.float32(tensor["std"]) + np.float32(tensor["mean"])
        case "uniform":
            low, high = np.float32(tensor["low"]), np.float32(tensor["high"])
            array = np.asarray(rng.random(shape, dtype=np.float32)) * (high - low) + low
        case "resample_filter":
            binomial = np.array([1, 3, 3, 1], np.float32)
            array = np.outer(binomial, binomial) / 64
        case "arange":
            array = np.arange(int(np.prod(shape))).reshape(shape)
        case "zeros":
            array = np.zeros(shape)
        case "ones":
            array = np.ones(shape)
        case _:
            raise ValueError(f"{name}: unknown value tag {value!r}")
    array = np.asarray(array).astype(dtype)
    if array.shape != shape:
        raise ValueError(f"{name}: drawn as {array.shape}, declared as {shape}")
    return array.astype(np.float32) if dtype == np.float16 else array


def weights(manifest: Manifest) -> dict[str, Array]:
    """Every tensor by its original name, in the order of the state dict."""
    return {tensor["name"]: draw(manifest, tensor) for tensor in manifest["tensors"]}


def make_input(manifest: Manifest, name: str) -> Array:
    """An input that is stored as a recipe under `inputs`, for it would be too large as an array."""
    return draw(manifest, {**manifest["inputs"][name], "name": f"input:{name}"})


def project(images: Array, manifest: Manifest, count: int = 64) -> Array:
    """Random projections of images [N, C, H, W] that stand in for them: [N, count]."""
    flat = np.asarray(images, np.float64).reshape(len(images), -1)
    recipe = {"shape": [flat.shape[1]], "mean": 0, "std": 1}
    columns = [
        flat @ draw(manifest, {**recipe, "name": f"projection:{k}"}).astype(np.float64)
        for k in range(count)
    ]
    return np.stack(columns, axis=1) / np.sqrt(flat.shape[1])


def check(manifest: Manifest, arrays: Mapping[str, Array]) -> None:
    """Raise if numpy drew other numbers than those that the reference was computed from."""
    wanted = manifest["checksum"]
    found = {
        "tensors": len(arrays),
        "elements": sum(array.size for array in arrays.values()),
        "sum": sum(float(array.sum(dtype=np.float64)) for array in arrays.values()),
        "abs_sum": sum(float(np.abs(array).sum(dtype=np.float64)) for array in arrays.values()),
    }
    slack = 1e-7 * max(wanted["abs_sum"], 1.0)
    if any(
        abs(found[key] - wanted[key]) > (slack if "sum" in key else 0)
        for key in ("tensors", "elements", "sum", "abs_sum")
    ):
        raise ValueError(f"{manifest['name']}: weights differ: {found}, expected {wanted}")


def error(found: Any, wanted: Array) -> float:
    """Largest difference over the root mean square of the reference; NaN counts as infinite."""
    found, wanted = np.asarray(found, np.float64), np.asarray(wanted, np.float64)
    if found.shape != wanted.shape:
        raise ValueError(f"shape {found.shape}, expected {wanted.shape}")
    worst = np.max(np.abs(found - wanted)) / np.sqrt(np.mean(wanted**2))
    return float(worst) if np.isfinite(worst) else float("inf")


@dataclasses.dataclass
class Drawn:
    """A drawn array as the mapping tables take tensors."""

    array: Array

    @property
    def shape(self) -> tuple[int, ...]:
        return self.array.shape

    @property
    def dtype(self) -> np.dtype[Any]:
        return self.array.dtype

    def numpy(self) -> Array:
        return self.array


def load(
    build: Callable[[], Model],
    arrays: Mapping[str, Array],
    rules: Sequence[Rule],
    ignored: Sequence[str],
) -> Model:
    """Model of `build` with the arrays of a state dict for its parameters."""
    tensors = {name: Drawn(array) for name, array in arrays.items()}
    planned = plan_rules(tensors, rules, ignored, parameter_shapes(build))
    graph, state = nnx.split(nnx.eval_shape(build))
    nnx.replace_by_pure_dict(state, jax.tree.map(lambda leaf: leaf.make(), planned.params))
    return nnx.merge(graph, state)
