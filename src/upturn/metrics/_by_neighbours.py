"""Base class of the metrics that use the nearest real neighbours."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from upturn.metrics._embedded import Real
from upturn.protocols import Better, Metric


@dataclass(frozen=True)
class ByNeighbours(Metric):
    """``k`` neighbours define a ball; ``against`` names the part of the real data."""

    k: int
    against: Real = "held_out"

    better: ClassVar[Better] = "higher"
    by_features: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if self.k < 1:
            raise ValueError(f"k is {self.k}: it must be at least 1")
