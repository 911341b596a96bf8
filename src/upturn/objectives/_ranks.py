"""Ranks (E, K) of a group: likelihood under Plackett–Luce, pairwise preferences, means."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from upturn.errors import UserError
from upturn.objectives._rows import present
from upturn.statistics.preference_models import plackett_luce, winner_only
from upturn.types import Batch

_MOST_TIED = 12  # candidates: statistics.preference sums over 2^12 sets at most


def groups_only(name: str, batch: Batch) -> Batch:
    """UserError where candidates cannot be compared, or their ties not be summed over."""
    if batch.candidates < 2:
        raise UserError(f"{name} compares candidates of one prompt, got single samples", where="objective")
    ranks = torch.where(present(batch), batch.given["ranks"], 0)
    same = (ranks[:, :, None] == ranks[:, None, :]).sum(dim=2) > 1
    tied = same & (ranks > 0) & (ranks < ranks.amax(dim=1, keepdim=True))
    if batch.candidates > _MOST_TIED and bool(tied.any()):
        raise UserError(
            f"ties before the last rank among {batch.candidates} candidates; at most {_MOST_TIED} can be tied so",
            where="objective", fix="Break the ties, or give the tied candidates the last rank.",
        )
    return batch


def picks(ranks: Tensor, there: Tensor) -> Tensor:
    """(E,) bool: only rank 1 is given, the others have none: one of all present candidates was picked."""
    ranked = torch.where(there, ranks, 0)
    return (ranked.amax(dim=1) == 1) & (there & (ranked == 0)).any(dim=1)


def log_likelihood(rewards: Tensor, ranks: Tensor, there: Tensor) -> Tensor:
    """(E,) log P of what the ranks say of rewards (E, K): of a pick softmax, of a ranking Plackett–Luce, else 0."""
    pick = picks(ranks, there)[:, None]
    # where its ranks say nothing each of the two is 0
    return winner_only(rewards, torch.where(pick, ranks, 0), there) + plackett_luce(
        rewards, torch.where(pick, 0, ranks), there
    )


def better(ranks: Tensor, there: Tensor) -> Tensor:
    """(E, K, K) bool: candidate i is preferred to j; of a pick, the picked one to all others."""
    placed = torch.where(there, ranks, 0)
    placed = torch.where(picks(ranks, there)[:, None] & there & (placed == 0), 2, placed)
    ranked = placed > 0
    return (placed[:, :, None] < placed[:, None, :]) & ranked[:, :, None] & ranked[:, None, :]


@torch.no_grad()
def means(above: Tensor, weight: Tensor, rewards: Tensor, others: Mapping[str, Tensor] = {}) -> dict[str, Tensor]:
    """Metrics: means over a group's (better, worse) pairs ``above`` (E, K, K), summed with ``weight`` (E,).

    ``others`` are more values (E, K), each reported as chosen_… and rejected_….
    """
    share = above.to(rewards.dtype)
    share = share / share.sum(dim=(1, 2), keepdim=True).clamp_min(1)
    gap = rewards[:, :, None] - rewards[:, None, :]
    each = {"accuracy": (share * (gap > 0)).sum(dim=(1, 2)), "margin": (share * gap).sum(dim=(1, 2))}
    for name, values in {"reward": rewards, **others}.items():
        each[f"chosen_{name}"] = (share.sum(dim=2) * values).sum(dim=1)
        each[f"rejected_{name}"] = (share.sum(dim=1) * values).sum(dim=1)
    return {name: (weight * value).sum() for name, value in each.items()}
