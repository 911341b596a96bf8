"""Functions from the rewards of a group to the weights of its candidates: (E, K) rewards, (E, K) bool that counts."""

from __future__ import annotations

import torch
from torch import Tensor


def exponential(rewards: Tensor, counts: Tensor, beta: float) -> Tensor:
    """(E, K) e^{r / beta}, scaled to sum to 1 over the group; 0 for a group in which nothing counts."""
    raised = torch.where(counts, rewards / beta, -torch.inf)
    highest = torch.where(counts.any(dim=1, keepdim=True), raised.amax(dim=1, keepdim=True), 0.0)
    weights = (raised - highest).exp()
    return weights / weights.sum(dim=1, keepdim=True).clamp(min=torch.finfo(rewards.dtype).tiny)


def threshold(rewards: Tensor, counts: Tensor, above: float) -> Tensor:
    """(E, K) 1 where a reward is above the threshold, else 0."""
    return (counts & (rewards > above)).to(rewards.dtype)


def rank(rewards: Tensor, counts: Tensor, best: float) -> Tensor:
    """(E, K) by place alone: log(m + 1/2) - log place for the m best, 0 below, scaled to sum to 1 over the group.

    m is the share ``best`` of those that count, 1 at least. Equal rewards share the weights of the places they fill.
    """
    number = counts.sum(dim=1, keepdim=True)
    taken = (best * number).round().clamp(min=1).to(rewards.dtype)
    places = torch.arange(1, rewards.shape[1] + 1, dtype=rewards.dtype, device=rewards.device)[None, :]
    of_place = torch.where(places <= taken, (taken + 0.5).log() - places.log(), 0.0)
    below = torch.cat([torch.zeros_like(of_place[:, :1]), of_place.cumsum(dim=1)], dim=1)
    # places from the worst side: how many are strictly better, and how many better or equal
    falling = torch.where(counts, -rewards, torch.inf)
    ordered = falling.sort(dim=1).values
    better = torch.searchsorted(ordered, falling.contiguous(), right=False)
    reached = torch.minimum(torch.searchsorted(ordered, falling.contiguous(), right=True), number)
    shared = (below.gather(1, reached) - below.gather(1, better)) / (reached - better).clamp(min=1)
    weights = torch.where(counts, shared, 0.0)
    return weights / weights.sum(dim=1, keepdim=True).clamp(min=torch.finfo(rewards.dtype).tiny)
