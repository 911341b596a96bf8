"""RPO, listwise and KTO against enumeration and other formulas; offline objectives on a bandit of known optimum."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch.distributions import Bernoulli, kl_divergence

from helpers import bandit
from upturn.errors import UserError
from upturn.objectives.dpo import Dpo
from upturn.objectives.hinge import Hinge
from upturn.objectives.ipo import Ipo
from upturn.objectives.kto import Kto
from upturn.objectives.listwise import Listwise
from upturn.objectives.rpo import Rpo
from upturn.types import Batch, Outputs

DISTANCES = ["squared", "forward_kl", "backward_kl"]


def outputs(rows: int, seed: int = 0, width: int = 3) -> Outputs:
    rng = torch.Generator().manual_seed(seed)
    log_probs = -2 * torch.rand(rows, width, generator=rng, dtype=torch.float64)
    reference = -2 * torch.rand(rows, width, generator=rng, dtype=torch.float64)
    mask = (torch.rand(rows, width, generator=rng) > 0.3).double()
    mask[:, 0] = 1
    return Outputs(log_probs, mask, ref_log_probs=reference)


def implicit(out: Outputs, beta: float, candidates: int) -> torch.Tensor:
    assert out.ref_log_probs is not None
    return beta * ((out.log_probs - out.ref_log_probs) * out.mask).sum(dim=1).reshape(-1, candidates)


def group(ranks: list[list[int]], **given: Any) -> Batch:
    said = {"ranks": torch.tensor(ranks), **{name: torch.as_tensor(value) for name, value in given.items()}}
    return Batch({"x": torch.zeros(len(ranks) * len(ranks[0]))}, len(ranks[0]), said)


# --- RPO


@pytest.mark.parametrize("distance", DISTANCES)
def test_rpo_is_the_distance_of_the_gaps(distance: Any) -> None:
    out = outputs(10)
    given = torch.tensor([[0.3, 1.1], [2.0, -1.0], [0.5, 0.5], [math.nan, 1.0], [4.0, 1.0]])
    objective = Rpo(beta=0.4, eta=1.7, distance=distance, likelihood=0.3)
    loss = objective(out, Batch({"x": torch.zeros(10)}, 2, {"rewards": given}))
    rewards = implicit(out, 0.4, 2)
    a, b = rewards[:, 0] - rewards[:, 1], 1.7 * (given[:, 0] - given[:, 1]).double()
    policy, target = Bernoulli(logits=a), Bernoulli(logits=b.nan_to_num())
    each = {
        "squared": (a - b) ** 2 / 2, "forward_kl": kl_divergence(policy, target),
        "backward_kl": kl_divergence(target, policy),
    }[distance]
    best = [1, 2, 4, 9, 8]
    per_token = ((out.log_probs * out.mask).sum(1) / out.mask.sum(1))[best]
    total = sum(float(each[e] - 0.3 * per_token[e]) for e in (0, 1, 2, 4))
    assert float(loss.sum) == pytest.approx(total)
    assert float(loss.weight) == 4
    assert float(loss.metrics["said_nothing"]) == 1


@pytest.mark.parametrize("distance", DISTANCES)
def test_rpo_gradients(distance: Any) -> None:
    out = outputs(8)
    given = torch.tensor([[0.3, 1.1], [2.0, -1.0], [0.5, 0.5], [math.nan, 1.0]])
    batch = Batch({"x": torch.zeros(8)}, 2, {"rewards": given})
    objective = Rpo(beta=0.4, distance=distance)
    log_probs = out.log_probs.requires_grad_()
    assert torch.autograd.gradcheck(lambda p: objective(replace(out, log_probs=p), batch).sum, log_probs)


def test_rpo_with_a_certain_preference_is_dpo() -> None:
    """KL of a target that is 1 is the cross-entropy, -log sigmoid."""
    out = outputs(6)
    far = torch.tensor([[100.0, 0.0], [0.0, 100.0], [100.0, 0.0]])
    certain = Rpo(beta=0.4)(out, Batch({"x": torch.zeros(6)}, 2, {"rewards": far}))
    assert float(certain.sum) == pytest.approx(float(Dpo(0.4)(out, group([[1, 2], [2, 1], [1, 2]])).sum))


def test_rpo_needs_rewards() -> None:
    with pytest.raises(UserError, match="needs the rewards"):
        Rpo().prepare(group([[1, 2]]))
    with pytest.raises(ValueError, match="eta"):
        Rpo(eta=0.0)


# --- listwise


def by_enumeration(rewards: list[float], ranks: list[int]) -> float:
    """log P that a draw without replacement, each time by softmax, gives an order that agrees with the ranks."""
    said = [i for i, rank in enumerate(ranks) if rank > 0]
    total = 0.0
    for order in itertools.permutations(said):
        if any(ranks[a] > ranks[b] for a, b in itertools.pairwise(order)):
            continue
        p = 1.0
        for step, i in enumerate(order):
            p *= math.exp(rewards[i]) / sum(math.exp(rewards[j]) for j in order[step:])
        total += p
    return math.log(total)


@pytest.mark.parametrize(
    "ranks",
    [[1, 2, 3, 4], [4, 2, 3, 1], [1, 2, 2, 2], [2, 1, 0, 0], [1, 1, 2, 2], [1, 2, 2, 3], [0, 3, 1, 2]],
    ids=["full", "full, other order", "the best", "two of four", "two best", "a tie inside", "three of four"],
)
def test_rankings_by_enumeration(ranks: list[int]) -> None:
    out = outputs(4)
    loss = Listwise(beta=0.7)(out, group([ranks]))
    assert float(loss.sum) == pytest.approx(-by_enumeration(implicit(out, 0.7, 4)[0].tolist(), ranks))
    assert float(loss.weight) == 1


@pytest.mark.parametrize("ranks", [[1, 0, 0, 0], [0, 0, 1, 0], [1, 0, 1, 0]], ids=["first", "third", "one of two"])
def test_a_pick_is_a_softmax(ranks: list[int]) -> None:
    out = outputs(4)
    shares = implicit(out, 0.7, 4)[0].softmax(0)
    picked = float(sum(shares[i] for i, rank in enumerate(ranks) if rank))
    loss = Listwise(beta=0.7)(out, group([ranks]))
    assert float(loss.sum) == pytest.approx(-math.log(picked))
    there = torch.tensor([[True, True, True, False]])
    without = implicit(out, 0.7, 4)[0][:3].softmax(0)
    fewer = float(sum(without[i] for i, rank in enumerate(ranks) if rank))
    assert float(Listwise(beta=0.7)(out, group([ranks], present=there)).sum) == pytest.approx(-math.log(fewer))


def test_kinds_of_groups_stand_side_by_side() -> None:
    ranks = [[1, 2, 3], [1, 0, 0], [1, 1, 1], [0, 0, 0], [0, 2, 1], [2, 0, 0]]
    weights = [1.0, 2.0, 5.0, 5.0, 0.5, 5.0]
    out = outputs(18)
    batch = group(ranks, weights=weights)
    loss = Listwise(beta=0.7)(out, batch)
    each = [
        float(Listwise(beta=0.7)(part(out, e, e + 1, 3), batch.take(torch.tensor([e]))).sum) for e in range(len(ranks))
    ]
    assert float(loss.sum) == pytest.approx(sum(each))
    assert [value == 0 for value in each] == [False, False, True, True, False, True]
    assert float(loss.weight) == 3.5
    assert float(loss.metrics["said_nothing"]) == 3


def part(out: Outputs, start: int, stop: int, candidates: int) -> Outputs:
    inside = slice(start * candidates, stop * candidates)
    assert out.ref_log_probs is not None
    return replace(
        out, log_probs=out.log_probs[inside], mask=out.mask[inside], ref_log_probs=out.ref_log_probs[inside]
    )


@pytest.mark.parametrize("ranks", [[[1, 2], [2, 1], [3, 1]], [[1, 0], [0, 1], [0, 1]]], ids=["ranks", "picks"])
def test_listwise_of_two_is_dpo(ranks: list[list[int]]) -> None:
    out = outputs(6)
    dpo, listwise = Dpo(0.4)(out, group([[1, 2], [2, 1], [2, 1]])), Listwise(0.4)(out, group(ranks))
    assert float(listwise.sum) == pytest.approx(float(dpo.sum))
    for name, value in dpo.metrics.items():
        assert float(listwise.metrics[name]) == pytest.approx(float(value)), name


def test_listwise_gradients() -> None:
    out = outputs(18)
    batch = group([[1, 2, 3], [1, 0, 0], [1, 1, 1], [0, 0, 0], [1, 1, 2], [3, 1, 1]])
    log_probs = out.log_probs.requires_grad_()
    objective = Listwise(0.7, length_normalised=True)
    assert torch.autograd.gradcheck(lambda p: objective(replace(out, log_probs=p), batch).sum, log_probs)


def test_listwise_refuses_what_cannot_be_summed() -> None:
    with pytest.raises(UserError, match="single samples"):
        Listwise().prepare(group([[1], [1]]))
    with pytest.raises(UserError, match="among 13 candidates"):
        Listwise().prepare(group([[1, 1, *range(2, 13)]]))
    Listwise().prepare(group([[1, *[2] * 12], [*range(1, 14)], [1, *[0] * 12]]))


# --- KTO


def prepared(objective: Kto, out: Outputs, batch: Batch) -> tuple[Outputs, Batch]:
    known = {"before_log_probs": out.log_probs.detach(), "before_ref_log_probs": out.ref_log_probs}
    ready = objective.prepare(batch.with_columns(**known, before_mask=out.mask))  # type: ignore[arg-type]
    assert out.ref_log_probs is not None
    return Outputs(out.log_probs[::2], out.mask[::2], ref_log_probs=out.ref_log_probs[::2]), ready


@pytest.mark.parametrize("shift", [0.0, 5.0], ids=["KL below 0", "KL above 0"])
def test_kto_is_equation_8(shift: float) -> None:
    out = outputs(10)
    assert out.ref_log_probs is not None
    out = replace(out, ref_log_probs=out.ref_log_probs - shift + 1)
    ranks, weights = [[1, 0], [2, 0], [1, 0], [0, 0], [2, 0]], [1.0, 0.5, 2.0, 7.0, 1.0]
    objective = Kto(beta=0.3, desirable_weight=1.2, undesirable_weight=0.8)
    rows, ready = prepared(objective, out, group(ranks, weights=weights))
    loss = objective(rows, ready)
    ratios = implicit(out, 1.0, 2)
    point = max(0.0, float(ratios[:, 1].mean()))
    assert (point > 0) == (shift > 0)
    total, bottom = 0.0, 0.0
    for (label, _), weight, ratio in zip(ranks, weights, ratios[:, 0].tolist(), strict=True):
        if label == 0:
            continue
        value = 0.3 * (ratio - point) if label == 1 else 0.3 * (point - ratio)
        total += weight * (1.2 if label == 1 else 0.8) * (1 - 1 / (1 + math.exp(-value)))
        bottom += weight
    assert (float(loss.sum), float(loss.weight)) == pytest.approx((total, bottom))
    assert float(loss.metrics["said_nothing"]) == 1
    desirable = (float(ratios[0, 0]) + 2 * float(ratios[2, 0])) / 3
    assert float(loss.metrics["chosen_reward"] / loss.weight) == pytest.approx(0.3 * desirable)


def test_kto_micro_batches_share_the_reference_point() -> None:
    out = outputs(12)
    assert out.ref_log_probs is not None
    out = replace(out, ref_log_probs=out.ref_log_probs - 1)
    rows, ready = prepared(Kto(), out, group([[1, 0], [2, 0], [1, 0], [2, 0], [1, 0], [0, 0]]))
    assert float(ready.given["z"][0]) > 0
    whole = Kto()(rows, ready)
    parts = [
        Kto()(part(rows, a, b, 1), ready.take(torch.arange(a, b))) for a, b in itertools.pairwise((0, 1, 4, 6))
    ]
    assert float(whole.sum) == pytest.approx(sum(float(p.sum) for p in parts))
    for name, value in whole.metrics.items():
        assert float(value) == pytest.approx(sum(float(p.metrics[name]) for p in parts)), name


def test_kto_gradients_leave_the_reference_point_alone() -> None:
    out = outputs(8)
    rows, ready = prepared(Kto(0.5), out, group([[1, 0], [2, 0], [1, 0], [0, 0]]))
    log_probs = rows.log_probs.requires_grad_()
    assert torch.autograd.gradcheck(lambda p: Kto(0.5)(replace(rows, log_probs=p), ready).sum, log_probs)


# --- a bandit whose optimum is known


def pairs_of(count: int) -> list[tuple[int, ...]]:
    return list(itertools.permutations(range(count), 2))


def preferred(objective: Any) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Every ordered pair of arms, weighed by the probability that Bradley–Terry says so; p0, found and optimum."""
    start, rewards = bandit.arms()
    groups = pairs_of(len(start))
    says = torch.stack([(rewards[a] - rewards[b]).sigmoid() for a, b in groups])
    ranks = torch.tensor([[1, 2]]).expand(len(groups), 2)
    which, batch = bandit.examples(groups, ranks=ranks, weights=says)
    return start.exp(), bandit.solve(objective, start, which, batch), bandit.optimum(start, rewards)


