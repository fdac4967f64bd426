"""The PyTorch side of scripts/benchmarks/recognition.py, a process of its own.

    python scripts/benchmarks/recognition_torch.py --depth 50 --batch 16 --identities 10572

One step of AdaFace's training (Kim et al. 2022, arXiv:2204.00964): an IR network in training mode,
the head, cross entropy, the backward pass, and descent with momentum and decay. For each line of
its input it makes a step and answers with the seconds that it took, by the clock and of all cores,
until the input ends.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator

import torch
import torch.nn.functional as F  # noqa: N812 (PyTorch's own habit)
from torch import nn

UNITS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 14, 3), 101: (3, 13, 30, 3)}
WIDTHS = (64, 128, 256, 512)
MARGIN, H, SCALE, T_ALPHA, EPSILON = 0.4, 0.333, 64.0, 0.01, 1e-3
Tensor = torch.Tensor


def convolution(c_in: int, c_out: int, size: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(c_in, c_out, size, stride, size // 2, bias=False)


class Unit(nn.Module):
    """A residual unit."""

    def __init__(self, c_in: int, c_out: int, stride: int) -> None:
        super().__init__()
        self.residual = nn.Sequential(
            nn.BatchNorm2d(c_in),
            convolution(c_in, c_out, 3),
            nn.BatchNorm2d(c_out),
            nn.PReLU(c_out),
            convolution(c_out, c_out, 3, stride),
            nn.BatchNorm2d(c_out),
        )
        self.shortcut: nn.Module = nn.MaxPool2d(1, stride)
        if c_in != c_out:
            projection = convolution(c_in, c_out, 1, stride)
            self.shortcut = nn.Sequential(projection, nn.BatchNorm2d(c_out))

    def forward(self, x: Tensor) -> Tensor:
        """Add the residual to the (strided or projected) input."""
        found: Tensor = self.residual(x) + self.shortcut(x)
        return found


def network(depth: int, size: int) -> nn.Sequential:
    """From images [B, 3, size, size] to embeddings [B, 512] before they get unit length."""
    units, c_in = [], WIDTHS[0]
    for width, count in zip(WIDTHS, UNITS[depth], strict=True):
        for number in range(count):
            units.append(Unit(c_in, width, 1 if number else 2))
            c_in = width
    return nn.Sequential(
        nn.Sequential(convolution(3, WIDTHS[0], 3), nn.BatchNorm2d(WIDTHS[0]), nn.PReLU(WIDTHS[0])),
        *units,
        nn.BatchNorm2d(c_in),
        nn.Dropout(0.4),
        nn.Flatten(),
        nn.Linear(c_in * (size // 16) ** 2, 512),
        nn.BatchNorm1d(512, affine=False),
    )


class AdaFace(nn.Module):
    """The head: from embeddings and identities to logits."""

    def __init__(self, identities: int) -> None:
        super().__init__()
        self.kernel = nn.Parameter(torch.empty(512, identities).uniform_(-1, 1))
        self.mean, self.deviation = torch.tensor(20.0), torch.tensor(100.0)

    def forward(self, features: Tensor, identities: Tensor) -> Tensor:
        """Logits; the running statistics of norms take the batch in first."""
        norms = features.norm(dim=1, keepdim=True)
        cosine = (features / norms) @ F.normalize(self.kernel, dim=0)
        cosine = cosine.clamp(-1 + EPSILON, 1 - EPSILON)
        with torch.no_grad():
            safe = norms.clamp(0.001, 100)
            self.mean = T_ALPHA * safe.mean() + (1 - T_ALPHA) * self.mean
            self.deviation = T_ALPHA * safe.std() + (1 - T_ALPHA) * self.deviation
            quality = (H * (safe - self.mean) / (self.deviation + EPSILON)).clamp(-1, 1)
        right = F.one_hot(identities, cosine.shape[1])
        angle = (cosine.acos() - right * MARGIN * quality).clamp(EPSILON, torch.pi - EPSILON)
        return SCALE * (angle.cos() - right * (MARGIN + MARGIN * quality))


def steps(
    depth: int, batch: int, identities: int, size: int, channels_last: bool
) -> Iterator[tuple[float, float]]:
    """Seconds of one step after another."""
    body, head = network(depth, size), AdaFace(identities)
    images = torch.randn(batch, 3, size, size)
    labels = torch.arange(batch) % identities
    if channels_last:
        body = body.to(memory_format=torch.channels_last)
        images = images.to(memory_format=torch.channels_last)
    norms = [p for m in body.modules() if isinstance(m, nn.BatchNorm2d) for p in m.parameters()]
    apart = set(map(id, norms))
    others = [p for p in (*body.parameters(), *head.parameters()) if id(p) not in apart]
    groups = [{"params": others}, {"params": norms, "weight_decay": 0.0}]
    descent = torch.optim.SGD(groups, lr=0.01, momentum=0.9, weight_decay=5e-4)
    while True:
        began = time.perf_counter(), time.process_time()
        descent.zero_grad()
        F.cross_entropy(head(body(images), labels), labels).backward()
        descent.step()
        yield time.perf_counter() - began[0], time.process_time() - began[1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--depth", type=int, default=50)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--identities", type=int, default=10572)
    parser.add_argument("--size", type=int, default=112)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--channels-last", action="store_true", help="PyTorch's other layout")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    print(torch.__version__, flush=True)
    step = steps(args.depth, args.batch, args.identities, args.size, args.channels_last)
    for _ in sys.stdin:
        print(*next(step), flush=True)


if __name__ == "__main__":
    main()
