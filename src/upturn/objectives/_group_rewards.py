"""Rewards of the candidates of a batch of groups: which count, and how many are left out.

Shapes: E groups of K candidates. A reward that is NaN, or a candidate that is not present, says nothing and weighs
nothing; the shares are of the whole batch that ``prepare`` sees, so that a micro-batch can report them.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from upturn.errors import UserError
from upturn.types import Batch

_FLAT = 1e-8  # a spread of rewards that is rounding and no difference


@dataclass(frozen=True)
class Judged:
    """``rewards`` (E, K), 0 where a candidate does not count; ``counts`` (E, K) bool.

    zero_spread  () share of the groups with two that count in which all of them have one reward: they teach nothing
    unscored     () share of the candidates present without a reward, or without the company they need
    """

    rewards: Tensor
    counts: Tensor
    zero_spread: Tensor
    unscored: Tensor

    def row_weights(self, batch: Batch) -> Tensor:
        """(E, K) the example's weight where a candidate counts, else 0."""
        weights = self.counts.to(self.rewards.dtype)
        return weights * batch.given["weights"][:, None].to(weights) if "weights" in batch.given else weights

    def shares(self) -> dict[str, Tensor]:
        """The shares of the batch as (E,) columns of ``given``."""
        examples = len(self.counts)
        return {"zero_spread": self.zero_spread.expand(examples), "unscored": self.unscored.expand(examples)}


def judge(batch: Batch, objective: str, *, company: int, dtype: torch.dtype | None = None) -> Judged:
    """Read ``given["rewards"]`` (E, K); a candidate counts where ``company`` of its group, itself included, are scored.

    In ``dtype``, or that of the rewards. Raises UserError where there are no rewards, groups are smaller than
    ``company``, or a reward is infinite.
    """
    if "rewards" not in batch.given:
        raise UserError(f"{objective} needs rewards, and the batch has none", fix="Score the samples before training.")
    if batch.candidates < company:
        raise UserError(
            f"{objective} compares candidates of one prompt, got groups of {batch.candidates}",
            fix=f"Draw {company} or more candidates a prompt.",
        )
    raw = batch.given["rewards"] if dtype is None else batch.given["rewards"].to(dtype)
    if bool(raw.isinf().any()):
        count = int(raw.isinf().sum())
        raise UserError(f"{objective} got {count} infinite rewards", fix="Bound what the scorer gives.")
    present = batch.given["present"] if "present" in batch.given else torch.ones_like(raw, dtype=torch.bool)
    scored = present & ~raw.isnan()
    counts = scored & (scored.sum(dim=1, keepdim=True) >= company)
    highest = torch.where(counts, raw, -torch.inf).amax(dim=1)
    lowest = torch.where(counts, raw, torch.inf).amin(dim=1)
    compared = counts.sum(dim=1) >= 2
    flat = compared & (highest - lowest <= _FLAT)
    return Judged(
        torch.where(counts, raw, 0.0), counts,
        _share(flat, compared).to(raw), _share(present & ~counts, present).to(raw),
    )  # fmt: skip


def _share(some: Tensor, of: Tensor) -> Tensor:
    return some.sum() / of.sum().clamp(min=1)
