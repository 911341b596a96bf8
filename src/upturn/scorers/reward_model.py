"""The reward that a reward model of the recipe gives."""

from __future__ import annotations

from dataclasses import dataclass

from upturn.embeddings.rewards import rewarded
from upturn.protocols import Scorer, Tools
from upturn.types import Samples, Scores


@dataclass
class RewardModel(Scorer):
    """The reward that a model of the recipe gives each sample: reward_text, reward_image, any with ``rewards``.

    Rewards learned from comparisons are known up to a constant: differences within a prompt count. A reward that is
    not finite is unscored.
    """

    model: str = "reward"  # one of the recipe's models
    scale: float = 1.0  # multiplies; with 'choice' it is the inverse temperature

    @property
    def models_used(self) -> tuple[str, ...]:
        return (self.model,)

    def score(self, samples: Samples, tools: Tools) -> Scores:
        """(N,) nats times ``scale``: a gap of g within a prompt means that a share sigmoid(g) of annotators agrees."""
        return Scores("reward_model", self.scale * rewarded(tools.model(self.model), self.model, samples))