@pytest.mark.parametrize("objective", [Dpo(bandit.BETA), Listwise(bandit.BETA)], ids=["dpo", "listwise"])
def test_pairs_find_the_optimum(objective: Any) -> None:
    start, found, best = preferred(objective)
    assert bandit.total_variation(start, best) > 0.2
    assert bandit.total_variation(found, best) < 1e-4


@pytest.mark.parametrize("objective", [Ipo(bandit.BETA), Hinge(bandit.BETA)], ids=["ipo", "hinge"])
def test_other_losses_of_the_margin_have_another_optimum(objective: Any) -> None:
    """Not a fault: IPO fits the share of votes, not its log-odds, and a hinge only its side. The bandit can tell."""
    _, found, best = preferred(objective)
    assert bandit.total_variation(found, best) > 0.02


def test_ipo_finds_its_own_optimum() -> None:
    """Azar et al. 2023, equation 8: p ∝ p0 exp(E[P(y beats y')] / beta), uniform opponents, itself a coin."""
    start, rewards = bandit.arms()
    _, found, _ = preferred(Ipo(bandit.BETA))
    wins = (rewards[:, None] - rewards[None, :]).sigmoid().mean(dim=1)
    assert bandit.total_variation(found, bandit.optimum(start, wins)) < 1e-4


