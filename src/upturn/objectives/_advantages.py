"""Advantages: by how much an action did better than was to be expected.

Shapes: groups (E, K) with ``counts`` bool; rows (N, T) with a mask that is 0 where there is no action.
"""

from __future__ import annotations

import torch
from torch import Tensor

_STD_FLOOR = 1e-4  # added to a group's standard deviation, in units of reward: TRL's value
_VARIANCE_FLOOR = 1e-8


def leave_one_out(rewards: Tensor, counts: Tensor) -> Tensor:
    """(E, K) each reward less the mean of the *others* that count (Kool et al. 2019; Ahmadian et al. 2024).

    0 where a candidate does not count or is the only one.
    """
    kept = torch.where(counts, rewards, 0.0)
    others = (counts.sum(dim=1, keepdim=True) - 1).clamp(min=1).to(kept.dtype)
    baseline = (kept.sum(dim=1, keepdim=True) - kept) / others
    alone = counts.sum(dim=1, keepdim=True) < 2
    return torch.where(counts & ~alone, rewards - baseline, 0.0)


def group_relative(rewards: Tensor, counts: Tensor, *, by_std: bool) -> Tensor:
    """(E, K) each reward less the mean of its group, over its standard deviation where ``by_std``.

    Shao et al. 2024, section 4.1.2; the deviation is the unbiased one, and 1e-4 is added to it. A group of equal
    rewards gives exactly 0.
    """
    kept = torch.where(counts, rewards, 0.0)
    number = counts.sum(dim=1, keepdim=True).to(kept.dtype)
    centred = torch.where(counts, rewards - kept.sum(dim=1, keepdim=True) / number.clamp(min=1), 0.0)
    if not by_std:
        return centred
    deviation = (centred.square().sum(dim=1, keepdim=True) / (number - 1).clamp(min=1)).sqrt()
    # rounding of the mean is not a difference: over a deviation of nothing it would look like one
    flat = deviation <= torch.finfo(kept.dtype).eps * kept.abs().amax(dim=1, keepdim=True)
    return torch.where(flat, 0.0, centred / (deviation + _STD_FLOOR))


def generalised(rewards: Tensor, values: Tensor, mask: Tensor, *, gamma: float, lam: float) -> tuple[Tensor, Tensor]:
    """(N, T) advantages and (N, T) returns by GAE(gamma, lam) (Schulman et al. 2016, eq. 16).

    ``values[:, t]`` is the worth of the state *before* action t. Nothing comes after the last action of a row; places
    that the mask leaves out are stepped over, and are 0 in the answer. A return is an advantage plus the value.
    """
    advantages = torch.zeros_like(values)
    running, following = torch.zeros_like(values[:, :1]), torch.zeros_like(values[:, :1])
    for t in reversed(range(values.shape[1])):
        at = slice(t, t + 1)
        acts = mask[:, at] > 0
        error = rewards[:, at] + gamma * following - values[:, at]
        running = torch.where(acts, error + gamma * lam * running, running)
        following = torch.where(acts, values[:, at], following)
        advantages[:, at] = torch.where(acts, running, 0.0)
    return advantages, torch.where(mask > 0, advantages + values, 0.0)


def at_the_end(rewards: Tensor, mask: Tensor) -> Tensor:
    """(N, T) with ``rewards`` (N,) at the last action of each row, 0 elsewhere."""
    acts = (mask > 0).long()
    last = (acts > 0) & (acts.flip(1).cumsum(dim=1).flip(1) == 1)
    return torch.where(last, rewards[:, None], 0.0)


def whitened(values: Tensor, mask: Tensor) -> Tensor:
    """(N, T) shifted and scaled to mean 0 and variance 1 over all that the mask keeps; 0 elsewhere."""
    number = mask.sum().clamp(min=1)
    centred = torch.where(mask > 0, values - (values * mask).sum() / number, 0.0)
    variance = (centred.square() * mask).sum() / (number - 1).clamp(min=1)
    return centred * (variance + _VARIANCE_FLOOR).rsqrt()
