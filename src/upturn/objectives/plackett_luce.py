"""Reward models from rankings of K candidates, full or partial, and from one pick of K."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from upturn.errors import UserError
from upturn.objectives._reward_heads import Anchored, better, rewards_of
from upturn.objectives._rows import present
from upturn.statistics.preference import plackett_luce, winner_only
from upturn.types import Batch, Loss, Outputs

_MOST_TIED = 12  # candidates: statistics.preference sums over 2^12 sets at most


@dataclass(frozen=True, kw_only=True)
class PlackettLuce(Anchored):
    """A reward head on groups of K: -log P(the order that was said) under Plackett–Luce (Zhu et al. 2023, section 4).

    ``given["ranks"]`` (E, K), 1 is best: a ranking, full or partial (0 is left out; equal ranks say that the order
    between them is unknown, and the likelihood sums over it); or a pick, where only 1 and 0 stand: one of all that are
    present, softmax over them. Groups that say nothing (all equal, all 0) weigh nothing and are counted as
    "said_nothing". ``given["strength"]`` (E,) multiplies the weight. With two candidates it is bradley_terry.
    """

    example: ClassVar[str] = "group"
    inputs: ClassVar[frozenset[str]] = frozenset({"rewards"})
    accepts: ClassVar[frozenset[str]] = frozenset({"reward"})

    def prepare(self, batch: Batch) -> Batch:
        if batch.candidates < 2:
            raise UserError("plackett_luce compares candidates, got single samples", where="objective",
                            fix="Use 'unpaired' for labels of single samples, 'attributes' for their scores.")
        if batch.candidates > _MOST_TIED:
            ranks = torch.where(present(batch), batch.given["ranks"], 0)
            same = (ranks[:, :, None] == ranks[:, None, :]).sum(dim=2) > 1
            if bool((same & (ranks > 0) & (ranks < ranks.amax(dim=1, keepdim=True))).any()):
                raise UserError(
                    f"ties before the last rank among {batch.candidates} candidates; at most {_MOST_TIED} can be tied "
                    "so", where="objective", fix="Break the ties, or give the tied candidates the last rank.",
                )
        return batch

    def __call__(self, out: Outputs, batch: Batch) -> Loss:
        rewards, there = rewards_of(out, batch), present(batch)
        ranks = torch.where(there, batch.given["ranks"], 0)
        above = better(ranks, there)
        pick = ((ranks.amax(dim=1) == 1) & (there & (ranks == 0)).any(dim=1))[:, None]
        # each is 0 where its ranks say nothing
        log_probs = winner_only(rewards, torch.where(pick, ranks, 0), there)
        log_probs = log_probs + plackett_luce(rewards, torch.where(pick, 0, ranks), there)
        says = above.flatten(1).any(dim=1)
        return self._loss(-log_probs, rewards, batch, above, says, True)
