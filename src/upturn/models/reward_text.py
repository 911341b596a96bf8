"""Reward models of text: a head on a causal language model."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

from upturn.models._heads import attribute_rewards as _reward_attributes
from upturn.models._language.headed import HeadedText
from upturn.types import Batch, Draw, Likelihood, Outputs, Samples


@dataclass(eq=False)
class RewardText(HeadedText):
    """A reward of prompt and completion: a linear head on a causal language model, read at EOS (Ouyang et al. 2022).

    ``config``, ``folder`` or ``hub`` name the language model, as in causal_lm; one trained on such texts works best.
    ``attributes`` {name: weight} makes a head of A, each with its own meaning (Wang et al. 2023, HelpSteer), whose
    weighted sum is the reward; ``encode`` takes their values from the samples' fields of these names, NaN where
    there are none. Saved as ``AutoModelForSequenceClassification`` opens it: its logits are the head's outputs.
    """

    attributes: dict[str, float] = field(default_factory=dict)

    likelihood: ClassVar[Likelihood] = "reward"
    name: ClassVar[str] = "reward_text"

    def __post_init__(self) -> None:
        super().__post_init__()
        _reward_attributes.check(self.attributes)

    @property
    def _outputs(self) -> int:
        return max(1, len(self.attributes))

    def _settings(self) -> dict[str, Any]:
        return {"attributes": list(self.attributes)}

    def _settle(self, settings: dict[str, Any]) -> None:
        _reward_attributes.same(settings.get("attributes"), self.attributes)

    def encode(self, samples: Samples) -> Batch:
        """Ragged "tokens" and "mask" as causal_lm has them, and "attributes" (N, A) where the model has any."""
        return super().encode(samples).with_columns(**_reward_attributes.column(samples, self.attributes))

    def forward(self, batch: Batch, draw: Draw | None) -> Outputs:
        """rewards (N,) and logits (N, A); log_probs and mask are (N, 0): the model gives no likelihood."""
        logits = self._read(batch)
        none = logits[:, :0]
        return Outputs(none, none, rewards=_reward_attributes.reward(logits, self.attributes), logits=logits)
