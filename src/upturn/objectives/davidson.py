"""Reward models from pairs with ties (Davidson 1970)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from upturn.objectives._reward_heads import RewardPairs
from upturn.statistics.preference_models import davidson


@dataclass(frozen=True, kw_only=True)
class Davidson(RewardPairs):
    """A reward head on pairs with ties: P(tie) = nu sqrt(w1 w2) / (w1 + w2 + nu sqrt(w1 w2)), w = e^reward.

    Davidson 1970 (JASA 65), equation 2.5. Equal ranks are a tie, a real outcome that pulls the two rewards together.
    ``given["strength"]`` multiplies the weight. The metric "tie" counts them.
    """

    nu: float = 1.0  # equals win, lose and tie in a third of the cases each: nu / (2 + nu)

    ties: ClassVar[bool] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.nu <= 0:
            raise ValueError(f"nu must be above 0, not {self.nu}; without ties use bradley_terry")

    def log_probs(self, chosen: Tensor, rejected: Tensor, tie: Tensor, strength: Tensor) -> Tensor:
        return davidson(chosen, rejected, tie, self.nu)
