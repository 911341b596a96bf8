"""Mirror descent with leave-one-out advantages (Apple 2024, "Apple Intelligence Foundation Language Models")."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from upturn.objectives import _advantages, _policy_gradient
from upturn.objectives._group_rewards import judge
from upturn.protocols import Objective
from upturn.types import Batch, Loss, Outputs


@dataclass(frozen=True)
class Mdloo(Objective):
    """MDLOO: leave-one-out advantages, and KL to the previous policy, the one that acted, instead of clipping.

    R_i = r_i - beta sum_t (log previous - log ref)_it,   A_i = R_i - mean_{j != i} R_j      (the report on MDLOO)
    maximise  E_{y ~ pi} A(y) - kl_previous KL(pi || previous)           (Tomar et al. 2020, MDPO, section 4.1)

    The report names these two parts; the estimator is written out here. Both expectations are taken under the
    previous policy, action by action, in the states it met, with rho_it = pi / previous:
    loss_i = -sum_t [rho_it A_i - kl_previous (rho_it log rho_it - rho_it + 1)]. The inner bracket estimates
    KL(pi || previous) from samples of *previous* without bias, is never negative, and is 0 with its gradient at
    rho = 1: the first step on a rollout goes where rloo's does, and only several steps a rollout make them differ.
    Solved to its end for rows of one action, a turn gives log pi_{k+1} = (1 - s) log pi_k + s log p* + c with
    s = beta / kl_previous and p* = p_ref e^{r / beta}: it closes in on p* without overshooting where
    kl_previous >= beta, and not at all below beta / 2.
    Loss: the mean over all actions of the batch drawn. Batch: ``given["rewards"]`` (E, K), K >= 2; a reward that is
    NaN weighs nothing, nor does a candidate alone.
    """

    beta: float = 0.05  # reward a nat of KL; as rloo
    kl_previous: float = 0.1  # twice beta, a turn goes at most half of the way to p*: ours, the report gives no value

    example: ClassVar[str] = "rollout"
    inputs: ClassVar[frozenset[str]] = frozenset({"log_probs"})
    accepts: ClassVar[frozenset[str]] = frozenset({"exact", "elbo", "surrogate"})
    before: ClassVar[frozenset[str]] = frozenset({"log_probs", "ref_log_probs"})

    def __post_init__(self) -> None:
        if self.beta < 0:
            raise ValueError(f"beta must not be negative, got {self.beta}")
        if self.kl_previous <= self.beta / 2:
            raise ValueError(f"kl_previous must be above beta / 2 ({self.beta / 2}), got {self.kl_previous}")

    def prepare(self, batch: Batch) -> Batch:
        judged = judge(batch, "mdloo", company=2, dtype=batch["before_log_probs"].dtype)
        kl = _policy_gradient.kl_of_rows(batch).reshape(-1, batch.candidates)
        advantages = _advantages.leave_one_out(judged.rewards - self.beta * kl, judged.counts)
        weights = judged.row_weights(batch)
        lengths = batch["before_mask"].sum(dim=1).to(weights.dtype).reshape(weights.shape)
        each = _policy_gradient.per_action(weights, lengths)
        return batch.with_given(advantages=advantages, row_weights=weights, per_action=each, **judged.shares())

    def __call__(self, out: Outputs, batch: Batch) -> Loss:
        weight, advantages = batch.given["row_weights"].reshape(-1), batch.given["advantages"].reshape(-1, 1)
        moved = _policy_gradient.log_ratio(out.log_probs, batch["before_log_probs"], out.mask)
        ratio = _policy_gradient.exponential(moved)
        away = ratio * moved - ratio + 1
        each = batch.given["per_action"].reshape(-1, 1) * out.mask
        rows = -(each * (ratio * advantages - self.kl_previous * away)).sum(dim=1)
        ref = batch["before_ref_log_probs"]
        metrics = _policy_gradient.report(out, batch, weight, ratio.detach(), out.mask, ref)
        with torch.no_grad():
            metrics["kl_previous"] = (weight * (away * out.mask).sum(dim=1)).sum()
        return Loss((weight * rows).sum(), weight.sum(), metrics)
