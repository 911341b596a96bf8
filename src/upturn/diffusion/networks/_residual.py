"""The residual MLP's weights and forward pass; ``mlp.py`` is its component."""

from __future__ import annotations

import math
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

_FREQUENCIES = 16  # sines and cosines each, from half a turn to 2^5 turns over the range of noise levels
_OCTAVES = 6.0


def _unset(width: int) -> nn.Linear:
    """A square layer whose weights are drawn later: it takes nothing from torch's random stream."""
    return nn.Linear(width, width, bias=False, device="meta").to_empty(device="cpu")


def _plus(known: Tensor, layer: nn.Module, x: Tensor) -> Tensor:
    """known + layer(x), in one operation unless an adapter is wrapped around the layer."""
    if type(layer) is nn.Linear:
        return torch.addmm(known, x, layer.weight.t())
    out: Tensor = known + layer(x)
    return out


class ResidualMlp(nn.Module):
    """Residual blocks ``h + back(silu(wide(norm(h)) + shift))``, the shift from noise level and class.

    ``forward(x (N, *shape), noise () or (N,), label (N,) int64, -1 for none)`` -> (N, *shape). With one noise level for
    all rows, as in sampling, the condition is computed once per class instead of once per row. Sums are fused into the
    matrix products: at these sizes the number of operations costs as much as their arithmetic.
    """

    frequencies: Tensor
    bands: Tensor

    def __init__(
        self, shape: tuple[int, ...], classes: int, width: int, depth: int, embedding: int, waves: int,
        noise_low: float, noise_high: float,
    ) -> None:
        super().__init__()
        self.settings: dict[str, Any] = {
            "shape": list(shape), "classes": classes, "width": width, "depth": depth, "embedding": embedding,
            "waves": waves, "noise_low": noise_low, "noise_high": noise_high,
        }
        self.classes, self.width, self.noise_low, self.noise_high = classes, width, noise_low, noise_high
        size, self.waves = math.prod(shape), waves
        turns = 2.0 ** torch.linspace(-1, _OCTAVES - 1, _FREQUENCIES)
        self.register_buffer("frequencies", 2 * math.pi * turns, persistent=False)
        self.register_buffer("bands", 2.0 ** torch.arange(waves), persistent=False)
        self.noise_in = nn.Linear(2 * _FREQUENCIES, embedding)
        self.class_in = nn.Embedding(classes + 1, embedding) if classes else None  # the last row is "no class"
        self.shifts = nn.Linear(embedding, depth * width)
        self.first = nn.Linear(size * (1 + 2 * waves), width)
        self.wide = nn.ModuleList(_unset(width) for _ in range(depth))
        self.back = nn.ModuleList(_unset(width) for _ in range(depth))
        self.last = nn.Linear(width, size)
        for wide, back in zip(self.wide, self.back, strict=True):
            nn.init.normal_(cast(nn.Linear, wide).weight, std=width**-0.5)  # what is normalised keeps its variance
            nn.init.zeros_(cast(nn.Linear, back).weight)  # every block begins as the identity, the network as zero
        nn.init.zeros_(self.last.weight)
        nn.init.zeros_(self.last.bias)

    def condition(self, noise: Tensor, label: Tensor) -> Tensor:
        """(N, depth * width) of noise levels (N,) and classes (N,), all at least 0."""
        at = (noise - self.noise_low) / (self.noise_high - self.noise_low)
        angles = at[:, None] * self.frequencies
        hidden: Tensor = self.noise_in(torch.cat([angles.cos(), angles.sin()], dim=1))
        if self.class_in is not None:
            hidden = hidden + self.class_in(label)
        shifts: Tensor = self.shifts(functional.silu(hidden))
        return shifts

    def forward(self, x: Tensor, noise: Tensor, label: Tensor) -> Tensor:
        rows = torch.where(label < 0, self.classes, label) if self.classes else torch.zeros_like(label)
        if noise.ndim == 0:
            every = torch.arange(self.classes + 1, device=x.device)
            shifts = self.condition(noise.expand(len(every)), every)[rows]
        else:
            shifts = self.condition(noise, rows)
        flat = x.flatten(1)
        if self.waves:  # Tancik et al. 2020: without them a network of few inputs is slow to learn what is sharp
            angles = (flat[:, :, None] * self.bands).flatten(1)
            flat = torch.cat([flat, angles.sin(), angles.cos()], dim=1)
        hidden = self.first(flat)
        for shift, wide, back in zip(torch.split(shifts, self.width, dim=1), self.wide, self.back, strict=True):
            normal = functional.layer_norm(hidden, (self.width,))
            hidden = _plus(hidden, back, functional.silu(_plus(shift, wide, normal)))
        out: Tensor = self.last(functional.silu(hidden))
        return out.reshape(x.shape)
