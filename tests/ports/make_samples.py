"""Makes `tests/data/ports`: small checkpoints written by PyTorch itself, and what they hold.

Command (needs the `crosscheck` extra, takes seconds):

    PYTHONPATH=tests python tests/ports/make_samples.py [FIXTURES]

The tests read the committed files and need no PyTorch. References are computed in float64. FIXTURES
is the folder of `make_checkpoints.py`, the independent writer of NVIDIA's pickles whose layout was
compared with files of the original programs; without it those two pickles stay as they are.
"""

from __future__ import annotations

import argparse
import importlib
import pickle
import sys
from collections import Counter, OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

DATA = Path(__file__).resolve().parent.parent / "data" / "ports"


class Encoder(nn.Module):
    def __init__(self, widths: tuple[int, int, int], features: int, latents: int) -> None:
        super().__init__()
        c1, c2, c3 = widths
        self.conv1 = nn.Conv2d(3, c1, 3, stride=2, padding=1)
        self.conv2 = nn.Conv2d(c1, c2, 3, stride=2, padding=1)
        self.conv3 = nn.Conv2d(c2, c3, 3, stride=2, padding=1)
        self.fc_mu = nn.Linear(features, latents)
        self.fc_logvar = nn.Linear(features, latents)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        for conv in (self.conv1, self.conv2, self.conv3):
            x = conv(x).relu()
        x = x.flatten(1)
        return self.fc_mu(x), self.fc_logvar(x)


class Decoder(nn.Module):
    def __init__(self, widths: tuple[int, int, int], features: int, latents: int) -> None:
        super().__init__()
        c1, c2, c3 = widths
        self.fc1 = nn.Linear(latents, features)
        self.convT1 = nn.ConvTranspose2d(c3, c2, 4, stride=2, padding=1)
        self.convT2 = nn.ConvTranspose2d(c2, c1, 4, stride=2, padding=1)
        self.convT3 = nn.ConvTranspose2d(c1, 3, 4, stride=2, padding=1)
        self.grid = (c3, *[int((features // c3) ** 0.5)] * 2)

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        x = self.fc1(z).relu().unflatten(1, self.grid)
        x = self.convT2(self.convT1(x).relu()).relu()
        return self.convT3(x).sigmoid()


def write_vae() -> None:
    """A 32 x 32 VAE of the published layout whose widths all differ, and what it computes."""
    torch.manual_seed(0)
    widths, latents, features = (4, 5, 6), 3, 6 * 4 * 4
    vae = nn.ModuleDict(
        {
            "encoder": Encoder(widths, features, latents),
            "decoder": Decoder(widths, features, latents),
        }
    )
    torch.save(vae.state_dict(), DATA / "vae_tiny.pt")
    vae.double()
    z = torch.randn(4, latents, dtype=torch.float64, requires_grad=True)
    images = vae["decoder"](z)
    cotangent = torch.randn_like(images)
    (grad,) = torch.autograd.grad((images * cotangent).sum(), z)
    mean, log_variance = vae["encoder"](images)
    arrays = {
        "z": z,
        "images_nchw": images,
        "cotangent": cotangent,
        "grad_z": grad,
        "mu": mean,
        "logvar": log_variance,
    }
    found = {name: array.detach().numpy().astype(np.float32) for name, array in arrays.items()}
    np.savez_compressed(DATA / "vae_tiny.npz", **found)


def content() -> dict[str, Any]:
    """A tensor of every kind that the reader has to understand."""
    generator = torch.Generator().manual_seed(1)
    base = torch.randn(4, 6, generator=generator)
    feature_map = torch.randn(2, 3, 4, 5, generator=generator)
    state = OrderedDict(
        plain=base,
        transposed=base.T,
        slice=base[1:3, 1::2],
        last_row=base[3],
        channels_last=feature_map.contiguous(memory_format=torch.channels_last),
        parameter=nn.Parameter(torch.randn(3, generator=generator)),
        half=torch.randn(5, generator=generator).half(),
        bfloat16=torch.randn(2, 3, generator=generator).bfloat16(),
        double=torch.randn(2, generator=generator).double(),
        integer=torch.arange(7),
        flags=torch.tensor([True, False, True]),
        scalar=torch.tensor(2.5),
        empty=torch.zeros(0, 3),
    )
    state._metadata = OrderedDict([("", {"version": 1})])  # type: ignore[attr-defined]
    return {
        "state_dict": state,
        "epoch": 3,
        "lr": 1e-3,
        "milestones": Counter({12: 1, 20: 2}),
        "args": argparse.Namespace(size=256, name="run"),
        "score": np.float64(0.25),
        "shape": torch.Size([2, 3]),
    }


class Root(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(2)
        self.conv = nn.Conv2d(2, 3, 1)
        self.register_buffer("steps", torch.arange(4))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.conv(x)


def write_formats() -> None:
    """The same content in every container."""
    data = content()
    torch.save(data, DATA / "formats_zip.pt")
    torch.save(data, DATA / "formats_legacy.pt", _use_new_zipfile_serialization=False)
    for protocol in (3, 4):
        with (DATA / f"formats_nested{protocol}.pkl").open("wb") as file:
            pickle.dump(data, file, protocol=protocol)
    root = Root()
    torch.jit.save(torch.jit.script(root), str(DATA / "formats_script.pt"))
    arrays = {name: tensor.detach() for name, tensor in data["state_dict"].items()}
    arrays["bfloat16"] = arrays["bfloat16"].float()
    arrays |= {f"script.{name}": tensor for name, tensor in root.state_dict().items()}
    found = {name: tensor.numpy() for name, tensor in arrays.items()}
    np.savez_compressed(DATA / "formats.npz", **found)


def write_nvidia(fixtures: str) -> None:
    """A tiny generator in pickles that hold every attribute of the original classes."""
    from checkpoint_formats import tiny_stylegan2

    sys.path.insert(0, fixtures)
    writer = importlib.import_module("make_checkpoints")
    for flavour in ("ada", "sg3"):
        writer.write_nvidia_pkl(tiny_stylegan2(), DATA / f"nvidia_{flavour}.pkl", flavour)


if __name__ == "__main__":
    DATA.mkdir(parents=True, exist_ok=True)
    if len(sys.argv) > 1:
        write_nvidia(sys.argv[1])
    write_vae()
    write_formats()