@pytest.mark.parametrize("distance", DISTANCES)
def test_rpo_finds_the_optimum(distance: Any) -> None:
    start, rewards = bandit.arms()
    groups = list(itertools.combinations(range(len(start)), 2))
    which, batch = bandit.examples(groups, rewards=rewards[torch.tensor(groups)])
    found = bandit.solve(Rpo(bandit.BETA, distance=distance), start, which, batch)
    assert bandit.total_variation(found, bandit.optimum(start, rewards)) < 1e-4
    twice = bandit.solve(Rpo(bandit.BETA, eta=2.0, distance=distance), start, which, batch)
    assert bandit.total_variation(twice, bandit.optimum(start, 2 * rewards)) < 1e-4


@pytest.mark.parametrize("places", [4, 2, 1], ids=["full rankings", "the first two", "picks"])
def test_listwise_finds_the_optimum(places: int) -> None:
    """Four of six arms; every order of the first places, weighed by its probability under Plackett–Luce."""
    start, rewards = bandit.arms(6)
    groups, ranks, says = [], [], []
    for four in itertools.combinations(range(6), 4):
        for order in itertools.permutations(range(4), places):
            p, left = 1.0, list(range(4))
            for i in order:
                p *= float(rewards[four[i]].exp() / sum(rewards[four[j]].exp() for j in left))
                left.remove(i)
            rest = 0 if places == 1 else places + 1
            groups.append(four)
            ranks.append([order.index(i) + 1 if i in order else rest for i in range(4)])
            says.append(p)
    which, batch = bandit.examples(groups, ranks=torch.tensor(ranks), weights=torch.tensor(says, dtype=torch.float64))
    found = bandit.solve(Listwise(bandit.BETA), start, which, batch)
    best = bandit.optimum(start, rewards)
    assert bandit.total_variation(start.exp(), best) > 0.2
    assert bandit.total_variation(found, best) < 1e-4
