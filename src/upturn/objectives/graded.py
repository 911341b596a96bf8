"""Reward models from pairs whose preference is graded: slightly better … much better."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from upturn.errors import UserError
from upturn.objectives._reward_heads import RewardPairs
from upturn.statistics.preference_models import bradley_terry
from upturn.types import Batch


@dataclass(frozen=True, kw_only=True)
class Graded(RewardPairs):
    """A reward head on graded pairs: cross-entropy to the soft label p = 1/2 + strength (sure - 1/2).

    ``given["strength"]`` (E,) in [0, 1] is how much better the chosen is: 0: both are equal, 1: the chosen
    wins with probability ``sure``. The best gap is log(p / (1 - p)), finite for p < 1, where plain Bradley–Terry drives
    on for ever. A tie is p = 1/2 (as rating labels become in Bai et al. 2022, section 3.3: shares of raters).
    """

    sure: float = 0.95  # a gap of 2.9 nats for the strongest grade

    ties: ClassVar[bool] = True
    weighed: ClassVar[bool] = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0.5 < self.sure <= 1:
            raise ValueError(f"sure is a probability above 1/2, not {self.sure}")

    def prepare(self, batch: Batch) -> Batch:
        batch = super().prepare(batch)
        strength = batch.given.get("strength")
        if strength is not None and bool(((strength < 0) | (strength > 1)).any()):
            raise UserError(
                f"'graded' needs strengths between 0 and 1, these reach {float(strength.max()):g}", where="objective",
                fix="State the strongest grade in the data: 'strongest: 3'.",
            )
        return batch

    def log_probs(self, chosen: Tensor, rejected: Tensor, tie: Tensor, strength: Tensor) -> Tensor:
        label = 0.5 + (self.sure - 0.5) * strength.masked_fill(tie, 0.0)
        return label * bradley_terry(chosen, rejected) + (1 - label) * bradley_terry(rejected, chosen)
