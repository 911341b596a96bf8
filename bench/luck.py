"""A reward that is pure noise: fixed for each sample, and impossible to optimise."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from upturn import seeds
from upturn.protocols import Scorer, Tools
from upturn.types import Samples, Scores


@dataclass(frozen=True)
class Luck(Scorer):
    """Standard normal by the sample's content."""

    def score(self, samples: Samples, tools: Tools) -> Scores:
        keys = np.array([seeds.key("luck", row.tobytes().hex()) for row in samples.content])
        return Scores("luck", seeds.normal(keys).numpy().astype(np.float64))
