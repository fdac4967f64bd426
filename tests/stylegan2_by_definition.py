"""StyleGAN2 synthesis by its definition, in float64 and without a thought for speed.

One kernel per sample, modulated and demodulated as in Karras et al. (2020, arXiv:1912.04958,
equations 1 to 3), zeros inserted pixel by pixel. Weights carry NVIDIA's names and layout. The tests
check it against the reference data of the `skip` architecture, and then the model against it where
there is no reference data.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
BINOMIAL = np.array([1.0, 3.0, 3.0, 1.0]) / 8


def nhwc(images: NDArray[Any]) -> NDArray[Any]:
    """Images [B, C, H, W] with channels last."""
    return images.transpose(0, 2, 3, 1)


def convolve_true(x: Array, kernel: Array) -> Array:
    """Convolution [C, H, W] * [O, C, k, k] with all of its H + k - 1 outputs."""
    size = kernel.shape[-1]
    y = np.zeros((len(kernel), x.shape[1] + size - 1, x.shape[2] + size - 1))
    for a in range(size):
        for b in range(size):
            y[:, a : a + x.shape[1], b : b + x.shape[2]] += np.einsum(
                "oc,chw->ohw", kernel[:, :, a, b], x
            )
    return y


def insert_zeros(x: Array) -> Array:
    """[C, H, W] -> [C, 2H - 1, 2W - 1]."""
    y = np.zeros((x.shape[0], 2 * x.shape[1] - 1, 2 * x.shape[2] - 1))
    y[:, ::2, ::2] = x
    return y


def smooth(x: Array) -> Array:
    """Each channel convolved with the filter, all H + 3 outputs; gain 4 for inserted zeros."""
    filter_ = 4 * np.outer(BINOMIAL, BINOMIAL)
    return np.concatenate([convolve_true(channel[None], filter_[None, None]) for channel in x])


def upsample(x: Array) -> Array:
    """[C, H, W] -> [C, 2H, 2W]."""
    return smooth(insert_zeros(x))[:, 1:-1, 1:-1]


def convolve_up(x: Array, kernel: Array) -> Array:
    """Zeros inserted, convolved with a 3x3 kernel, smoothed: [C, H, W] -> [O, 2H, 2W]."""
    return smooth(convolve_true(insert_zeros(x), kernel))[:, 2:-2, 2:-2]


class Synthesis:
    """Synthesis network over NVIDIA's tensors; one sample at a time."""

    def __init__(
        self, weights: Mapping[str, NDArray[np.float32]], architecture: str, clamp: float | None
    ) -> None:
        self.weights = {name: array.astype(np.float64) for name, array in weights.items()}
        self.architecture, self.clamp = architecture, np.inf if clamp is None else clamp
        names = {name.split(".")[1] for name in weights if name.startswith("synthesis.")}
        self.resolutions = sorted(int(name[1:]) for name in names)

    def style(self, layer: str, w: Array) -> Array:
        weight, bias = (self.weights[f"{layer}.affine.{part}"] for part in ("weight", "bias"))
        return weight @ w / np.sqrt(len(w)) + bias

    def layer(self, name: str, x: Array, w: Array, up: bool, noise: bool, gain: float) -> Array:
        kernel = self.weights[f"{name}.weight"] * self.style(name, w)[:, None, None]
        kernel /= np.sqrt(np.sum(kernel**2, axis=(1, 2, 3), keepdims=True) + 1e-8)
        if up:
            y = convolve_up(x, kernel)
        else:
            y = convolve_true(x, kernel[:, :, ::-1, ::-1])[:, 1:-1, 1:-1]
        if noise:
            y += self.weights[f"{name}.noise_const"] * self.weights[f"{name}.noise_strength"]
        y += self.weights[f"{name}.bias"][:, None, None]
        y = np.where(y < 0, 0.2 * y, y) * np.sqrt(2) * gain
        return np.clip(y, -self.clamp * gain, self.clamp * gain)

    def head(self, name: str, x: Array, w: Array) -> Array:
        weight = self.weights[f"{name}.weight"][:, :, 0, 0]
        kernel = weight * self.style(name, w) / np.sqrt(weight.shape[1])
        y = np.einsum("oc,chw->ohw", kernel, x) + self.weights[f"{name}.bias"][:, None, None]
        return np.clip(y, -self.clamp, self.clamp)

    def __call__(self, ws: Array, noise: bool = True) -> Array:
        """Image [C, R, R] of codes [num_ws, W]."""
        codes = iter(range(len(ws)))
        x = self.weights["synthesis.b4.const"]
        x = self.layer("synthesis.b4.conv1", x, ws[(n := next(codes))], False, noise, 1.0)
        image = np.zeros(())
        if self.architecture == "skip" or self.resolutions == [4]:
            image = self.head("synthesis.b4.torgb", x, ws[n + 1])
        for resolution in self.resolutions[1:]:
            block = f"synthesis.b{resolution}"
            gain = np.sqrt(0.5) if self.architecture == "resnet" else 1.0
            y = self.layer(f"{block}.conv0", x, ws[next(codes)], True, noise, 1.0)
            y = self.layer(f"{block}.conv1", y, ws[(n := next(codes))], False, noise, gain)
            if self.architecture == "resnet":
                skip = self.weights[f"{block}.skip.weight"][:, :, 0, 0] / np.sqrt(len(x))
                y += upsample(np.einsum("oc,chw->ohw", skip, x)) * gain
            x = y
            if self.architecture == "skip":
                image = upsample(image) + self.head(f"{block}.torgb", x, ws[n + 1])
            elif resolution == self.resolutions[-1]:
                image = self.head(f"{block}.torgb", x, ws[n + 1])
        return image
