"""Group relative policy optimisation (Shao et al. 2024, DeepSeekMath), and its known variants."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch

from upturn.objectives import _advantages, _policy_gradient
from upturn.objectives._group_rewards import judge
from upturn.protocols import Objective
from upturn.types import Batch, Loss, Outputs


@dataclass(frozen=True)
class Grpo(Objective):
    """GRPO: a group's rewards, centred and scaled, are the advantage of every action; KL to the reference in the loss.

    A_i = (r_i - mean r) / std r                                           (Shao et al. 2024, section 4.1.2)
    loss_it = -min(rho_it A_i, clip(rho_it) A_i) + beta k_it,  rho_it = pi / previous of one action  (eq. 3)
    k_it = [rho_it] (e^d - d - 1),  d = log ref - log pi                   (eq. 4; k3 of Schulman 2020)

    ``scale_by_std: false`` leaves the deviation out (Dr. GRPO, Liu et al. 2025): with it, beta in effect is beta times
    each prompt's own std. ``length``: "row" averages over a row's actions, then over rows (the paper); "batch" is
    the mean over all actions of the batch drawn (DAPO, Yu et al. 2025, section 3.3); "none" sums a row's actions
    (Dr. GRPO up to its constant, which only scales the learning rate). ``clip_high`` is DAPO's clip-higher.

    Departs from the paper: ``kl: weighted`` multiplies k3 by rho, so that its gradient, too, is that of KL(pi || ref)
    (as DeepSeek-V3.2 and TRL 1.16 do); with ``kl: k3``, as printed in eq. 4, the gradient at rho = 1 is that of
    KL(ref || pi), and the optimum is not p_ref e^{r / beta} but p_ref beta / (c - r). The mean holds the candidate
    itself: A is (K - 1) / K of leave-one-out, and beta counts for K / (K - 1) as much. KL in the loss does not see
    that an early action changes which later states are met: over several actions only rloo, ppo and mdloo have
    p_ref e^{r / beta} as their optimum.
    Batch: ``given["rewards"]`` (E, K), K >= 2; a reward that is NaN weighs nothing, nor does a candidate alone.
    """

    beta: float = 0.04  # reward a nat of KL; Shao et al. 2024, section 4.2
    clip: float = 0.2  # Schulman et al. 2017, section 6.1
    clip_high: float | None = None  # as clip; DAPO, section 3.1, takes 0.28
    scale_by_std: bool = True
    length: Literal["row", "batch", "none"] = "row"
    kl: Literal["weighted", "k3"] = "weighted"

    example: ClassVar[str] = "rollout"
    inputs: ClassVar[frozenset[str]] = frozenset({"log_probs", "ref_log_probs"})
    accepts: ClassVar[frozenset[str]] = frozenset({"exact", "elbo", "surrogate"})
    before: ClassVar[frozenset[str]] = frozenset({"log_probs", "ref_log_probs"})

    def __post_init__(self) -> None:
        if self.beta < 0:
            raise ValueError(f"beta must not be negative, got {self.beta}")
        if not 0 < self.clip < 1:
            raise ValueError(f"clip must lie between 0 and 1, got {self.clip}")
        if self.clip_high is not None and self.clip_high < self.clip:
            raise ValueError(f"clip_high must not be below clip ({self.clip}), got {self.clip_high}")

    def prepare(self, batch: Batch) -> Batch:
        judged = judge(batch, "grpo", company=2, dtype=batch["before_log_probs"].dtype)
        advantages = _advantages.group_relative(judged.rewards, judged.counts, by_std=self.scale_by_std)
        weights = judged.row_weights(batch)
        lengths = batch["before_mask"].sum(dim=1).to(weights.dtype).reshape(weights.shape)
        if self.length == "row":
            each = 1 / lengths.clamp(min=1)
        elif self.length == "batch":
            each = _policy_gradient.per_action(weights, lengths)
        else:
            each = torch.ones_like(lengths)
        return batch.with_given(advantages=advantages, row_weights=weights, per_action=each, **judged.shares())

    def __call__(self, out: Outputs, batch: Batch) -> Loss:
        assert out.ref_log_probs is not None
        weight, advantages = batch.given["row_weights"].reshape(-1), batch.given["advantages"].reshape(-1, 1)
        ratio = _policy_gradient.exponential(
            _policy_gradient.log_ratio(out.log_probs, batch["before_log_probs"], out.mask)
        )
        high = self.clip if self.clip_high is None else self.clip_high
        losses, held = _policy_gradient.clipped_loss(ratio, advantages, self.clip, high)
        kl = _policy_gradient.k3(out.log_probs, out.ref_log_probs, out.mask)
        if self.kl == "weighted":
            kl = ratio * kl
        each = batch.given["per_action"].reshape(-1, 1) * out.mask
        rows = (each * (losses + self.beta * kl)).sum(dim=1)
        metrics = _policy_gradient.report(out, batch, weight, ratio.detach(), out.mask, out.ref_log_probs)
        metrics["clipped"] = (weight * _policy_gradient.row_mean(held, out.mask)).sum()
        return Loss((weight * rows).sum(), weight.sum(), metrics)
