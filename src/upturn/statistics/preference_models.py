"""Log-likelihoods of judgements of candidates: Bradley–Terry, Plackett–Luce, ties, vague raters, winner-only.

Shapes: ``rewards`` (B, K) in nats; ``ranks`` (B, K) integers, 1 is best, 0 where it has none; ``mask`` (B, K)
bool, False where a group has no such candidate. Every function gives (B,) log-probabilities, differentiable in the
rewards, unchanged when a constant is added to the rewards of a group; a group without judgements gives 0.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

_FAR = -1e30  # used for log 0, where -inf would make a gradient NaN
_MOST_TIED = 12  # candidates in a group with tied ranks: 2^12 subsets


def bradley_terry(chosen: Tensor, rejected: Tensor) -> Tensor:
    """(B,) log P(chosen beats rejected) = log sigmoid(chosen - rejected) (Bradley & Terry 1952, Biometrika 39)."""
    import torch

    return torch.nn.functional.logsigmoid(chosen - rejected)


def davidson(first: Tensor, second: Tensor, tie: Tensor, nu: Tensor | float) -> Tensor:
    """(B,) log-probability that the first is preferred, or of a tie where ``tie`` (B,) bool is true.

    P(tie) = nu sqrt(w1 w2) / (w1 + w2 + nu sqrt(w1 w2)), w = e^reward (Davidson 1970, JASA 65, equation 2.5).
    ``nu`` >= 0 is how readily annotators call a tie: equal candidates tie with probability nu / (2 + nu); 0 is
    Bradley–Terry. Raises ValueError where a tie is given and nu is 0, or nu is negative.
    """
    import torch

    strength = torch.as_tensor(nu, dtype=first.dtype, device=first.device)
    if bool((strength < 0).any()) or (bool(tie.any()) and bool((strength == 0).any())):
        raise ValueError(f"nu is {nu}: it must not be negative, and must be above 0 where there are ties")
    both = (first + second) / 2
    level = both + torch.where(strength > 0, strength, 1.0).log()
    level = torch.where(strength > 0, level, torch.full_like(both, _FAR))
    total = torch.logsumexp(torch.stack([first, second, level]), dim=0)
    return torch.where(tie, level, first) - total


def rao_kupper(first: Tensor, second: Tensor, tie: Tensor, threshold: Tensor | float) -> Tensor:
    """(B,) log-probability that the first is preferred, or of a tie where ``tie`` (B,) bool is true.

    P(first) = w1 / (w1 + theta w2), P(tie) = (theta^2 - 1) w1 w2 / ((w1 + theta w2) (theta w1 + w2)), w = e^reward,
    theta = e^``threshold`` (Rao & Kupper 1967, JASA 62, equations 2.2 and 2.3): annotators call a tie where they see a
    difference of less than ``threshold`` nats. 0 is Bradley–Terry. Raises ValueError where it is negative, or 0 and a
    tie is given.
    """
    import torch

    eta = torch.as_tensor(threshold, dtype=first.dtype, device=first.device)
    if bool((eta < 0).any()) or (bool(tie.any()) and bool((eta == 0).any())):
        raise ValueError(f"the threshold is {threshold}: it must not be negative, nor 0 where there are ties")
    gap = first - second
    wins = torch.nn.functional.logsigmoid(gap - eta)
    loses = torch.nn.functional.logsigmoid(-gap - eta)
    level = torch.where(eta > 0, torch.expm1(2 * eta), 1.0).log()
    return torch.where(tie, level + wins + loses, wins)


def vague(chosen: Tensor, rejected: Tensor, threshold: Tensor | float) -> Tensor:
    """(B,) log-probability that ``chosen`` is named by annotators who must choose; they see no gap below ``threshold``.

    Those whom Rao and Kupper let call a tie toss a coin: P = (sigmoid(gap - threshold) + sigmoid(gap + threshold)) / 2,
    P(first) + P(tie) / 2 of :func:`rao_kupper`. 0 is Bradley–Terry. Raises ValueError where it is negative.
    """
    import torch

    eta = torch.as_tensor(threshold, dtype=chosen.dtype, device=chosen.device)
    if bool((eta < 0).any()):
        raise ValueError(f"the threshold is {threshold}: it must not be negative")
    gap = chosen - rejected
    sides = torch.nn.functional.logsigmoid(torch.stack([gap - eta, gap + eta]))
    return torch.logsumexp(sides, dim=0) - math.log(2.0)


def winner_only(rewards: Tensor, ranks: Tensor, mask: Tensor) -> Tensor:
    """(B,) log-probability that the winner (rank 1) is the one picked of all candidates present: softmax over K.

    Candidates without a judgement count as seen and not chosen. Several of rank 1: that the pick is among them.
    """
    import torch

    won = mask & (ranks == 1)
    ranked_rows = won.any(dim=1)
    total = torch.logsumexp(torch.where(mask, rewards, _FAR), dim=1)
    winners = torch.logsumexp(torch.where(won, rewards, _FAR), dim=1)
    return torch.where(ranked_rows, winners - total, 0.0)


def plackett_luce(rewards: Tensor, ranks: Tensor, mask: Tensor) -> Tensor:
    """(B,) log-probability of the order in ``ranks`` (Plackett 1975, Applied Statistics 24; Luce 1959).

    Candidates with rank 0 are left out: by Luce's axiom the order of the others does not depend on them. Equal ranks
    say that the order between them is unknown, and the likelihood sums over it exactly; so ranks (1, 2, 2, 2) are a
    pick of one of four. With two candidates this is :func:`bradley_terry`.

    Raises ValueError above 12 candidates where candidates that are not last are tied.
    """
    ranked_rows = mask & (ranks > 0)
    if _tied_before_the_last(ranks, ranked_rows):
        return _tied(rewards, ranks, ranked_rows)
    return _ordered(rewards, ranks, ranked_rows)


def _tied_before_the_last(ranks: Tensor, ranked_rows: Tensor) -> bool:
    import torch

    same = (ranks[:, :, None] == ranks[:, None, :]) & ranked_rows[:, :, None] & ranked_rows[:, None, :]
    last = torch.where(ranked_rows, ranks, 0).amax(dim=1, keepdim=True)
    return bool(((same.sum(dim=2) > 1) & (ranks < last)).any())


def _ordered(rewards: Tensor, ranks: Tensor, ranked_rows: Tensor) -> Tensor:
    """Sum over all that are not last of reward - logsumexp of itself and the later ones."""
    import torch

    unranked = torch.iinfo(torch.int64).max
    order = torch.where(ranked_rows, ranks.long(), unranked).argsort(dim=1, stable=True)
    ranked, present = torch.where(ranked_rows, rewards, _FAR).gather(1, order), ranked_rows.gather(1, order)
    later = ranked.flip(1).logcumsumexp(dim=1).flip(1)
    last = torch.where(ranked_rows, ranks, 0).amax(dim=1, keepdim=True)
    counts = present & (ranks.gather(1, order) < last)
    return torch.where(counts, ranked - later, 0.0).sum(dim=1)


def _tied(rewards: Tensor, ranks: Tensor, ranked_rows: Tensor) -> Tensor:
    """The same, summed over the unknown orders: a recursion over the sets of candidates that are already placed.

    log P(set) = logsumexp over its possible last member j of log P(set without j) + reward_j - logsumexp(unplaced).
    Sets of one size are done together, (B, sets, K).
    """
    import torch

    width = rewards.shape[1]
    if width > _MOST_TIED:
        raise ValueError(f"tied ranks among {width} candidates: at most {_MOST_TIED} (or break the ties)")
    device = rewards.device
    sets = torch.arange(2**width, device=device)
    inside = ((sets[:, None] >> torch.arange(width, device=device)) & 1).bool()
    size = inside.sum(dim=1)
    # a row's absent candidates are placed first, at no cost: the recursion starts from them
    begin = (~ranked_rows).long() @ (2 ** torch.arange(width, device=device))
    values = torch.where(ranked_rows, rewards, _FAR)
    waiting = torch.logsumexp(torch.where(inside[None], _FAR, values[:, None, :]), dim=2)
    before = (ranks[:, None, :] < ranks[:, :, None]) & ranked_rows[:, None, :]  # (B, j, i): i must precede j
    level = torch.where(sets[:1] == begin[:, None], 0.0, _FAR).to(rewards.dtype)
    place = torch.zeros_like(sets)
    for step in range(1, width + 1):
        now = sets[size == step]
        previous = now[:, None] ^ (1 << torch.arange(width, device=device))  # without j; meaningless where j is not in
        member = inside[now]
        previous = torch.where(member, previous, 0)
        index = torch.where(member, place[previous], 0)
        ready = ~(before[:, None] & ~inside[previous][None]).any(dim=3)
        allowed = member[None] & ready & ranked_rows[:, None, :]
        moves = level[:, index] + values[:, None, :] - waiting[:, previous]
        fresh = torch.logsumexp(torch.where(allowed, moves, _FAR), dim=2)
        level = torch.where(now[None] == begin[:, None], 0.0, fresh.clamp_min(_FAR))
        place = place.clone()
        place[now] = torch.arange(len(now), device=device)
    return level[:, 0]
