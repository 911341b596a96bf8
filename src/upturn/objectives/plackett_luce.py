"""Reward models from rankings of K candidates, full or partial, and from one pick of K."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from upturn.objectives._ranks import better, groups_only, log_likelihood
from upturn.objectives._reward_heads import Anchored, rewards_of
from upturn.objectives._rows import present
from upturn.types import Batch, Loss, Outputs


@dataclass(frozen=True, kw_only=True)
class PlackettLuce(Anchored):
    """A reward head on groups of K: -log P(the given order) under Plackett–Luce (Zhu et al. 2023, section 4).

    ``given["ranks"]`` (E, K), 1 is best: a ranking, full or partial (0 is left out; equal ranks say that the order
    between them is unknown, and the likelihood sums over it); or a pick, where only 1 and 0 stand: one of all that are
    present, softmax over them. Groups that say nothing (all equal, all 0) weigh nothing and are counted as
    "said_nothing". ``given["strength"]`` (E,) multiplies the weight. With two candidates it is bradley_terry.
    """

    example: ClassVar[str] = "group"
    inputs: ClassVar[frozenset[str]] = frozenset({"rewards"})
    accepts: ClassVar[frozenset[str]] = frozenset({"reward"})

    def prepare(self, batch: Batch) -> Batch:
        return groups_only("plackett_luce", batch)

    def __call__(self, out: Outputs, batch: Batch) -> Loss:
        rewards, there = rewards_of(out, batch), present(batch)
        ranks = torch.where(there, batch.given["ranks"], 0)
        above = better(ranks, there)
        log_probs = log_likelihood(rewards, ranks, there)
        says = above.flatten(1).any(dim=1)
        return self._loss(-log_probs, rewards, batch, above, says, True)
