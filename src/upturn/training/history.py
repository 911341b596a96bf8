"""The record of a training: its curve, its counters and why it stopped; a checkpoint saves it as JSON."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

IDLE = "idle"  # the metric of a step without a gradient


@dataclass
class History:
    """JSON-ready: one point at every held-out evaluation, and at the end."""

    points: list[dict[str, float]] = field(default_factory=list)
    steps: int = 0
    seconds: float = 0.0
    stopped: str = ""  # why it ended before its last step
    best: float = math.inf  # the lowest held-out loss
    since_best: int = 0  # held-out evaluations since then
    idle: int = 0  # steps without a gradient: all candidates of every prompt had equal rewards
    idle_in_a_row: int = 0
    saved: int = 0  # the step of the last checkpoint
    steering: dict[str, float] = field(default_factory=dict)  # what an objective adapts by step: a KL coefficient

    @property
    def learned_nothing(self) -> bool:
        """Whether every step was without a gradient: the weights are those that the training started from."""
        return 0 < self.steps == self.idle
