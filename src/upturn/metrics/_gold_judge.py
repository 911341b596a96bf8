"""Base class of the metrics that use a gold judge: a scorer that no training uses."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np

from upturn.config import components
from upturn.protocols import Better, Evidence, Metric, Scorer
from upturn.types import Array


@dataclass(frozen=True)
class GoldJudged(Metric):
    """``scorer`` is the gold judge: a scorer's name, or a mapping of 'name' and its fields."""

    better: ClassVar[Better] = "higher"
    name: ClassVar[str]  # of the metric

    scorer: str | dict[str, Any]
    _judge: Any = field(default=None, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_judge", components.make("scorer", self.scorer, f"{self.name}.scorer"))

    @property
    def models_used(self) -> tuple[str, ...]:
        judge: Scorer = self._judge
        return judge.models_used

    def rewards(self, evidence: Evidence) -> tuple[Array, Array]:
        """(N,) float64 gold and (N,) float64 proxy, the reward trained on; NaN where unscored."""
        gold = np.asarray(self._judge.score(evidence.samples, evidence.tools).values, dtype=np.float64)
        return gold, np.asarray(evidence.rewards, dtype=np.float64)
