"""A bandit with a known optimum: a softmax policy over a few arms, and exact expectations."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from upturn.types import Batch, Outputs

BETA = 0.5


def arms(count: int = 5) -> tuple[Tensor, Tensor]:
    """log p0 and rewards, neither near uniform."""
    rng = torch.Generator().manual_seed(count)
    start = torch.randn(count, generator=rng, dtype=torch.float64).log_softmax(0)
    return start, torch.randn(count, generator=rng, dtype=torch.float64)


def optimum(start: Tensor, rewards: Tensor, beta: float = BETA) -> Tensor:
    """p ∝ p0 e^{r / beta}: what maximises E[r] - beta KL(p || p0)."""
    return (start + rewards / beta).softmax(0)


def outputs(log_policy: Tensor, start: Tensor, which: Tensor) -> Outputs:
    """One row for each of ``which`` (N,) arms."""
    rows = log_policy[which][:, None]
    return Outputs(rows, torch.ones_like(rows), ref_log_probs=start[which][:, None])


def solve(objective: Any, start: Tensor, which: Tensor, batch: Batch) -> Tensor:
    """The policy that minimises the objective on the whole batch, from p0: (arms,) probabilities."""
    logits = start.clone().requires_grad_()
    optimiser = torch.optim.LBFGS([logits], max_iter=500, line_search_fn="strong_wolfe", tolerance_grad=1e-10)
    batch = objective.prepare(batch)

    def closure() -> Tensor:
        optimiser.zero_grad()
        loss = objective(outputs(logits.log_softmax(0), start, which), batch)
        mean: Tensor = loss.sum / loss.weight
        mean.backward()
        return mean

    step: Callable[[Callable[[], Tensor]], Any] = optimiser.step
    step(closure)
    return logits.detach().softmax(0)


def total_variation(p: Tensor, q: Tensor) -> float:
    return float((p - q).abs().sum() / 2)


def examples(groups: Sequence[Sequence[int]], **given: Tensor) -> tuple[Tensor, Batch]:
    """The arm of each row, and the batch of groups of arms."""
    which = torch.tensor(groups).reshape(-1)
    return which, Batch({"arm": which}, len(groups[0]), given)
