"""What the objectives on heads of reward models share: who beats whom in a group, what it weighs, what is reported."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor

from upturn.errors import UserError
from upturn.objectives._ranks import better, means
from upturn.objectives._rows import example_weights, present
from upturn.protocols import Objective
from upturn.types import Batch, Loss, Outputs


def rewards_of(out: Outputs, batch: Batch) -> Tensor:
    """(E, K) of the head's rewards (N,). UserError where the model has no such head."""
    if out.rewards is None or out.rewards.ndim != 1:
        raise UserError("this objective compares rewards, and the model gives none", where="objective",
                        fix="Train a reward model with it, such as reward_text or reward_image.")
    return out.rewards.reshape(-1, batch.candidates)


@dataclass(frozen=True, kw_only=True)
class Anchored(Objective):
    """What keeps rewards, which comparisons know but for a constant, where they can be read.

    absolute  weight of (reward - score)^2, the mean over the candidates of a group that have a score in
              ``given["rewards"]``; a group that has scores and no order then learns from them alone
    centre    weight of the squared sum of a pair's rewards (Eisenstein et al. 2023, "Helping or Herding?"; TRL advises
              0.01); of K candidates times 2 / K
    """

    absolute: float = 0.0
    centre: float = 0.0

    def __post_init__(self) -> None:
        if self.absolute < 0 or self.centre < 0:
            raise ValueError(f"absolute and centre are weights, at least 0, not {self.absolute} and {self.centre}")

    def _loss(
        self, losses: Tensor, rewards: Tensor, batch: Batch, above: Tensor, says: Tensor, by_strength: bool
    ) -> Loss:
        """``losses`` (E,) of the groups that say something, with the anchors added and the metrics counted."""
        there = present(batch)
        scored = self._scored(batch, there, rewards)
        learns = says | scored.any(dim=1)
        own = {name: value for name, value in batch.given.items() if by_strength or name != "strength"}
        weight = example_weights(replace(batch, given=own), learns, rewards.dtype)
        total = torch.where(says, losses, 0.0)
        if self.absolute:
            error = torch.where(scored, rewards - batch.given["rewards"].nan_to_num(), 0.0).square().sum(dim=1)
            total = total + self.absolute * error / scored.sum(dim=1).clamp_min(1)
        if self.centre:
            summed = torch.where(there, rewards, 0.0).sum(dim=1)
            total = total + self.centre * summed.square() * 2 / there.sum(dim=1)
        metrics = means(above, weight, rewards)
        with torch.no_grad():
            metrics["said_nothing"] = (~learns).sum().to(weight.dtype)
            if "rewards" in batch.given:
                metrics["zero_spread"] = _zero_spread(batch, there).sum().to(weight.dtype)
        return Loss((weight * total).sum(), weight.sum(), metrics)

    def _scored(self, batch: Batch, there: Tensor, rewards: Tensor) -> Tensor:
        """(E, K) bool: candidates whose score is learned from."""
        if not self.absolute:
            return torch.zeros_like(there)
        if "rewards" not in batch.given:
            raise UserError("'absolute' needs scores, and the groups have none", where="objective.absolute",
                            fix="Bring data with scores, or set it to 0.")
        return there & batch.given["rewards"].isfinite()


def _zero_spread(batch: Batch, there: Tensor) -> Tensor:
    """(E,) bool: at least two candidates have a score, and all scores are one."""
    scores = batch.given["rewards"]
    known = there & scores.isfinite()
    high = torch.where(known, scores, -torch.inf).amax(dim=1)
    low = torch.where(known, scores, torch.inf).amin(dim=1)
    return (known.sum(dim=1) > 1) & (high == low)


@dataclass(frozen=True, kw_only=True)
class RewardPairs(Anchored, ABC):
    """A likelihood of the outcome of a pair: the better of two, or a tie where the likelihood knows ties."""

    example: ClassVar[str] = "group"
    candidates: ClassVar[int] = 2
    inputs: ClassVar[frozenset[str]] = frozenset({"rewards"})
    accepts: ClassVar[frozenset[str]] = frozenset({"reward"})
    ties: ClassVar[bool] = False  # whether a tie is an outcome that is learned from
    weighed: ClassVar[bool] = True  # whether the strength of a preference multiplies its weight

    @abstractmethod
    def log_probs(self, chosen: Tensor, rejected: Tensor, tie: Tensor, strength: Tensor) -> Tensor:
        """(E,) log-probability of the outcome; ``tie`` (E,) bool, ``strength`` (E,) 1 where none is given."""

    def prepare(self, batch: Batch) -> Batch:
        if batch.candidates != 2:
            raise UserError(
                f"this objective trains on pairs, got groups of {batch.candidates}", where="objective",
                fix="Make pairs of them, or use plackett_luce.",
            )
        return batch

    def __call__(self, out: Outputs, batch: Batch) -> Loss:
        rewards, there = rewards_of(out, batch), present(batch)
        ranks = torch.where(there, batch.given["ranks"], 0)
        above = better(ranks, there)
        tie = (ranks > 0).all(dim=1) & (ranks[:, 0] == ranks[:, 1])
        says = above.flatten(1).any(dim=1) | (tie if self.ties else torch.zeros_like(tie))
        turned = above[:, 1, 0]
        chosen = torch.where(turned, rewards[:, 1], rewards[:, 0])
        rejected = torch.where(turned, rewards[:, 0], rewards[:, 1])
        strength = torch.ones_like(chosen)
        if "strength" in batch.given:
            strength = batch.given["strength"].to(chosen.dtype)
        log_probs = self.log_probs(chosen, rejected, tie & says, strength)
        loss = self._loss(-log_probs, rewards, batch, above, says, self.weighed)
        if not self.ties:
            return loss
        return replace(loss, metrics={**loss.metrics, "tie": (tie & says).sum().to(rewards.dtype)})
