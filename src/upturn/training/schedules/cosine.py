"""Learning-rate schedule: half a cosine to zero."""

from __future__ import annotations

import math
from dataclasses import dataclass

from upturn.protocols import Schedule


@dataclass(frozen=True)
class Cosine(Schedule):
    """(1 + cos(π done)) / 2, without restarts (Loshchilov & Hutter, ICLR 2017, equation 5)."""

    def factor(self, done: float) -> float:
        return 0.5 * (1 + math.cos(math.pi * done))
