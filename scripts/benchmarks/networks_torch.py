"""The PyTorch side of scripts/benchmarks/networks.py.

The image tower is that of transformers. The synthesis network follows the formulation of NVIDIA's
stylegan2-ada-pytorch, whose licence does not let it stand here: a kernel per sample, modulated and
demodulated (Karras et al. 2020, arXiv:1912.04958, equations 1 to 3), all of a batch as one grouped
convolution; upsampling by a transposed convolution and a 4 x 4 filter. Weights are random.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 (PyTorch's own habit)

Call = Callable[[], Any]
Tensor = torch.Tensor


def set_threads(count: int) -> None:
    """Use so many threads."""
    torch.set_num_threads(count)


def tower_calls(batch: int) -> dict[str, Call]:
    """The image tower of ViT-B/32 on a batch of images."""
    from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

    config = CLIPVisionConfig(patch_size=32, projection_dim=512)
    tower = CLIPVisionModelWithProjection(config).eval()
    images = torch.randn(batch, 3, 224, 224)

    def embed() -> Any:
        with torch.inference_mode():
            return tower(images).image_embeds

    return {"embed": embed}


class Synthesis:
    """The synthesis network, one block per resolution from 4 on, architecture `skip`."""

    def __init__(self, channels: Sequence[int], w_dim: int = 512) -> None:
        taps = torch.tensor([1.0, 3.0, 3.0, 1.0]) / 8
        self.filter = 4 * torch.outer(taps, taps)
        self.const = torch.randn(channels[0], 4, 4)
        self.blocks = []
        for level, width in enumerate(channels):
            inputs = [channels[level - 1], width] if level else [width]
            convs = [(torch.randn(width, c, 3, 3), torch.randn(c, w_dim)) for c in inputs]
            self.blocks.append((convs, (torch.randn(3, width, 1, 1), torch.randn(width, w_dim))))

    def __call__(self, ws: Tensor) -> Tensor:
        """Images [B, 3, R, R] of codes [B, L, w_dim]."""
        x, image, layer = self.const.expand(len(ws), -1, -1, -1), None, 0
        for convs, (to_rgb, affine) in self.blocks:
            for number, (weight, style) in enumerate(convs):
                up = len(convs) == 2 and number == 0
                codes = ws[:, layer] @ style.T / style.shape[1] ** 0.5 + 1
                x = self._modulated(x, weight, codes, up=up)
                x = x + 0.1 * torch.ones(x.shape[-2:])  # stands for noise image and bias
                x = (F.leaky_relu(x, 0.2) * 2**0.5).clamp(-256, 256)
                layer += 1
            codes = (ws[:, layer] @ affine.T / affine.shape[1] ** 0.5 + 1) / to_rgb.shape[1] ** 0.5
            head = self._modulated(x, to_rgb, codes, demodulate=False)
            image = head if image is None else self._filtered(self._spread(image), 2, 1) + head
        assert image is not None
        return image

    def _modulated(
        self, x: Tensor, weight: Tensor, styles: Tensor, up: bool = False, demodulate: bool = True
    ) -> Tensor:
        batch, c_in, height, width = x.shape
        kernels = weight * styles[:, None, :, None, None]
        if demodulate:
            kernels = kernels * (kernels.square().sum((2, 3, 4), keepdim=True) + 1e-8).rsqrt()
        x = x.reshape(1, batch * c_in, height, width)
        if up:
            kernels = kernels.transpose(1, 2).reshape(batch * c_in, -1, 3, 3)
            y = F.conv_transpose2d(x, kernels, stride=2, groups=batch)
            y = y.reshape(batch, -1, *y.shape[2:])
            return self._filtered(y, 1, 1)
        y = F.conv2d(x, kernels.flatten(0, 1), padding=weight.shape[-1] // 2, groups=batch)
        return y.reshape(batch, -1, height, width)

    def _spread(self, x: Tensor) -> Tensor:
        """Zeros after every pixel."""
        batch, channels, height, width = x.shape
        y = F.pad(x.reshape(batch, channels, height, 1, width, 1), (0, 1, 0, 0, 0, 1))
        return y.reshape(batch, channels, 2 * height, 2 * width)

    def _filtered(self, x: Tensor, before: int, after: int) -> Tensor:
        channels = x.shape[1]
        x = F.pad(x, (before, after, before, after))
        return F.conv2d(x, self.filter.expand(channels, 1, 4, 4), groups=channels)


def synthesis_calls(channels: Sequence[int], batch: int, outputs: int) -> dict[str, Call]:
    """The synthesis network, and its Jacobian by one backward pass per output."""
    synthesis = Synthesis(channels)
    ws = torch.randn(batch, 2 * len(channels), 512)
    pixels = 3 * (4 * 2 ** (len(channels) - 1)) ** 2
    mixture = torch.cos(torch.arange(pixels * outputs) * 1.618).reshape(-1, outputs) / pixels

    def synthesise() -> Any:
        with torch.inference_mode():
            return synthesis(ws)

    def differentiate() -> Any:
        codes = ws.clone().requires_grad_()
        scores = synthesis(codes).flatten(1) @ mixture
        rows = [
            torch.autograd.grad(scores[:, k].sum(), codes, retain_graph=k + 1 < outputs)[0]
            for k in range(outputs)
        ]
        return scores.detach(), torch.stack(rows, 1)

    return {"synthesise": synthesise, "differentiate": differentiate}
