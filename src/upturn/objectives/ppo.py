"""Proximal policy optimisation with a value head (Schulman et al. 2017), as RLHF uses it (Ouyang et al. 2022)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch

from upturn.objectives import _advantages, _policy_gradient
from upturn.objectives._group_rewards import judge
from upturn.protocols import Objective
from upturn.types import Batch, Loss, Outputs

_COEFFICIENT = "kl_coefficient"
_LARGEST_ERROR = 0.2  # Ziegler et al. 2019, section 2.2: the relative error of KL is clipped to this


@dataclass(frozen=True)
class Ppo(Objective):
    """PPO: clipped ratios of single actions, advantages by GAE from a value head, KL to the reference in the reward.

    reward_t = -beta (log previous - log ref)_t, plus r at the row's last action         (Ouyang et al. 2022, eq. 2)
    A = GAE(gamma, lam) of it, whitened over the batch drawn;  return = A before whitening + V previous
    loss_t = -min(rho_t A_t, clip(rho_t) A_t)                                            (Schulman et al. 2017, eq. 7)
             + value_weight 1/2 max[(V - return)^2, (clip(V, V previous +- clip_value) - return)^2]

    *Previous* is policy and value when the rollout was drawn. ``Outputs.values[:, t]`` (N, T), in units of reward, is
    the worth of the state before action t. The loss is the mean over all actions of the batch drawn. A row without a
    reward (NaN) weighs nothing. Its optimum is p_ref e^{r / beta}.
    Fixed KL: ``beta`` is the coefficient. Adaptive (Ziegler et al. 2019, section 2.2) where ``kl_target`` (nats a row)
    is given: ``beta`` is its start, and ``steer`` moves it after each batch drawn.
    """

    beta: float = 0.05  # reward a nat of KL; TRL
    kl_target: float | None = None  # nats a row; Ziegler et al. take 6 to 10
    kl_horizon: float = 10_000.0  # rows over which the coefficient may change by 20%: Ziegler et al., their code
    clip: float = 0.2  # Schulman et al. 2017, section 6.1
    clip_value: float = 0.2  # in units of reward; TRL
    value_weight: float = 0.1  # Ziegler et al. 2019, their code
    gamma: float = 1.0  # Ziegler et al. 2019: no discount
    lam: float = 0.95  # Schulman et al. 2017, table 3
    whiten: bool = True

    example: ClassVar[str] = "rollout"
    inputs: ClassVar[frozenset[str]] = frozenset({"log_probs", "values"})
    accepts: ClassVar[frozenset[str]] = frozenset({"exact", "elbo", "surrogate"})
    before: ClassVar[frozenset[str]] = frozenset({"log_probs", "ref_log_probs", "values"})

    def __post_init__(self) -> None:
        if self.beta < 0:
            raise ValueError(f"beta must not be negative, got {self.beta}")
        if not 0 < self.clip < 1:
            raise ValueError(f"clip must lie between 0 and 1, got {self.clip}")
        if not (0 <= self.gamma <= 1 and 0 <= self.lam <= 1):
            raise ValueError(f"gamma and lam must lie in [0, 1], got {self.gamma} and {self.lam}")
        if self.clip_value <= 0 or self.value_weight < 0:
            raise ValueError("clip_value must be above 0, and value_weight not below")
        if self.kl_target is not None and (self.kl_target <= 0 or self.kl_horizon <= 0 or self.beta == 0):
            raise ValueError("an adaptive KL needs kl_target, kl_horizon and beta above 0")

    def prepare(self, batch: Batch) -> Batch:
        old, mask, values = batch["before_log_probs"], batch["before_mask"], batch["before_values"]
        judged = judge(batch, "ppo", company=1, dtype=old.dtype)
        weights = judged.row_weights(batch)
        coefficient = batch.given.get(_COEFFICIENT, torch.full_like(weights[:, 0], self.beta)).to(weights)
        rates = coefficient.repeat_interleave(batch.candidates)[:, None]
        rewards = _advantages.at_the_end(judged.rewards.reshape(-1), mask)
        rewards = rewards - rates * _policy_gradient.log_ratio(old, batch["before_ref_log_probs"], mask)
        advantages, returns = _advantages.generalised(rewards, values, mask, gamma=self.gamma, lam=self.lam)
        if self.whiten:
            advantages = _advantages.whitened(advantages, mask * judged.counts.reshape(-1, 1))
        lengths = mask.sum(dim=1).to(weights.dtype).reshape(weights.shape)
        each = _policy_gradient.per_action(weights, lengths)
        batch = batch.with_given(row_weights=weights, per_action=each, kl_coefficient=coefficient, **judged.shares())
        return batch.with_columns(advantages=advantages, returns=returns)

    def steer(self, state: Mapping[str, float], batch: Batch) -> dict[str, float]:
        """The state for the next batch, from that of this one and the batch as ``prepare`` gave it.

        The trainer starts with an empty state, saves it, and puts each number into ``given`` as (E,) before
        ``prepare``.
        beta <- beta (1 + clip(KL / target - 1, -0.2, 0.2) rows / horizon) (Ziegler et al. 2019, section 2.2).
        """
        if self.kl_target is None:
            return {}
        kl = float(_policy_gradient.kl_of_rows(batch).mean())
        error = min(max(kl / self.kl_target - 1, -_LARGEST_ERROR), _LARGEST_ERROR)
        # a batch beyond the horizon must not turn the coefficient's sign
        return {_COEFFICIENT: state.get(_COEFFICIENT, self.beta) * (1 + error * min(batch.rows / self.kl_horizon, 1.0))}

    def __call__(self, out: Outputs, batch: Batch) -> Loss:
        assert out.values is not None
        weight, advantages, returns = batch.given["row_weights"].reshape(-1), batch["advantages"], batch["returns"]
        ratio = _policy_gradient.exponential(
            _policy_gradient.log_ratio(out.log_probs, batch["before_log_probs"], out.mask)
        )
        losses, held = _policy_gradient.clipped_loss(ratio, advantages, self.clip, self.clip)
        before = torch.where(out.mask > 0, batch["before_values"], 0.0)
        values = torch.where(out.mask > 0, out.values, 0.0)
        near = before + (values - before).clamp(-self.clip_value, self.clip_value)
        errors = 0.5 * torch.maximum((values - returns).square(), (near - returns).square())
        each = batch.given["per_action"].reshape(-1, 1) * out.mask
        rows = (each * (losses + self.value_weight * errors)).sum(dim=1)
        ref = batch["before_ref_log_probs"]
        metrics = _policy_gradient.report(out, batch, weight, ratio.detach(), out.mask, ref)
        with torch.no_grad():
            metrics["clipped"] = (weight * _policy_gradient.row_mean(held, out.mask)).sum()
            metrics["value_loss"] = (weight * (each * errors).sum(dim=1)).sum()
            coefficient = batch.given[_COEFFICIENT].repeat_interleave(batch.candidates)
            metrics["kl_coefficient"] = (weight * coefficient).sum()
        return Loss((weight * rows).sum(), weight.sum(), metrics)
