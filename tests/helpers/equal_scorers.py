"""Scorers for tests of rounds in which nothing can be learned: one reward for all, and a verifier of points."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from upturn.protocols import Scorer
from upturn.types import Samples, Scores


@dataclass
class Equal(Scorer):
    """1 for every sample; once ``spread`` is set, its first coordinate."""

    spread: ClassVar[bool] = False

    def score(self, samples: Samples, tools: object) -> Scores:
        first = samples.content[:, 0].astype(np.float64)
        return Scores("equal", first if Equal.spread else np.ones(len(samples)))


@dataclass
class Beyond(Scorer):
    """Right (1) where the first coordinate is above ``at``, else wrong (0)."""

    at: float = 0.0

    verifies: ClassVar[bool] = True

    def score(self, samples: Samples, tools: object) -> Scores:
        return Scores("beyond", (samples.content[:, 0] > self.at).astype(np.float64))
