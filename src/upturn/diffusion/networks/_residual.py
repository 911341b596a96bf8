"""The residual MLP's weights and forward pass; ``mlp.py`` is its component."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

_FREQUENCIES = 16  # sines and cosines each, from half a turn to 2^5 turns over the range of noise levels
_OCTAVES = 6.0


class ResidualMlp(nn.Module):
    """Residual blocks whose normalised input is scaled and shifted by noise level and class (adaLN, Peebles & Xie 2023).

    ``forward(x (N, *shape), noise () or (N,), label (N,) int64, -1 for none)`` -> (N, *shape). With one noise level for
    all rows, as in sampling, the condition is computed once a class instead of once a row.
    """

    frequencies: Tensor

    def __init__(
        self, shape: tuple[int, ...], classes: int, width: int, depth: int, embedding: int,
        noise_low: float, noise_high: float,
    ) -> None:
        super().__init__()
        self.config: dict[str, Any] = {
            "shape": list(shape), "classes": classes, "width": width, "depth": depth, "embedding": embedding,
            "noise_low": noise_low, "noise_high": noise_high,
        }
        self.classes, self.width = classes, width
        self.noise_low, self.noise_high = noise_low, noise_high
        size = math.prod(shape)
        turns = 2.0 ** torch.linspace(-1, _OCTAVES - 1, _FREQUENCIES)
        self.register_buffer("frequencies", 2 * math.pi * turns, persistent=False)
        self.noise_in = nn.Linear(2 * _FREQUENCIES, embedding)
        self.class_in = nn.Embedding(classes + 1, embedding) if classes else None  # the last row is "no class"
        self.first = nn.Linear(size, width)
        self.modulations = nn.ModuleList(nn.Linear(embedding, 2 * width) for _ in range(depth))
        self.wide = nn.ModuleList(nn.Linear(width, width) for _ in range(depth))
        self.back = nn.ModuleList(nn.Linear(width, width) for _ in range(depth))
        self.last = nn.Linear(width, size)
        for layer in (*self.back, self.last):  # every block and the network begin as the identity and zero
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)

    def condition(self, noise: Tensor, label: Tensor) -> Tensor:
        """(N, embedding) of noise levels (N,) and classes (N,)."""
        at = (noise - self.noise_low) / (self.noise_high - self.noise_low)
        angles = at[:, None] * self.frequencies
        hidden: Tensor = self.noise_in(torch.cat([angles.cos(), angles.sin()], dim=1))
        if self.class_in is not None:
            hidden = hidden + self.class_in(torch.where(label < 0, self.classes, label))
        return functional.silu(hidden)

    def forward(self, x: Tensor, noise: Tensor, label: Tensor) -> Tensor:
        rows = label
        once = noise.ndim == 0
        if once:
            label = torch.arange(self.classes + 1, device=x.device) if self.classes else label.new_full((1,), -1)
            noise = noise.expand(len(label))
            rows = torch.where(rows < 0, self.classes, rows)
        condition = self.condition(noise, label)
        hidden = self.first(x.flatten(1))
        for modulation, wide, back in zip(self.modulations, self.wide, self.back, strict=True):
            both = modulation(condition)
            if once and self.classes:
                both = both[rows]
            scale, shift = both.chunk(2, dim=1)
            inner = torch.addcmul(shift, functional.layer_norm(hidden, (self.width,)), 1 + scale)
            hidden = hidden + back(functional.silu(wide(inner)))
        out: Tensor = self.last(functional.silu(hidden))
        return out.reshape(x.shape)
