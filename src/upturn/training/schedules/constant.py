"""Learning-rate schedule: the rate does not change after the warm-up."""

from __future__ import annotations

from dataclasses import dataclass

from upturn.protocols import Schedule


@dataclass(frozen=True)
class Constant(Schedule):
    """1 at every step."""

    def factor(self, done: float) -> float:
        return 1.0
