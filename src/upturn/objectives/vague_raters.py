"""Reward models from raters who cannot tell small differences and had to choose all the same."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from upturn.objectives._reward_heads import RewardPairs
from upturn.statistics.preference_models import vague


@dataclass(frozen=True, kw_only=True)
class VagueRaters(RewardPairs):
    """A reward head on pairs by raters who cannot see a gap below ``threshold`` nats, and then toss a coin.

    P(chosen) = (sigmoid(gap - threshold) + sigmoid(gap + threshold)) / 2: Rao and Kupper's tie (1967), shared equally,
    where the rater was not let say it. Bradley–Terry would take the coins for small gaps; this lets the gap grow to
    what agreement on clear cases asks for. Ties and pairs without a preference have weight 0 and are counted.
    ``given["strength"]`` multiplies the weight.
    """

    threshold: float = 0.69  # log 2: equal candidates are judged equal in a third of the cases

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.threshold < 0:
            raise ValueError(f"threshold must be at least 0, not {self.threshold}")

    def log_probs(self, chosen: Tensor, rejected: Tensor, tie: Tensor, strength: Tensor) -> Tensor:
        return vague(chosen, rejected, self.threshold)
