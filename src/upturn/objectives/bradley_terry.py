"""Reward models from pairs (Bradley & Terry 1952; Ouyang et al. 2022, equation 1), with Llama 2's margin."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from upturn.objectives._reward_heads import RewardPairs
from upturn.statistics.preference_models import bradley_terry


@dataclass(frozen=True, kw_only=True)
class BradleyTerry(RewardPairs):
    """A reward head on pairs: -log sigmoid(chosen - rejected - margin * strength).

    The margin is that of Touvron et al. 2023 (Llama 2), equation 2: ``given["strength"]`` (E,) says how much better the
    chosen is, ``margin`` how many nats that asks for. Their "small" margins are margin 1 with strengths 1, 2/3, 1/3 and
    0, their "large" ones margin 3 (table 27). Strength has no effect here; ties, and pairs without a preference,
    weigh nothing and are counted as "said_nothing".
    """

    margin: float = 0.0  # none: what InstructGPT has, and the first of Llama 2's three columns

    weighed: ClassVar[bool] = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.margin < 0:
            raise ValueError(f"margin must be at least 0, not {self.margin}")

    def log_probs(self, chosen: Tensor, rejected: Tensor, tie: Tensor, strength: Tensor) -> Tensor:
        return bradley_terry(chosen, rejected + self.margin * strength if self.margin else rejected)
