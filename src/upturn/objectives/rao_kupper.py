"""Reward models from pairs with ties that a threshold makes (Rao & Kupper 1967)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from upturn.objectives._reward_heads import RewardPairs
from upturn.statistics.preference_models import rao_kupper


@dataclass(frozen=True, kw_only=True)
class RaoKupper(RewardPairs):
    """A reward head on pairs with ties: people call a tie where they see a gap of less than ``threshold`` nats.

    Rao & Kupper 1967 (JASA 62), equations 2.2 and 2.3. Unlike davidson's, a win then says that the gap was large enough
    to be seen: the gap that wins are pulled to is wider by the threshold. ``given["strength"]`` multiplies the weight.
    """

    threshold: float = 0.69  # log 2: equals tie in a third of the cases, as with davidson's nu of 1

    ties: ClassVar[bool] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.threshold <= 0:
            raise ValueError(f"threshold must be above 0, not {self.threshold}; without ties use bradley_terry")

    def log_probs(self, chosen: Tensor, rejected: Tensor, tie: Tensor, strength: Tensor) -> Tensor:
        return rao_kupper(chosen, rejected, tie, self.threshold)
