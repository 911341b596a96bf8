"""Reward models from single samples that were called good or bad."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch.nn.functional import logsigmoid

from upturn.errors import UserError
from upturn.objectives._reward_heads import rewards_of
from upturn.objectives._rows import example_weights
from upturn.protocols import Objective
from upturn.types import Batch, Loss, Outputs


@dataclass(frozen=True)
class Unpaired(Objective):
    """A reward head on labels of single samples: -log sigmoid(reward) of the good, -log sigmoid(-reward) of the bad.

    Bradley–Terry against a sample of reward 0, so that the reward is the logit of "good" (an outcome reward model,
    Cobbe et al. 2021, section 3). ``given["ranks"]`` (E, 1): 1 is good, 2 or more bad, 0 unsaid: it weighs nothing and
    is counted. ``given["strength"]`` (E,) multiplies the weight.
    """

    example: ClassVar[str] = "group"
    inputs: ClassVar[frozenset[str]] = frozenset({"rewards"})
    accepts: ClassVar[frozenset[str]] = frozenset({"reward"})

    def prepare(self, batch: Batch) -> Batch:
        if batch.candidates != 1:
            raise UserError(
                f"'unpaired' trains on single samples, got groups of {batch.candidates}", where="objective",
                fix="Use bradley_terry for pairs, plackett_luce for groups.",
            )
        return batch

    def __call__(self, out: Outputs, batch: Batch) -> Loss:
        rewards, ranks = rewards_of(out, batch)[:, 0], batch.given["ranks"][:, 0]
        says = ranks > 0
        signed = torch.where(ranks == 1, rewards, -rewards)
        weight = example_weights(batch, says, rewards.dtype)
        with torch.no_grad():
            metrics = {
                "accuracy": (weight * (signed > 0)).sum(), "reward": (weight * rewards).sum(),
                "said_nothing": (~says).sum().to(weight.dtype),
            }
        return Loss(-(weight * logsigmoid(signed)).sum(), weight.sum(), metrics)
