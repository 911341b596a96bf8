"""Inputs for metrics: samples and real data that are their own features, and minimal models."""

from __future__ import annotations

from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch

from upturn.config import components
from upturn.types import Batch, Draw, Outputs, Prompt, Samples, real_samples, synthetic_samples


def real(points: np.ndarray, labels: list[int] | None = None) -> Samples:
    prompts = [Prompt(label=None if labels is None else labels[i]) for i in range(len(points))]
    return real_samples("points", np.asarray(points, np.float32), prompts, "points")


def sampled(points: np.ndarray, candidates: int = 1, labels: list[int] | None = None) -> Samples:
    n = len(points) // candidates
    prompts = [Prompt(label=None if labels is None else labels[i]) for i in range(n)]
    keys = np.arange(n * candidates).reshape(n, candidates)
    return synthetic_samples("points", np.asarray(points, np.float32), prompts, keys, "model")


class Nearest:
    """A classifier of the line: class = the rounded first coordinate, of three."""

    likelihood = "exact"

    def __init__(self, classes: int = 3) -> None:
        self.module, self.classes, self.rows, self.modes = torch.nn.Dropout(), classes, [], []

    def encode(self, samples: Samples) -> Batch:
        return Batch({"x": torch.from_numpy(np.asarray(samples.content))})

    def draw(self, batch: Batch, key: int, start: int) -> Draw | None:
        return None

    def forward(self, batch: Batch, draw: Draw | None) -> Outputs:
        self.rows.append(batch.rows)
        self.modes.append(self.module.training)
        logits = -(batch["x"][:, :1] - torch.arange(self.classes)).abs()
        return Outputs(torch.zeros(batch.rows, 1), torch.ones(batch.rows, 1), logits=logits)


class Noisy:
    """log p = -(x + noise)^2 summed over two dimensions, with noise from the key and the position in the batch."""

    likelihood = "surrogate"

    def __init__(self) -> None:
        self.module, self.keys = torch.nn.Identity(), []

    def encode(self, samples: Samples) -> Batch:
        return Batch({"x": torch.from_numpy(np.asarray(samples.content))})

    def draw(self, batch: Batch, key: int, start: int) -> Draw:
        self.keys.append((key, start))
        table = np.random.default_rng(key).standard_normal((10_000, 1)).astype(np.float32)
        return Draw(torch.ones(batch.rows, 1), torch.from_numpy(table[start : start + batch.rows]))

    def forward(self, batch: Batch, draw: Draw | None) -> Outputs:
        assert draw is not None
        log_probs = -((batch["x"] + draw.noise) ** 2).sum(dim=1, keepdim=True)
        return Outputs(log_probs, torch.ones_like(log_probs), dims=2)


@dataclass
class Tools:
    train: Samples
    held_out: Samples
    classes: tuple[str, ...] = ("zero", "one", "two")
    models: dict[str, Any] = field(default_factory=lambda: {"classifier": Nearest(), "policy": Noisy()})

    def model(self, name: str) -> Any:
        return self.models[name]

    def embed(self, samples: Samples) -> np.ndarray:
        return np.asarray(samples.content, dtype=np.float32).reshape(len(samples), -1)


def evidence(samples: Samples, train: np.ndarray, held_out: np.ndarray, rewards: np.ndarray | None = None) -> Any:
    rewards = np.zeros(len(samples)) if rewards is None else rewards
    return SimpleNamespace(
        samples=samples, rewards=rewards, tools=Tools(real(train), real(held_out)), seed=3, settings=None
    )


def measure(name: str, given: Any, **fields: Any) -> Any:
    return components.checked(components.find("metric", name), fields, "", name).measure(given)


def normal(n: int, d: int, seed: int, scale: float = 1.0, shift: float = 0.0) -> np.ndarray:
    return (np.random.default_rng(seed).standard_normal((n, d)) * scale + shift).astype(np.float32)
