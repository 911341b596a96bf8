"""A small exact model for tests of the trainer: y given x is normal around a linear map."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from upturn import seeds
from upturn.types import Batch, Draw, Outputs, Samples


class Line:
    """log N(y; w·x + b, 1), rows of any kind; draws noise that is added to y, so that keys matter."""

    kind = "points"
    likelihood = "exact"
    id = ""

    def __init__(self, dims: int = 3, key: int = 0, noisy: bool = True) -> None:
        seeds.seed_torch(key)
        self.module: torch.nn.Module = torch.nn.Sequential(
            torch.nn.Linear(dims, 8), torch.nn.Tanh(), torch.nn.Dropout(0.0), torch.nn.Linear(8, 1)
        )
        self.noisy = noisy

    def build(self, examples: Samples, key: int) -> None: ...
    def encode(self, samples: Samples) -> Batch: ...  # type: ignore[empty-body]
    def save(self, folder: Path) -> None: ...
    def load(self, folder: Path) -> None: ...
    def flops(self, batch: Batch) -> float:
        return 0.0

    def draw(self, batch: Batch, key: int, start: int) -> Draw | None:
        if not self.noisy:
            return None
        noise = seeds.table_normal(key, start, start + len(batch), (1,))
        return Draw(torch.ones(len(batch), 1), noise.repeat_interleave(batch.candidates, 0))

    def forward(self, batch: Batch, draw: Draw | None) -> Outputs:
        mean = self.module(batch["x"])
        target = batch["y"] + (0.1 * draw.noise.to(mean.dtype) if draw is not None else 0.0)
        log_probs = -0.5 * (target - mean) ** 2 - 0.5 * math.log(2 * math.pi)
        return Outputs(log_probs, torch.ones_like(log_probs))


def examples(count: int = 50, dims: int = 3, candidates: int = 1, given: Mapping[str, Any] | None = None) -> Batch:
    rng = np.random.default_rng(0)
    x = torch.from_numpy(rng.normal(size=(count * candidates, dims))).float()
    y = (x[:, :1] * 2 - x[:, 1:2]).sin() + 0.1 * torch.from_numpy(rng.normal(size=(count * candidates, 1))).float()
    return Batch({"x": x, "y": y}, candidates, {k: torch.as_tensor(v) for k, v in (given or {}).items()})
