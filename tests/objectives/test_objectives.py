"""Objectives against formulas written out in plain Python, and their gradients against finite differences."""

from __future__ import annotations

import math

import pytest
import torch

from upturn.errors import UserError
from upturn.objectives.dpo import Dpo
from upturn.objectives.likelihood import Likelihood
from upturn.types import Batch, Outputs


def rows(count: int, length: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    rng = torch.Generator().manual_seed(seed)
    log_probs = -torch.rand(count, length, generator=rng, dtype=torch.float64)
    reference = -torch.rand(count, length, generator=rng, dtype=torch.float64)
    mask = (torch.rand(count, length, generator=rng) > 0.3).double()
    return log_probs, reference, mask


def test_likelihood_is_the_weighted_mean_over_what_counts() -> None:
    log_probs, _, mask = rows(4, 5)
    weights = torch.tensor([1.0, 0.0, 2.0, 0.5], dtype=torch.float64)
    loss = Likelihood()(Outputs(log_probs, mask, dims=3), Batch({"x": torch.zeros(4)}, given={"weights": weights}))
    top = bottom = 0.0
    for i in range(4):
        for t in range(5):
            top += float(weights[i] * mask[i, t] * -log_probs[i, t])
            bottom += float(weights[i] * mask[i, t]) * 3
    assert float(loss.sum / loss.weight) == pytest.approx(top / bottom)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_dpo_is_equation_7(smoothing: float) -> None:
    log_probs, reference, mask = rows(6, 5)
    ranks = torch.tensor([[1, 2], [2, 1], [1, 2]])
    out = Outputs(log_probs, mask, ref_log_probs=reference)
    loss = Dpo(beta=0.3, label_smoothing=smoothing)(out, Batch({"x": torch.zeros(6)}, 2, {"ranks": ranks}))
    expected = 0.0
    for pair in range(3):
        a, b = (2 * pair, 2 * pair + 1) if ranks[pair, 0] < ranks[pair, 1] else (2 * pair + 1, 2 * pair)
        gap = [float((mask[i] * (log_probs[i] - reference[i])).sum()) for i in (a, b)]
        margin = 0.3 * (gap[0] - gap[1])
        right, wrong = -math.log(1 / (1 + math.exp(-margin))), -math.log(1 / (1 + math.exp(margin)))
        expected += (1 - smoothing) * right + smoothing * wrong
    assert float(loss.sum) == pytest.approx(expected)
    assert float(loss.weight) == 3


def test_dpo_of_diffusion_averages_over_draws() -> None:
    log_probs, reference, mask = rows(2, 1)
    twice = [torch.cat([t, t], dim=1) for t in (log_probs, mask, reference)]
    batch = Batch({"x": torch.zeros(2)}, 2, {"ranks": torch.tensor([[1, 2]])})
    once = Dpo()(Outputs(log_probs, mask, ref_log_probs=reference), batch)
    both = Dpo()(Outputs(twice[0], twice[1], ref_log_probs=twice[2], draws=2), batch)
    assert float(once.sum) == pytest.approx(float(both.sum))


def test_pain_18_a_tie_is_no_preference() -> None:
    log_probs, reference, mask = rows(6, 5)
    out = Outputs(log_probs, mask, ref_log_probs=reference)
    batch = Batch({"x": torch.zeros(6)}, 2, {"ranks": torch.tensor([[1, 1], [1, 2], [0, 0]])})
    loss = Dpo()(out, batch)
    assert float(loss.weight) == 1


def test_gradients_against_finite_differences() -> None:
    log_probs, reference, mask = rows(4, 3)
    pairs = Batch({"x": torch.zeros(4)}, 2, {"ranks": torch.tensor([[1, 2], [2, 1]])})
    single = Batch({"x": torch.zeros(4)}, given={"weights": torch.tensor([1.0, 2.0, 0.5, 1.5], dtype=torch.float64)})
    log_probs.requires_grad_()
    assert torch.autograd.gradcheck(lambda p: Dpo()(Outputs(p, mask, ref_log_probs=reference), pairs).sum, log_probs)
    assert torch.autograd.gradcheck(lambda p: Likelihood()(Outputs(p, mask), single).sum, log_probs)


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(UserError, match="pairs, got groups of 3"):
        Dpo().prepare(Batch({"x": torch.zeros(6)}, 3))
    with pytest.raises(UserError, match="single samples"):
        Likelihood().prepare(Batch({"x": torch.zeros(6)}, 3))
    with pytest.raises(ValueError, match="beta"):
        Dpo(beta=0)
