"""Inputs for metrics of text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from upturn.types import Array, Prompt, Samples, real_samples, synthetic_samples


@dataclass
class Tools:
    held_out: Samples
    policy: Any = None
    classes: tuple[str, ...] = ()

    @property
    def train(self) -> Samples:
        return self.held_out

    def model(self, name: str) -> Any:
        assert name == "policy"
        return self.policy

    def embed(self, samples: Samples) -> Array:
        raise AssertionError("text metrics need no features")


@dataclass
class Evidence:
    samples: Samples
    rewards: Array = field(default_factory=lambda: np.zeros(0))
    tools: Any = None
    seed: int = 3
    settings: Any = None


def texts(rows: Sequence[str], candidates: int = 1) -> Samples:
    keys = np.arange(len(rows)).reshape(-1, candidates)
    return synthetic_samples("text", list(rows), [Prompt(str(i)) for i in range(len(keys))], keys, "m")


def held_out(rows: Sequence[str]) -> Samples:
    return real_samples("text", list(rows), [Prompt()] * len(rows), "s")
