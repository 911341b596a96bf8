"""Objectives on pairs against formulas in plain Python, finite differences, and the optimum of a bandit."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from helpers.small_recipes import POINTS, small
from upturn.errors import UserError
from upturn.loop.assemble import assemble
from upturn.objectives.dpo import Dpo
from upturn.objectives.hinge import Hinge
from upturn.objectives.ipo import Ipo
from upturn.objectives.kto import Kto
from upturn.objectives.orpo import Orpo
from upturn.objectives.rpo import Rpo
from upturn.objectives.simpo import Simpo
from upturn.types import Batch, Loss, Outputs

E, T = 7, 5
RANKS = [[1, 2], [2, 1], [1, 2], [3, 1], [1, 1], [0, 0], [2, 0]]  # four preferences, a tie, two that say nothing
ALL = [
    Dpo(0.3), Dpo(0.3, label_smoothing=0.1, likelihood=0.2), Dpo(2.0, length_normalised=True),
    Ipo(0.4), Ipo(0.4, label_smoothing=0.2, length_normalised=True, likelihood=1.0),
    Hinge(0.9), Hinge(3.0, label_smoothing=0.1, length_normalised=True),
    Simpo(2.0, gamma=0.7), Simpo(2.5, gamma=0.3, label_smoothing=0.1, likelihood=0.5),
    Orpo(0.2), Orpo(0.5, label_smoothing=0.1, likelihood=0.3),
]
IDS = [f"{type(objective).__name__.lower()}-{i}" for i, objective in enumerate(ALL)]


def outputs(seed: int = 0, examples: int = E, **changes: Any) -> Outputs:
    rng = torch.Generator().manual_seed(seed)
    shape = (2 * examples, T)
    log_probs = -1.5 * torch.rand(shape, generator=rng, dtype=torch.float64)
    reference = -1.5 * torch.rand(shape, generator=rng, dtype=torch.float64)
    mask = (torch.rand(shape, generator=rng) > 0.3).double()
    mask[:, 0] = 1
    return Outputs(log_probs, mask, ref_log_probs=reference, **changes)


def batch(**given: Any) -> Batch:
    said = {"ranks": torch.tensor(RANKS), **{name: torch.as_tensor(value) for name, value in given.items()}}
    return Batch({"x": torch.zeros(2 * E)}, 2, said)


def row(out: Outputs, i: int, log_probs: Tensor) -> tuple[float, int]:
    """Sum over what counts, and how many that are; no vectorised arithmetic."""
    counted = [float(log_probs[i, t]) for t in range(T) if out.mask[i, t]]
    return sum(counted) / out.draws, len(counted) * out.dims // out.draws


def reward(objective: Any, out: Outputs, i: int) -> float:
    assert out.ref_log_probs is not None
    total, length = row(out, i, out.log_probs)
    if isinstance(objective, Simpo):
        return objective.beta / length * total
    if isinstance(objective, Orpo):
        p = math.exp(total / length)
        return math.log(p / (1 - p))
    ratio = total - row(out, i, out.ref_log_probs)[0]
    return objective.beta * ratio / (length if objective.length_normalised else 1)


def one(objective: Any, margin: float) -> float:
    """The loss of a margin with certain labels, as the papers write it."""
    match objective:
        case Ipo():
            return (margin / objective.beta - 1 / (2 * objective.beta)) ** 2
        case Hinge():
            return max(0.0, 1 - margin)
        case Orpo():
            return -objective.beta * math.log(1 / (1 + math.exp(-margin)))
        case _:
            return -math.log(1 / (1 + math.exp(-margin)))


def expected(objective: Any, out: Outputs, weights: list[float]) -> tuple[float, float]:
    total = bottom = 0.0
    for e in range(4):
        best, worst = (2 * e, 2 * e + 1) if RANKS[e][0] < RANKS[e][1] else (2 * e + 1, 2 * e)
        margin = reward(objective, out, best) - reward(objective, out, worst)
        margin -= objective.gamma if isinstance(objective, Simpo) else 0.0
        share = objective.label_smoothing
        loss = (1 - share) * one(objective, margin) + share * one(objective, -margin)
        summed, length = row(out, best, out.log_probs)
        total += weights[e] * (loss - objective.likelihood * summed / length)
        bottom += weights[e]
    return total, bottom


@pytest.mark.parametrize("objective", ALL, ids=IDS)
def test_the_formula(objective: Any) -> None:
    out, plain = outputs(), [1.0] * E
    loss = objective(out, batch())
    assert (float(loss.sum), float(loss.weight)) == pytest.approx(expected(objective, out, plain))
    given = [0.5, 2.0, 0.0, 1.5, 9.0, 9.0, 9.0]
    strength = [1.0, 0.5, 1.0, 3.0, 1.0, 1.0, 1.0]
    loss = objective(out, batch(weights=given, strength=strength))
    both = [w * s for w, s in zip(given, strength, strict=True)]
    assert (float(loss.sum), float(loss.weight)) == pytest.approx(expected(objective, out, both))
    assert float(loss.metrics["said_nothing"]) == 3


@pytest.mark.parametrize("objective", [Dpo(0.3, likelihood=0.2), Ipo(0.4, length_normalised=True), Hinge(0.9)])
def test_draws_of_diffusion_estimate_one_thing(objective: Any) -> None:
    """Four log-probs of 3 dimensions each, drawn alike: a row is their mean, and its length 3."""
    once = outputs(dims=3)
    assert once.ref_log_probs is not None
    first = replace(
        once, log_probs=once.log_probs[:, :1], mask=once.mask[:, :1], ref_log_probs=once.ref_log_probs[:, :1]
    )
    assert first.ref_log_probs is not None
    again = replace(
        first, log_probs=first.log_probs.repeat(1, 4), mask=first.mask.repeat(1, 4), draws=4,
        ref_log_probs=first.ref_log_probs.repeat(1, 4),
    )
    assert float(objective(first, batch()).sum) == pytest.approx(float(objective(again, batch()).sum))


@pytest.mark.parametrize("objective", ALL, ids=IDS)
def test_gradients_against_finite_differences(objective: Any) -> None:
    out = outputs()
    log_probs = out.log_probs.requires_grad_()
    assert torch.autograd.gradcheck(lambda p: objective(replace(out, log_probs=p), batch()).sum, log_probs)
    objective(out, batch()).sum.backward()
    assert log_probs.grad is not None
    assert bool((log_probs.grad[8:] == 0).all())  # ties and the unsaid teach nothing


@pytest.mark.parametrize("objective", [*ALL, Rpo(0.3)], ids=[*IDS, "rpo"])
def test_pain_6_micro_batches_add_up(objective: Any) -> None:
    out = outputs()
    rewards = torch.linspace(-2, 2, 2 * E).reshape(E, 2) ** 2
    whole = batch(weights=[1.0, 2.0, 0.5, 1.0, 1.0, 1.0, 1.0], rewards=rewards)
    parts = []
    for start, stop in ((0, 1), (1, 5), (5, E)):
        inside = slice(2 * start, 2 * stop)
        part = replace(
            out, log_probs=out.log_probs[inside], mask=out.mask[inside], ref_log_probs=out.ref_log_probs[inside]
        )
        parts.append(objective(part, whole.take(torch.arange(start, stop))))
    same(objective(out, whole), parts)


def same(whole: Loss, parts: list[Loss]) -> None:
    assert float(whole.sum) == pytest.approx(sum(float(part.sum) for part in parts))
    assert float(whole.weight) == pytest.approx(sum(float(part.weight) for part in parts))
    for name, value in whole.metrics.items():
        assert float(value) == pytest.approx(sum(float(part.metrics[name]) for part in parts)), name


@pytest.mark.parametrize("objective", ALL, ids=IDS)
def test_the_order_of_rows_says_nothing(objective: Any) -> None:
    out = outputs()
    turn = torch.arange(2 * E).reshape(E, 2).flip(1).reshape(-1)
    turned = Outputs(out.log_probs[turn], out.mask[turn], ref_log_probs=out.ref_log_probs[turn])
    mirrored = batch(ranks=torch.tensor(RANKS).flip(1))
    same(objective(out, batch()), [objective(turned, mirrored)])


def test_a_pair_that_is_not_whole_weighs_nothing() -> None:
    there = torch.ones(E, 2, dtype=torch.bool)
    there[1, 1] = False
    loss = Dpo()(outputs(), batch(present=there))
    assert float(loss.weight) == 3
    assert float(loss.metrics["said_nothing"]) == 4


def test_pain_8_both_log_probs_falling_is_seen() -> None:
    """The margin grows while both completions lose probability: margin and accuracy alone would look like success."""
    out = outputs()
    better = torch.tensor([r[0] < r[1] for r in RANKS])
    fall = torch.where(torch.stack([better, ~better], dim=1), 0.5, 2.0).reshape(-1, 1)
    fallen = Dpo()(replace(out, log_probs=out.log_probs - fall), batch())
    before = Dpo()(out, batch())
    assert float(fallen.metrics["margin"]) > float(before.metrics["margin"])
    for name in ("chosen_log_prob", "rejected_log_prob"):
        assert float(fallen.metrics[name]) < float(before.metrics[name])
    chosen = [row(out, 2 * e + (RANKS[e][0] > RANKS[e][1]), out.log_probs)[0] for e in range(4)]
    assert float(before.metrics["chosen_log_prob"]) == pytest.approx(sum(chosen))


def test_a_certain_completion_has_finite_odds() -> None:
    log_probs = torch.zeros(2, 1, requires_grad=True)
    pair = Batch({"x": torch.zeros(2)}, 2, {"ranks": torch.tensor([[1, 2]])})
    loss = Orpo()(Outputs(log_probs, torch.ones(2, 1)), pair)
    loss.sum.backward()
    assert math.isfinite(float(loss.sum.detach()))
    assert log_probs.grad is not None
    assert bool(torch.isfinite(log_probs.grad).all())


@pytest.mark.parametrize("kind", [Dpo, Ipo, Hinge, Simpo, Orpo, Rpo, Kto])
def test_what_does_not_fit_is_refused(kind: Any) -> None:
    three = Batch({"x": torch.zeros(6)}, 3, {"rewards": torch.zeros(2, 3)})
    with pytest.raises(UserError, match="groups of 3"):
        kind().prepare(three)
    with pytest.raises(ValueError, match="beta"):
        kind(beta=0.0)


@pytest.mark.parametrize("kind", [Dpo, Ipo, Hinge, Simpo, Orpo])
def test_shares_and_weights_are_checked(kind: Any) -> None:
    with pytest.raises(ValueError, match=r"label_smoothing must lie in \[0, 0.5\)"):
        kind(label_smoothing=0.5)
    with pytest.raises(ValueError, match="likelihood"):
        kind(likelihood=-0.1)


@pytest.mark.parametrize("name", ["simpo", "orpo"])
def test_a_surrogate_has_no_mean_or_odds_of_its_own(name: str) -> None:
    """Only against a reference do the terms go away that a surrogate leaves out."""
    with pytest.raises(UserError, match=f"'{name}' needs log-probs that are exact, those of 'points' are surrogate"):
        assemble(small(POINTS, f"rounds.train.objective.name={name}"))
